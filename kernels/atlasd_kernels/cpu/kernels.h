// What one instruction set provides: the kernels of a step, as plain function pointers.
// Every kernel treats its rows one by one in a fixed order, so a row's bits never depend on
// how many rows there are or which thread runs them.
#pragma once
#include <cstdint>

// Where a call would have all sums go through memory.
#define ATLASD_INLINE __attribute__((always_inline)) inline
#define ATLASD_INLINE_LAMBDA __attribute__((always_inline))

namespace atlasd {

// twelve, fp16 and sixteen: bf16 in other numbers (twelve.h, twelve_fp16.h, sixteen.h), which only
// weights that are kept have, and only where the kernels read it.
enum class Format : int { fp32 = 0, bf16 = 1, int8 = 2, int4 = 3, twelve = 4, fp16 = 5, sixteen = 6 };

// What a cache of keys and values holds.
enum class Numbers : int { fp32, bf16, fp16 };
constexpr long bytes_of(Numbers n) { return n == Numbers::fp32 ? 4 : 2; }

constexpr int kPanel = 32;       // columns of a weight panel
constexpr int kBlock = 64;       // positions of a KV block
constexpr int kMaxQueries = 96;   // at most so many queries go through the KV blocks together

// Weights [columns, k] cut into panels of 32 columns, k ascending inside a panel (see pack.h).
struct Matrix {
  Format format;
  const uint8_t* data;
  long panels;
  long k;            // padded to a multiple of 64
  long panel_bytes;
};

// Activations [rows, k]; the quantised part is there for integer weights only, the halves for weights
// that meet rounded ones: bf16, [rows, ld], in tiles; fp16 in blocks of rows, [k / 4][rows][4] each,
// of which there are as few as may be, and as equal (`block_rows`); integers of 16 bits, [rows, ld].
struct Rows {
  const float* values;
  long ld;
  const int8_t* quantised;   // [rows, ld]
  const float* scales;       // [rows, groups]; of fp16 [rows]
  const int32_t* offsets;    // [rows, groups]: minus the weights' zero points times the values
  long groups;
  const uint16_t* halves;
};

// Rows for weights in such groups, or the same stretch of several rows: from x [rows, ld] to int8
// values [rows, ld], a scale and an offset per group, [rows, groups]; k is a multiple of 64.
struct Rounding {
  const float* x;
  long ld, rows, k;
  int group;
  int8_t* values;
  float* scales;
  int32_t* offsets;
  long groups;
};

enum class Finish : int { store = 0, add = 1, silu_mul = 2 };

// Where a matmul's columns go. silu_mul: a panel is 16 gate and 16 up columns, 16 come out.
struct Output {
  float* data;
  long ld;
  Finish finish;
  const float* bias;   // null: none
};

// One query head of one row: it sees positions [begin, end).
struct Query {
  const float* values;    // [head_dim], already scaled
  float* out;             // [head_dim]
  int begin, end;
};

// Queries of rows of one slot over the keys and values of one KV head.
// keys: blocks of [head_dim, 64 positions]; values: [position, head_dim].
struct Attention {
  const Query* queries;
  int count;              // at most kMaxQueries
  int head_dim;
  const void* keys;
  const void* values;
  Numbers numbers;        // fp32, or what the kernels keep in 16 bits
};

struct Noise {
  float temperature;      // 0: argmax, no noise
  uint64_t seed;
  uint32_t choice, output_index;
};

struct Kernels {
  const char* name;
  void (*matmul)(const Matrix&, const Rows&, long rows, long panel_begin, long panel_end,
                 const Output&);
  void (*quantise)(const Rounding&);
  void (*rms_norm)(const float* x, const float* weight, float eps, long n, float* out);
  void (*rope)(float* head, const float* cos, const float* sin, int half, float scale);
  void (*cache)(const float* k, const float* v, int head_dim, int place, Numbers numbers,
                void* keys, void* value);
  int queries;   // that share each load of keys and values
  void (*attend)(const Attention&);
  int32_t (*choose)(const float* logits, long n, const Noise&);
  // The place [0, n) of the token that `choose` would take if all others were impossible.
  int32_t (*choose_among)(const float* logits, const int32_t* ids, long n, const Noise&);
  bool (*has_nan)(const float* logits, long n);
  float (*log_sum_exp)(const float* logits, long n);
  // ids (best first, ties to the lowest id) and logits of the k largest
  void (*top_k)(const float* logits, long n, int k, int32_t* ids, float* values);
  // For packing: unsigned codes of n weights in 2 * levels steps around `levels`; the scale.
  float (*quantise_group)(const float* x, int n, int levels, uint8_t* codes);
  // What bf16 weights are kept as, where they fit; see `reads`.
  Format kept = Format::bf16;
  // One row for weights that are kept in sixteen bits: numbers, and a scale per group; k is a multiple
  // of 64.
  void (*sixteen)(const float* x, long k, int16_t* numbers, float* scales) = nullptr;
  // Weights in this format meet rounded activations; fp32: there is none.
  Format rounded = Format::fp32;
  // One row, k a multiple of 16; each four k go `distance` behind the last. Returns what its products
  // are to be multiplied by.
  float (*round)(const float* x, long k, long distance, uint16_t* out) = nullptr;
  long round_block = 1;   // at most so many rows to a block
  Numbers cached = Numbers::bf16;   // what a cache of 16 bits holds
};

// Rows in equal blocks of at most `most`: 16 rows go as 8 + 8, not as 12 + 4.
inline long block_rows(long rows, long most) {
  const long blocks = (rows + most - 1) / most;
  return (rows + blocks - 1) / blocks;
}

// Best first; null-terminated. Only those this processor can run.
const Kernels* const* available_kernels();
const Kernels* find_kernels(const char* name);   // null name: the best

// Whether these kernels can multiply weights in this format.
inline bool reads(const Kernels& kernels, Format f) {
  return f < Format::twelve || f == kernels.kept ||
         (f == Format::twelve && kernels.kept == Format::fp16);
}
const char* kernels_note();   // why one that the processor announces is not used, or null

}  // namespace atlasd
