// A Llama-family decoder: packed weights, slots, and one step over any rows.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "correction.h"
#include "kernels.h"
#include "memory.h"
#include "pack.h"
#include "pool.h"

namespace atlasd {

// Mirrored by ctypes in library.py: keep both in step.
struct Config {
  int32_t vocab, hidden, layers, heads, kv_heads, head_dim, intermediate;
  int32_t slots, slot_tokens, threads;
  int32_t qk_norm, half_cache;
  int32_t format, head_format;
  int32_t embedding_source;   // a Source; -1: tied, tokens are columns of the head
  float rms_eps;
  const char* isa;            // null: the best
  const int32_t* windows;     // [layers], 0: all positions
  const float* cos;           // [slot_tokens, head_dim / 2]
  const float* sin;
  const uint8_t* weights;
  const int64_t* offsets;     // into weights: see Weights in decoder.cpp
};

constexpr long kStepRows = 256;   // longer calls are cut; the bits are the same

// Below so many numbers rows are not worth sharing out; what a thread needs to prepare them itself.
constexpr long kSharedNumbers = 16384;
constexpr long kOwnBytes = kSharedNumbers * 8;

struct Layer {
  const float* input_norm;
  const float* post_norm;
  const float* q_norm;
  const float* k_norm;
  const float* qkv_bias;
  Matrix qkv, output, gate_up, down;
  int32_t window;
};

// Where the time of a step went, in nanoseconds on the calling thread.
struct Profile {
  int64_t matmul, attention, other;
};

struct RowBatch {
  const int32_t* tokens;
  const int32_t* slots;
  const int32_t* positions;
  long count;

  RowBatch part(long begin, long n) const {
    return {tokens + begin, slots + begin, positions + begin, n};
  }
};

// Rows [rows, ld] of k numbers, normalised first where there is a weight.
struct Floats {
  const float* values;
  long ld, k;
  const float* norm;
};

// What a matmul reads of rows, as Rows has it.
struct Prepared {
  int8_t* values;   // or halves
  float* scales;
  int32_t* offsets;
};

// A few rows as a thread has prepared them for itself, in a loop of that number.
struct alignas(64) OwnRows {
  uint64_t loop = 0;
  Rows rows;
  Memory memory;   // normalised, then Prepared
};

// Everything is [rows, ld]; what lies behind the last column stays zero.
struct Scratch {
  float *x, *normed, *qkv, *attended, *middle;
  long x_ld, qkv_ld, attended_ld, middle_ld;
  Prepared prepared, passed_on;   // the latter by whoever had a row's numbers first
  Rows rows;   // what the next matmul reads
};

// Queries [begin, end) of a run of rows of one slot, whose first row is `row`.
struct QueryRange {
  long row, begin, end;
};

class Decoder {
 public:
  explicit Decoder(const Config& config);   // throws std::runtime_error

  // Null, or what is wrong with these rows.
  const char* check(const RowBatch& rows, const int32_t* wanted, long count) const;
  // As `check`, for the rows of a draft; `before` may be null.
  const char* check_chain(const RowBatch& rows, const int32_t* before) const;
  // logits: [count, logits_ld()] of the rows in `wanted`
  void forward(const RowBatch& rows, const int32_t* wanted, long count, float* logits);
  void copy_prefix(int source, int target, int length);

  // A head of these tokens only, for drafting; replaces the one before. Empty: none.
  void reduce_head(const int32_t* tokens, long count);
  // Drafts after the last of `rows`, which are of one slot, greedily or with noise; returns how
  // many tokens were drafted. `chose`: the target's state that chose the last row's token, or null.
  // With a correction its head is used, and `before` is the token before the last row's.
  long draft(const RowBatch& rows, const float* chose, long limit, float stop, const Noise& noise,
             bool reduced, int32_t* tokens, float* probabilities,
             const Correction* correction = nullptr, int32_t before = 0);
  // Null, or what is wrong with these weights.
  const char* check_correction(const CorrectionWeights& weights) const;
  Correction* make_correction(const CorrectionWeights& weights) const;
  // Normalised last hidden states of all rows, [count, hidden]; nothing else of them is computed.
  // `chose`: the states that chose their tokens, [count, hidden], or null.
  void states(const RowBatch& rows, const float* chose, float* out);
  // weight: [hidden, hidden], of what the state that chose a token adds to the state after it; see
  // carry.cpp.
  void set_carry(const float* weight);
  bool carries() const { return carry_.data != nullptr; }
  // weight: [kv_heads * head_dim, hidden], of what the token before adds to a token's keys in the
  // first layer; null, or why this decoder cannot. See smear.cpp.
  const char* set_smear(const float* weight);
  // Where `forward` puts the normalised last hidden states of the rows wanted, [count, hidden];
  // null: nowhere.
  void keep_states(float* out) { kept_ = out; }

  // Of heads that only draft: that of the layers, since INT4 keeps eight bits for the head's sake;
  // or the head's own, if its rows are rounded, so that its sums are those of the whole head.
  Format draft_format() const {
    const bool rounded = head_.format == Format::fp16 || head_.format == Format::sixteen;
    return rounded ? head_.format : static_cast<Format>(config_.format);
  }
  long logits_ld() const { return padded(config_.vocab, kPanel); }
  long slot_bytes() const { return cache_.bytes(); }
  long scratch_bytes() const {
    return scratch_.bytes() + reduced_memory_.bytes() + carry_memory_.bytes() +
           smear_memory_.bytes() + kOwnBytes * (pool_->threads() - 1) +
           static_cast<long>(texts_.size() * sizeof(int32_t));
  }
  const Kernels& kernels() const { return *kernels_; }
  Pool& pool() { return *pool_; }
  const Profile& profile() const { return profile_; }
  void set_profiling(bool on) { profiling_ = on; }

 private:
  Scratch scratch(long rows);
  void block(const RowBatch& rows, const std::vector<int32_t>& wanted);
  void embed(int32_t token, float* out) const;
  template <class Ready, class F>
  void multiply(const Matrix& m, const Ready& x, long rows, const Output& out, long unit, F&& behind);
  template <class F>
  void multiply(const Matrix& m, const Floats& x, long rows, const Output& out, Scratch& s, long unit,
                F&& behind);
  void multiply(const Matrix& m, const Floats& x, long rows, const Output& out, Scratch& s);
  void multiply_passed_on(const Matrix& m, const Floats& x, bool passed_on, long rows,
                          const Output& out, Scratch& s);
  void prepare_rows(const Floats& x, long rows, long begin, long end, Format format, float* normed,
                    const Prepared& to);
  static Rows rows_of(const Floats& x, Format format, const float* normed, const Prepared& p);
  void prepare(const Floats& x, long rows, Format format, Scratch& s);
  const Rows& own_rows(const Floats& x, long rows, Format format, const Scratch& s);
  void quantise(const Floats& x, long begin, long end, long first, long last, int group,
                const Prepared& to);
  void place_head(const Layer& layer, int index, const RowBatch& rows, long begin, long end, int head,
                  Scratch& s);
  void place_heads(const Layer& layer, int index, const RowBatch& rows, Scratch& s);
  bool places_by_head(long numbers, long rows) const;
  void expect_heads();
  void place_finished(const Layer& layer, int index, const RowBatch& rows, long begin, long end,
                      Scratch& s);
  bool passes_on(const Matrix& m, long rows) const;
  bool passes_on_attended(const Layer& layer, long rows) const;
  void pass_on(const QueryRange& range, int first_head, int heads, Format format, const Scratch& s);
  void attend(const Layer& layer, int index, const RowBatch& rows, Scratch& s);
  void smear(const RowBatch& rows, Scratch& s);
  void add_carried(const float* states, long rows, Scratch& s);
  void head(const Matrix& m, long rows, Scratch& s, float* logits, long ld);
  void corrected_head(const Correction& correction, int32_t last, int32_t before, Scratch& s,
                      float* logits, long ld);
  uint8_t* keys(int layer, int slot, int head) const;
  uint8_t* values(int layer, int slot, int head) const;
  template <class F>
  void each_rows(long rows, long columns, long together, F&& body);

  Config config_;
  const Kernels* kernels_;
  std::unique_ptr<Pool> pool_;
  std::vector<Layer> layers_;
  std::vector<float> cos_, sin_;
  const uint8_t* embedding_ = nullptr;
  const float* final_norm_;
  Matrix head_, reduced_head_{};
  Matrix carry_{}, smear_{};
  float* kept_ = nullptr;
  std::vector<float> carried_;   // the state that chose a chain's last token
  std::vector<int32_t> reduced_tokens_;
  std::vector<int32_t> texts_;   // [slots, slot_tokens], where keys are smeared
  Memory carry_memory_, smear_memory_, reduced_memory_, cache_, scratch_;
  long scratch_rows_ = 0;
  std::vector<OwnRows> own_rows_;   // by thread
  uint64_t loop_ = 0;               // the last in which threads prepare rows for themselves
  std::vector<std::atomic<int>> unfinished_;   // panels of each head
  std::vector<QueryRange> ranges_;
  Numbers cached_;
  long head_bytes_;    // of one (layer, slot, kv head)'s keys, and of its values
  std::vector<float> draft_logits_;
  Profile profile_{};
  bool profiling_ = false;
};

}  // namespace atlasd
