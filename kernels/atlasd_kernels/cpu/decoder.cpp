// Setting a decoder up, its slots, and what is not part of a step.
#include "decoder.h"

#include <cstring>
#include <stdexcept>

namespace atlasd {
namespace {

// The order in which Python lays weights out; -1 stands for one that is not there. Parts begin at
// multiples of 64; what is added says that a matrix is kept in that format instead.
class Weights {
 public:
  Weights(const Config& c) : base_(c.weights), next_(c.offsets) {}
  const uint8_t* bytes() {
    const int64_t offset = *next_++;
    return offset < 0 ? nullptr : base_ + offset;
  }
  const float* floats() { return reinterpret_cast<const float*>(bytes()); }
  Matrix matrix(int format, long columns, long k) {
    const int64_t kept = *next_ % 64;
    const Format f = static_cast<Format>(kept ? kept : format);
    return {f, bytes() - kept, padded(columns, kPanel) / kPanel, padded(k, kGroupPadding),
            panel_bytes(f, k)};
  }

 private:
  const uint8_t* base_;
  const int64_t* next_;
};

void require(bool condition, const char* message) {
  if (!condition) throw std::runtime_error(message);
}

}  // namespace

Decoder::Decoder(const Config& c) : config_(c), kernels_(find_kernels(c.isa)) {
  require(kernels_, "this processor cannot run that instruction set");
  require(c.head_dim % 16 == 0, "head_dim must be a multiple of 16");
  require(c.heads % c.kv_heads == 0, "heads must be a multiple of kv_heads");
  pool_ = std::make_unique<Pool>(c.threads);
  const long table = long{c.slot_tokens} * (c.head_dim / 2);
  cos_.assign(c.cos, c.cos + table);
  sin_.assign(c.sin, c.sin + table);

  Weights w(c);
  embedding_ = w.bytes();
  head_ = w.matrix(c.head_format, c.vocab, c.hidden);
  final_norm_ = w.floats();
  const long q = long{c.heads} * c.head_dim, kv = long{c.kv_heads} * c.head_dim;
  for (int i = 0; i < c.layers; i++) {
    Layer layer{};
    layer.input_norm = w.floats();
    layer.qkv = w.matrix(c.format, q + 2 * kv, c.hidden);
    layer.qkv_bias = w.floats();
    layer.q_norm = w.floats();
    layer.k_norm = w.floats();
    layer.output = w.matrix(c.format, c.hidden, q);
    layer.post_norm = w.floats();
    layer.gate_up = w.matrix(c.format, 2 * padded(c.intermediate, 16), c.hidden);
    layer.down = w.matrix(c.format, c.hidden, c.intermediate);
    layer.window = c.windows[i];
    layers_.push_back(layer);
    for (const Matrix* m : {&layer.qkv, &layer.output, &layer.gate_up, &layer.down, &head_})
      require(reads(*kernels_, m->format),
              "weights kept in numbers that this instruction set does not read");
  }
  cached_ = c.half_cache ? kernels_->cached : Numbers::fp32;
  head_bytes_ = padded(c.slot_tokens, kBlock) * c.head_dim * bytes_of(cached_);
  unfinished_ = std::vector<std::atomic<int>>(c.heads + c.kv_heads);
  own_rows_ = std::vector<OwnRows>(pool_->threads());
  for (int t = 1; t < pool_->threads(); t++) own_rows_[t].memory = Memory(kOwnBytes);
  cache_ = Memory(2 * head_bytes_ * c.layers * c.slots * c.kv_heads);
}

uint8_t* Decoder::keys(int layer, int slot, int head) const {
  const long index = (long{layer} * config_.slots + slot) * config_.kv_heads + head;
  return cache_.as<uint8_t>(2 * index * head_bytes_);
}

uint8_t* Decoder::values(int layer, int slot, int head) const {
  return keys(layer, slot, head) + head_bytes_;
}

void Decoder::copy_prefix(int source, int target, int length) {
  // keys lie transposed in blocks, so whole blocks are copied; what is behind length is not read
  // before it is written again
  const long size = bytes_of(cached_);
  const long key_bytes = padded(length, kBlock) * config_.head_dim * size;
  const long value_bytes = long{length} * config_.head_dim * size;
  pool_->run(long{config_.layers} * config_.kv_heads, [&](long i) {
    const int layer = static_cast<int>(i / config_.kv_heads);
    const int head = static_cast<int>(i % config_.kv_heads);
    memmove(keys(layer, target, head), keys(layer, source, head), key_bytes);
    memmove(values(layer, target, head), values(layer, source, head), value_bytes);
  });
  if (smear_.data) {
    int32_t* text = texts_.data() + long{target} * config_.slot_tokens;
    memmove(text, texts_.data() + long{source} * config_.slot_tokens, length * sizeof(int32_t));
  }
}

void Decoder::embed(int32_t token, float* out) const {
  if (config_.embedding_source < 0)
    unpack_column(head_.format, head_.data, config_.hidden, token, config_.hidden, out);
  else
    widen(static_cast<Source>(config_.embedding_source), embedding_,
          long{token} * config_.hidden, config_.hidden, out);
}

const char* Decoder::check(const RowBatch& rows, const int32_t* wanted, long count) const {
  for (long r = 0; r < rows.count; r++) {
    if (rows.tokens[r] < 0 || rows.tokens[r] >= config_.vocab) return "token out of range";
    if (rows.slots[r] < 0 || rows.slots[r] >= config_.slots) return "slot out of range";
    if (rows.positions[r] < 0 || rows.positions[r] >= config_.slot_tokens)
      return "position out of range";
  }
  for (long i = 0; i < count; i++) {
    if (wanted[i] < 0 || wanted[i] >= rows.count) return "logits row out of range";
    if (i > 0 && wanted[i] <= wanted[i - 1]) return "logits rows out of order";
  }
  return nullptr;
}

}  // namespace atlasd
