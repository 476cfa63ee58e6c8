// Rows of a step between its matmuls: scratch memory, what a matmul reads, and the cache.
#include <cmath>

#include "step.h"

namespace atlasd {
namespace {

constexpr long kTogether = 8;   // rows that are quantised at a time

// Rows a multiple of 4 KB apart would all fall into the same few lines of the first cache.
long row_distance(long columns) { return padded(columns, 64) + 16; }

}  // namespace

Scratch Decoder::scratch(long rows) {
  const Config& c = config_;
  Scratch s{};
  s.x_ld = row_distance(c.hidden);
  s.qkv_ld = row_distance(long{c.heads + 2 * c.kv_heads} * c.head_dim);
  s.attended_ld = row_distance(long{c.heads} * c.head_dim);
  s.middle_ld = row_distance(c.intermediate);
  const long widest = std::max({s.x_ld, s.attended_ld, s.middle_ld});
  long size = 0;
  const auto place = [&](long bytes) {
    const long offset = size;
    size += padded(bytes, 64);
    return offset;
  };
  const auto lay_out = [&](long n) {
    size = 0;
    const long x = place(n * s.x_ld * 4), normed = place(n * s.x_ld * 4);
    const long qkv = place(n * s.qkv_ld * 4), attended = place(n * s.attended_ld * 4);
    const long middle = place(n * s.middle_ld * 4);
    long parts[2][3];
    for (auto& part : parts) {
      part[0] = place(n * widest * 2);
      part[1] = place(n * widest / 32 * 4);
      part[2] = place(n * widest / 32 * 4);
    }
    if (size > scratch_.bytes()) scratch_ = Memory(size);
    s.x = scratch_.as<float>(x);
    s.normed = scratch_.as<float>(normed);
    s.qkv = scratch_.as<float>(qkv);
    s.attended = scratch_.as<float>(attended);
    s.middle = scratch_.as<float>(middle);
    const auto prepared = [&](const long* part) {
      return Prepared{scratch_.as<int8_t>(part[0]), scratch_.as<float>(part[1]),
                      scratch_.as<int32_t>(part[2])};
    };
    s.prepared = prepared(parts[0]);
    s.passed_on = prepared(parts[1]);
  };
  // one layout per size that was ever needed, so that padding once zero stays zero
  if (rows > scratch_rows_) {
    scratch_rows_ = std::min(kStepRows, std::max<long>(16, 2 * rows));
    scratch_ = Memory();
  }
  lay_out(scratch_rows_);
  return s;
}

// Rows [begin, end) of x, normalised into `normed` where there is a weight, as matmuls of that format
// read them.
void Decoder::prepare_rows(const Floats& x, long rows, long begin, long end, Format format,
                           float* normed, const Prepared& to) {
  const long width = padded(x.k, kGroupPadding);
  const int group = group_of(format);
  const bool rounded = kernels_->round && format == kernels_->rounded;
  const long block = rounded ? block_rows(rows, kernels_->round_block) : 1;
  const float* values = x.norm ? normed : x.values;
  uint16_t* halves = reinterpret_cast<uint16_t*>(to.values);
  for (long next; begin < end; begin = next) {
    next = std::min(end, begin + kTogether);
    for (long r = begin; r < next; r++) {
      if (x.norm)
        kernels_->rms_norm(x.values + r * x.ld, x.norm, config_.rms_eps, x.k, normed + r * x.ld);
      if (format == Format::sixteen)
        kernels_->sixteen(values + r * x.ld, width, reinterpret_cast<int16_t*>(halves) + r * x.ld,
                          to.scales + r * (width / group));
      if (!rounded) continue;
      const long place = r % block, first = r - place;
      to.scales[r] = kernels_->round(values + r * x.ld, width, 4 * std::min(block, rows - first),
                                     halves + first * x.ld + 4 * place);
    }
    if (is_quantised(format))
      quantise({values, x.ld, x.k, nullptr}, begin, next, 0, x.k, group, to);
  }
}

// What matmuls read of rows that were prepared so.
Rows Decoder::rows_of(const Floats& x, Format format, const float* normed, const Prepared& p) {
  const int group = group_of(format);
  return {x.norm ? normed : x.values, x.ld, p.values, p.scales, p.offsets,
          group ? padded(x.k, kGroupPadding) / group : 0, reinterpret_cast<uint16_t*>(p.values)};
}

void Decoder::prepare(const Floats& x, long rows, Format format, Scratch& s) {
  const Timer timer(profile_.other, profile_.other, profiling_);
  s.rows = rows_of(x, format, s.normed, s.prepared);
  const bool rounded = kernels_->round && format == kernels_->rounded;
  if (!x.norm && !group_of(format) && !rounded) return;
  const long block = rounded ? block_rows(rows, kernels_->round_block) : 1;
  each_rows(rows, x.k, block, [&](long begin, long end) {
    prepare_rows(x, rows, begin, end, format, s.normed, s.prepared);
  });
}

// The rows of this loop as the calling thread has prepared them; the caller of the loop does so in
// s.normed, where others look for them.
const Rows& Decoder::own_rows(const Floats& x, long rows, Format format, const Scratch& s) {
  const int thread = Pool::thread();
  OwnRows& own = own_rows_[thread];
  if (own.loop == loop_) return own.rows;
  const Timer timer(profile_.other, profile_.other, profiling_ && thread == 0);
  float* normed = thread ? own.memory.as<float>(0) : s.normed;
  Prepared to = s.prepared;
  if (thread)
    to = {own.memory.as<int8_t>(kSharedNumbers * 4), own.memory.as<float>(kSharedNumbers * 6),
          own.memory.as<int32_t>(kSharedNumbers * 7)};
  prepare_rows(x, rows, 0, rows, format, normed, to);
  own.rows = rows_of(x, format, normed, to);
  own.loop = loop_;
  return own.rows;
}

// Numbers [first, last) of rows [begin, end), for matmuls of weights in such groups; `first` is a
// multiple of 64.
void Decoder::quantise(const Floats& x, long begin, long end, long first, long last, int group,
                       const Prepared& to) {
  const long groups = padded(x.k, kGroupPadding) / group, at = begin * x.ld + first;
  const long place = begin * groups + first / group;
  kernels_->quantise({x.values + at, x.ld, end - begin, padded(last - first, kQuantised), group,
                      to.values + at, to.scales + place, to.offsets + place, groups});
}

// Rotates a head of rows [begin, end), or a KV head (behind the others) and writes it to the cache.
void Decoder::place_head(const Layer& layer, int index, const RowBatch& rows, long begin, long end,
                         int head, Scratch& s) {
  const Config& c = config_;
  const long dim = c.head_dim, half = dim / 2, size = bytes_of(cached_);
  const bool query = head < c.heads;
  const float scale = query ? 1.0f / std::sqrt(static_cast<float>(dim)) : 1.0f;
  const float* norm = query ? layer.q_norm : layer.k_norm;
  for (long r = begin; r < end; r++) {
    const int position = rows.positions[r];
    float* values = s.qkv + r * s.qkv_ld + head * dim;
    if (norm) kernels_->rms_norm(values, norm, c.rms_eps, dim, values);
    kernels_->rope(values, cos_.data() + position * half, sin_.data() + position * half,
                   static_cast<int>(half), scale);
    if (query) continue;
    const int h = head - c.heads;
    const long block = position / kBlock * kBlock;
    kernels_->cache(values, values + c.kv_heads * dim, c.head_dim, position % kBlock, cached_,
                    keys(index, rows.slots[r], h) + block * dim * size,
                    this->values(index, rows.slots[r], h) + position * dim * size);
  }
}

void Decoder::place_heads(const Layer& layer, int index, const RowBatch& rows, Scratch& s) {
  const Timer timer(profile_.other, profile_.other, profiling_);
  each_rows(rows.count, s.qkv_ld, kBlock, [&](long begin, long end) {
    for (int h = 0; h < config_.heads + config_.kv_heads; h++)
      place_head(layer, index, rows, begin, end, h, s);
  });
}

bool Decoder::places_by_head(long numbers, long rows) const {
  return pool_->threads() > 1 && rows >= kFinishedRows && numbers < kSharedNumbers &&
         config_.head_dim % kPanel == 0;
}

void Decoder::expect_heads() {
  const int each = config_.head_dim / kPanel;
  for (int h = 0; h < config_.heads + config_.kv_heads; h++)
    unfinished_[h].store(h < config_.heads ? each : 2 * each, std::memory_order_relaxed);
}

// Panels [begin, end) of queries, keys and values are there; whoever has finished a head's last one
// places it.
void Decoder::place_finished(const Layer& layer, int index, const RowBatch& rows, long begin,
                             long end, Scratch& s) {
  const Timer timer(profile_.other, profile_.other, profiling_ && Pool::thread() == 0);
  const int each = config_.head_dim / kPanel;
  for (long panel = begin, next; panel < end; panel = next) {
    int head = static_cast<int>(panel / each);
    next = std::min<long>(end, (head + 1) * each);
    // values come behind all keys
    if (head >= config_.heads + config_.kv_heads) head -= config_.kv_heads;
    const int here = static_cast<int>(next - panel);
    if (unfinished_[head].fetch_sub(here, std::memory_order_acq_rel) == here)
      place_head(layer, index, rows, 0, rows.count, head, s);
  }
}

}  // namespace atlasd
