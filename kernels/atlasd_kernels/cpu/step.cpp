// One step: all layers over a block of rows.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "decoder.h"
#include "sixteen.h"

namespace atlasd {
namespace {

constexpr long kSharedNumbers = 16384;   // below, rows are not worth sharing out
constexpr long kChunksPerThread = 4;
constexpr long kRangesPerThread = 2;   // of queries
constexpr long kLeastQueries = 6;      // in a range

// Rows a multiple of 4 KB apart would all fall into the same few lines of the first cache.
long row_distance(long columns) { return padded(columns, 64) + 16; }

int64_t now() {
  const auto t = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(t).count();
}

// Only where a profile was asked for: on some virtual machines reading the clock takes a
// microsecond, and a step would read it a hundred times.
class Timer {
 public:
  Timer(int64_t& total, bool active) : total_(total), begin_(active ? now() : 0) {}
  ~Timer() {
    if (begin_) total_ += now() - begin_;
  }

 private:
  int64_t& total_;
  int64_t begin_;
};

constexpr int group_of(Format f) {
  if (f == Format::sixteen) return kSixteenGroup;
  return f == Format::int8 ? 64 : f == Format::int4 ? 32 : 0;
}

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
    const long middle = place(n * s.middle_ld * 4), quantised = place(n * widest * 2);
    const long scales = place(n * widest / 32 * 4), offsets = place(n * widest / 32 * 4);
    if (size > scratch_.bytes()) scratch_ = Memory(size);
    s.x = scratch_.as<float>(x);
    s.normed = scratch_.as<float>(normed);
    s.qkv = scratch_.as<float>(qkv);
    s.attended = scratch_.as<float>(attended);
    s.middle = scratch_.as<float>(middle);
    s.quantised = scratch_.as<int8_t>(quantised);
    s.scales = scratch_.as<float>(scales);
    s.offsets = scratch_.as<int32_t>(offsets);
  };
  // one layout per size that was ever needed, so that padding once zero stays zero
  if (rows > scratch_rows_) {
    scratch_rows_ = std::min(kStepRows, std::max<long>(16, 2 * rows));
    scratch_ = Memory();
  }
  lay_out(scratch_rows_);
  return s;
}

// `together`: so many rows write into the same lines, which two threads would take from each other.
template <class F>
void Decoder::each_row(long rows, long columns, long together, F&& body) {
  const long parts = (rows + together - 1) / together;
  const long chunks = std::min<long>(parts, kChunksPerThread * pool_->threads());
  if (chunks < 2 || rows * columns < kSharedNumbers) {
    for (long r = 0; r < rows; r++) body(r);
    return;
  }
  pool_->run(chunks, [&](long c) {
    const long end = std::min(rows, parts * (c + 1) / chunks * together);
    for (long r = parts * c / chunks * together; r < end; r++) body(r);
  });
}

void Decoder::multiply(const Matrix& m, const Rows& x, long rows, const Output& out) {
  const Timer timer(profile_.matmul, profiling_);
  const long threads = pool_->threads();
  // one row is bound by memory, which long stretches use best
  const long share = rows == 1 ? 2 : kChunksPerThread;
  const long chunks = threads == 1 ? 1 : std::min(m.panels, share * threads);
  // Larger stretches first, so that threads end together: 10 panels go as 3, 3, 2 and 2.
  const long least = m.panels / chunks, longer = m.panels % chunks;
  pool_->run(chunks, [&](long c) {
    const long begin = c * least + std::min(c, longer);
    kernels_->matmul(m, x, rows, begin, begin + least + (c < longer), out);
  });
}

// Makes s.rows of x, normalised into s.normed where there is a weight, as a matmul of that format
// reads them.
void Decoder::prepare_rows(const float* norm, const float* x, long ld, long k, long rows,
                           Format format, Scratch& s) {
  const Timer timer(profile_.other, profiling_);
  const long width = padded(k, kGroupPadding);
  const int group = group_of(format);
  const bool rounded = kernels_->round && format == kernels_->rounded;
  const long block = rounded ? block_rows(rows, kernels_->round_block) : 1;
  const float* values = norm ? s.normed : x;
  uint16_t* halves = reinterpret_cast<uint16_t*>(s.quantised);
  const long groups = group ? width / group : 0;
  s.rows = {values, ld, s.quantised, s.scales, s.offsets, groups, halves};
  if (!norm && !group && !rounded) return;
  each_row(rows, k, block, [&](long r) {
    if (norm) kernels_->rms_norm(x + r * ld, norm, config_.rms_eps, k, s.normed + r * ld);
    if (rounded) {
      const long place = r % block, first = r - place;
      s.scales[r] = kernels_->round(values + r * ld, width, 4 * std::min(block, rows - first),
                                    halves + first * ld + 4 * place);
    }
    if (format == Format::sixteen)
      kernels_->sixteen(values + r * ld, width, reinterpret_cast<int16_t*>(halves) + r * ld,
                        s.scales + r * groups);
    else if (group)
      kernels_->quantise(values + r * ld, width, group, s.quantised + r * ld,
                         s.scales + r * groups, s.offsets + r * groups);
  });
}

void Decoder::quantise(const float* x, long ld, long k, long rows, Format format, Scratch& s) {
  prepare_rows(nullptr, x, ld, k, rows, format, s);
}

void Decoder::normalise(const float* x, const float* weight, long rows, Format format,
                        Scratch& s) {
  prepare_rows(weight, x, s.x_ld, config_.hidden, rows, format, s);
}

void Decoder::write_cache(const Layer& layer, int index, const RowBatch& rows, Scratch& s) {
  const Timer timer(profile_.other, profiling_);
  const Config& c = config_;
  const long dim = c.head_dim, half = dim / 2, size = bytes_of(cached_);
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  each_row(rows.count, s.qkv_ld, kBlock, [&](long r) {
    const int position = rows.positions[r];
    const float* cos = cos_.data() + position * half;
    const float* sin = sin_.data() + position * half;
    float* q = s.qkv + r * s.qkv_ld;
    for (int h = 0; h < c.heads + c.kv_heads; h++) {
      float* head = q + h * dim;
      const float* norm = h < c.heads ? layer.q_norm : layer.k_norm;
      if (norm) kernels_->rms_norm(head, norm, c.rms_eps, dim, head);
      kernels_->rope(head, cos, sin, static_cast<int>(half), h < c.heads ? scale : 1.0f);
    }
    const long block = position / kBlock * kBlock;
    for (int h = 0; h < c.kv_heads; h++) {
      const float* k = q + (c.heads + h) * dim;
      kernels_->cache(k, k + c.kv_heads * dim, c.head_dim, position % kBlock, cached_,
                      keys(index, rows.slots[r], h) + block * dim * size,
                      values(index, rows.slots[r], h) + position * dim * size);
    }
  });
}

void Decoder::attend(const Layer& layer, int index, const RowBatch& rows, Scratch& s) {
  const Timer timer(profile_.attention, profiling_);
  const Config& c = config_;
  // Query heads of one KV head, of rows of one slot, go through the blocks together: all of them,
  // or, with several threads, ranges of nearly equal size.
  const int group = c.heads / c.kv_heads;
  const long most = pool_->threads() == 1
                        ? kMaxQueries
                        : std::clamp<long>(rows.count * c.heads / (kRangesPerThread * pool_->threads()),
                                           kernels_->queries, kMaxQueries);
  ranges_.clear();
  for (long row = 0; row < rows.count;) {
    long next = row + 1;
    while (next < rows.count && rows.slots[next] == rows.slots[row]) next++;
    const long queries = (next - row) * group;
    long count = (queries + most - 1) / most;
    // as many for each thread, as long as they are worth having
    while (count * c.kv_heads % pool_->threads() && queries >= kLeastQueries * (count + 1)) count++;
    for (long t = 0; t < count; t++)
      ranges_.push_back({row, queries * t / count, queries * (t + 1) / count});
    row = next;
  }
  const auto attend_range = [&](const QueryRange& range, int h) {
    Query queries[kMaxQueries];
    for (long q = range.begin; q < range.end; q++) {
      const long r = range.row + q / group;
      const long offset = (h * group + q % group) * c.head_dim;
      const int end = rows.positions[r] + 1;
      const int begin = layer.window > 0 && end > layer.window ? end - layer.window : 0;
      queries[q - range.begin] = {s.qkv + r * s.qkv_ld + offset,
                                  s.attended + r * s.attended_ld + offset, begin, end};
    }
    const int slot = rows.slots[range.row];
    kernels_->attend({queries, static_cast<int>(range.end - range.begin), c.head_dim,
                      keys(index, slot, h), values(index, slot, h), cached_});
  };
  // several ranges a chunk, or many short contexts would be bound by handing them out
  const long total = static_cast<long>(ranges_.size()) * c.kv_heads;
  const long chunks = std::min<long>(total, 8 * pool_->threads());
  pool_->run(chunks, [&](long chunk) {
    for (long i = total * chunk / chunks; i < total * (chunk + 1) / chunks; i++)
      attend_range(ranges_[i / c.kv_heads], static_cast<int>(i % c.kv_heads));
  });
}

// Runs a block of rows through all layers; rows `wanted` of s.x are then in places 0, 1, ...
void Decoder::block(const RowBatch& all, const std::vector<int32_t>& wanted) {
  const Config& c = config_;
  Scratch s = scratch(all.count);
  RowBatch rows = all;
  std::vector<int32_t> slots, positions;
  {
    const Timer timer(profile_.other, profiling_);
    each_row(rows.count, c.hidden, 1, [&](long r) { embed(rows.tokens[r], s.x + r * s.x_ld); });
  }
  for (int i = 0; i < c.layers; i++) {
    const Layer& layer = layers_[i];
    normalise(s.x, layer.input_norm, rows.count, layer.qkv.format, s);
    multiply(layer.qkv, s.rows, rows.count, {s.qkv, s.qkv_ld, Finish::store, layer.qkv_bias});
    if (i == 0 && smear_.data) smear(rows, s);
    write_cache(layer, i, rows, s);
    if (i + 1 == c.layers) {
      // behind the last cache write only rows that somebody wants to see matter
      for (size_t w = 0; w < wanted.size(); w++) {
        const long r = wanted[w];
        memmove(s.x + w * s.x_ld, s.x + r * s.x_ld, s.x_ld * 4);
        memmove(s.qkv + w * s.qkv_ld, s.qkv + r * s.qkv_ld, s.qkv_ld * 4);
        slots.push_back(rows.slots[r]);
        positions.push_back(rows.positions[r]);
      }
      rows = {nullptr, slots.data(), positions.data(), static_cast<long>(wanted.size())};
      if (rows.count == 0) return;
    }
    attend(layer, i, rows, s);
    quantise(s.attended, s.attended_ld, c.heads * c.head_dim, rows.count, layer.output.format,
             s);
    multiply(layer.output, s.rows, rows.count, {s.x, s.x_ld, Finish::add, nullptr});
    normalise(s.x, layer.post_norm, rows.count, layer.gate_up.format, s);
    multiply(layer.gate_up, s.rows, rows.count,
             {s.middle, s.middle_ld, Finish::silu_mul, nullptr});
    quantise(s.middle, s.middle_ld, c.intermediate, rows.count, layer.down.format, s);
    multiply(layer.down, s.rows, rows.count, {s.x, s.x_ld, Finish::add, nullptr});
  }
}

void Decoder::head(const Matrix& m, long rows, Scratch& s, float* logits, long ld) {
  normalise(s.x, final_norm_, rows, m.format, s);
  multiply(m, s.rows, rows, {logits, ld, Finish::store, nullptr});
}

void Decoder::forward(const RowBatch& rows, const int32_t* wanted, long count, float* logits) {
  const Pool::Series series(*pool_);
  const long ld = logits_ld();
  std::vector<int32_t> here;
  for (long begin = 0, next = 0; begin < rows.count; begin += kStepRows) {
    const long n = std::min(kStepRows, rows.count - begin);
    const long first = next;
    here.clear();
    for (; next < count && wanted[next] < begin + n; next++)
      here.push_back(static_cast<int32_t>(wanted[next] - begin));
    block(rows.part(begin, n), here);
    if (here.empty()) continue;
    Scratch s = scratch(n);
    const long wanted_here = static_cast<long>(here.size());
    head(head_, wanted_here, s, logits + first * ld, ld);
    if (!kept_) continue;
    for (long i = 0; i < wanted_here; i++)
      std::copy_n(s.normed + i * s.x_ld, config_.hidden, kept_ + (first + i) * config_.hidden);
  }
}

}  // namespace atlasd
