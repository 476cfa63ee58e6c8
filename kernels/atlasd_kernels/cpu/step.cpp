// One step: all layers over a block of rows.
#include <cstring>

#include "step.h"

namespace atlasd {
namespace {

constexpr long kRangesPerThread = 2;   // of queries
constexpr long kLeastQueries = 6;      // in a range

}  // namespace

void Decoder::attend(const Layer& layer, int index, const RowBatch& rows, Scratch& s) {
  const Timer timer(profile_.attention, profile_.other, profiling_);
  const Config& c = config_;
  // Query heads of one KV head, of rows of one slot, go through the blocks together: all of them,
  // or, with several threads, ranges of nearly equal size.
  const int group = c.heads / c.kv_heads;
  const long most = pool_->threads() == 1
                        ? kMaxQueries
                        : std::clamp<long>(
                              rows.count * c.heads / (kRangesPerThread * pool_->threads()),
                              kernels_->queries, kMaxQueries);
  const bool passes_on = passes_on_attended(layer, rows.count);
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
    if (passes_on) pass_on(range, h * group, group, layer.output.format, s);
  };
  // several ranges a chunk, or many short contexts would be bound by handing them out
  const long total = static_cast<long>(ranges_.size()) * c.kv_heads;
  const long chunks = std::min<long>(total, 8 * pool_->threads());
  pool_->run(chunks, [&](long chunk) {
    for (long i = total * chunk / chunks; i < total * (chunk + 1) / chunks; i++)
      attend_range(ranges_[i / c.kv_heads], static_cast<int>(i % c.kv_heads));
  });
}

// Whether those who compute a matmul's rows quantise them.
bool Decoder::passes_on(const Matrix& m, long rows) const {
  return pool_->threads() > 1 && rows >= kOwnRows && is_quantised(m.format);
}

// The same of what is attended to: a head's numbers have to be whole groups.
bool Decoder::passes_on_attended(const Layer& layer, long rows) const {
  return passes_on(layer.output, rows) && config_.head_dim % kQuantised == 0;
}

// Quantises what a range of queries of these heads has attended to.
void Decoder::pass_on(const QueryRange& range, int first_head, int heads, Format format,
                      const Scratch& s) {
  const Timer timer(profile_.other, profile_.other, profiling_ && Pool::thread() == 0);
  const Config& c = config_;
  const Floats attended{s.attended, s.attended_ld, long{c.heads} * c.head_dim, nullptr};
  for (long q = range.begin, next; q < range.end; q = next) {
    const long row = range.row + q / heads, head = q % heads;
    // whole rows together
    const long whole = head ? 0 : (range.end - q) / heads;
    next = whole ? q + whole * heads : std::min(range.end, q - head + heads);
    const long first = (first_head + head) * c.head_dim;
    const long last = first + (whole ? heads : next - q) * c.head_dim;
    quantise(attended, row, row + std::max(1L, whole), first, last, group_of(format), s.passed_on);
  }
}

// Runs a block of rows through all layers; rows `wanted` of s.x are then in places 0, 1, ...
void Decoder::block(const RowBatch& all, const std::vector<int32_t>& wanted) {
  const Config& c = config_;
  Scratch s = scratch(all.count);
  RowBatch rows = all;
  std::vector<int32_t> slots, positions;
  {
    const Timer timer(profile_.other, profile_.other, profiling_);
    each_rows(rows.count, c.hidden, 1, [&](long begin, long end) {
      for (long r = begin; r < end; r++) embed(rows.tokens[r], s.x + r * s.x_ld);
    });
  }
  for (int i = 0; i < c.layers; i++) {
    const Layer& layer = layers_[i];
    const bool smears = i == 0 && smear_.data;
    const bool by_head = !smears && places_by_head(rows.count * s.qkv_ld, rows.count);
    if (by_head) expect_heads();
    multiply(layer.qkv, Floats{s.x, s.x_ld, c.hidden, layer.input_norm}, rows.count,
             {s.qkv, s.qkv_ld, Finish::store, layer.qkv_bias}, s, 1, [&](long begin, long end) {
               if (by_head) place_finished(layer, i, rows, begin, end, s);
             });
    if (smears) smear(rows, s);
    if (!by_head) place_heads(layer, i, rows, s);
    if (i + 1 == c.layers) {
      // behind the last cache write only rows that somebody wants to see matter
      for (size_t w = 0; w < wanted.size(); w++) {
        const long r = wanted[w];
        slots.push_back(rows.slots[r]);
        positions.push_back(rows.positions[r]);
        if (r == static_cast<long>(w)) continue;
        memmove(s.x + w * s.x_ld, s.x + r * s.x_ld, s.x_ld * 4);
        memmove(s.qkv + w * s.qkv_ld, s.qkv + r * s.qkv_ld, s.qkv_ld * 4);
      }
      rows = {nullptr, slots.data(), positions.data(), static_cast<long>(wanted.size())};
      if (rows.count == 0) return;
    }
    attend(layer, i, rows, s);
    const Floats attended{s.attended, s.attended_ld, long{c.heads} * c.head_dim, nullptr};
    const Floats middle{s.middle, s.middle_ld, c.intermediate, nullptr};
    const Output to_x{s.x, s.x_ld, Finish::add, nullptr};
    multiply_passed_on(layer.output, attended, passes_on_attended(layer, rows.count), rows.count, to_x,
                       s);
    const bool passes_middle_on = passes_on(layer.down, rows.count);
    multiply(layer.gate_up, Floats{s.x, s.x_ld, c.hidden, layer.post_norm}, rows.count,
             {s.middle, s.middle_ld, Finish::silu_mul, nullptr}, s, kQuantised / (kPanel / 2),
             [&](long begin, long end) {
               if (!passes_middle_on) return;
               const Timer timer(profile_.other, profile_.other, profiling_ && Pool::thread() == 0);
               quantise(middle, 0, rows.count, begin * (kPanel / 2), end * (kPanel / 2),
                        group_of(layer.down.format), s.passed_on);
             });
    multiply_passed_on(layer.down, middle, passes_middle_on, rows.count, to_x, s);
  }
}

void Decoder::multiply(const Matrix& m, const Floats& x, long rows, const Output& out, Scratch& s) {
  multiply(m, x, rows, out, s, 1, [](long, long) {});
}

// The same of rows that were quantised where they came from, or were not.
void Decoder::multiply_passed_on(const Matrix& m, const Floats& x, bool passed_on, long rows,
                                 const Output& out, Scratch& s) {
  if (!passed_on) return multiply(m, x, rows, out, s);
  s.rows = rows_of(x, m.format, s.normed, s.passed_on);
  multiply(m, [&]() -> const Rows& { return s.rows; }, rows, out, 1, [](long, long) {});
}

void Decoder::head(const Matrix& m, long rows, Scratch& s, float* logits, long ld) {
  multiply(m, {s.x, s.x_ld, config_.hidden, final_norm_}, rows, {logits, ld, Finish::store, nullptr},
           s);
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
