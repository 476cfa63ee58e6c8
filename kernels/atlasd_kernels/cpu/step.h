// How a step's work goes to threads. What is neither a matmul nor attention is little for a few
// rows, but one thread's doing it for all costs twice: the others wait, and rows go from cache to
// cache. So each thread prepares a few rows for itself, and does what comes behind a matmul or
// attention with the columns it has just computed.
#pragma once
#include <algorithm>
#include <chrono>

#include "decoder.h"
#include "sixteen.h"

namespace atlasd {

constexpr long kChunksPerThread = 4;
constexpr long kOwnRows = 2;        // at least so many are prepared by each thread for itself
constexpr long kFinishedRows = 4;   // whose heads are placed by whoever finishes them
constexpr long kLongLoop = 3 << 19;   // numbers of a matrix times rows, or times 8
constexpr long kEnd = 8;              // of a long loop's stretch, the part that is not assigned
constexpr long kEndOfOneRow = 2;
constexpr int kQuantised = 64;        // numbers are quantised in multiples of so many

constexpr bool is_quantised(Format f) { return f == Format::int8 || f == Format::int4; }
constexpr int group_of(Format f) {
  if (f == Format::sixteen) return kSixteenGroup;
  return f == Format::int8 ? 64 : f == Format::int4 ? 32 : 0;
}

// Only where a profile was asked for, and on the calling thread: on some virtual machines reading
// the clock takes a microsecond, and a step would read it a hundred times.
class Timer {
 public:
  // Less what went to `other` meanwhile, unless that is what is timed.
  Timer(int64_t& total, const int64_t& other, bool active)
      : total_(total), other_(other), before_(active ? other : 0), begin_(active ? now() : 0) {}
  ~Timer() {
    if (!begin_) return;
    const int64_t within = &total_ == &other_ ? 0 : other_ - before_;
    total_ += now() - begin_ - within;
  }

 private:
  static int64_t now() {
    const auto t = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(t).count();
  }

  int64_t& total_;
  const int64_t& other_;
  int64_t before_, begin_;
};

// body(begin, end) of rows. `together`: so many write into the same lines, which two threads would
// take from each other.
template <class F>
void Decoder::each_rows(long rows, long columns, long together, F&& body) {
  const long parts = (rows + together - 1) / together;
  const long chunks = std::min<long>(parts, kChunksPerThread * pool_->threads());
  if (chunks < 2 || rows * columns < kSharedNumbers) return body(0, rows);
  pool_->run(chunks, [&](long c) {
    body(parts * c / chunks * together, std::min(rows, parts * (c + 1) / chunks * together));
  });
}

// Threads take stretches of whole units of `unit` panels, and do with each what comes `behind` it:
// one stretch for each thread, since between two it stands still for 0.3 us; where the loop is
// long, less its end, which goes to whoever is free.
template <class Ready, class F>
void Decoder::multiply(const Matrix& m, const Ready& x, long rows, const Output& out, long unit,
                       F&& behind) {
  const Timer timer(profile_.matmul, profile_.other, profiling_);
  const long threads = pool_->threads(), units = (m.panels + unit - 1) / unit;
  const bool ends =
      threads > 1 && (rows == 1 || m.panels * kPanel * m.k * std::max(rows, 8L) > kLongLoop);
  const long end = ends ? std::max(1L, units / (threads * (rows == 1 ? kEndOfOneRow : kEnd))) : 1;
  const long stretch = ends ? std::max(0L, (units + threads - 1) / threads - end) : units / threads;
  const long stretches = stretch ? threads : 0, left = units - stretch * stretches;
  pool_->run(stretches + (left + end - 1) / end, [&](long c) {
    const long first = c < stretches ? c * stretch : stretch * stretches + (c - stretches) * end;
    const long last = std::min(units, first + (c < stretches ? stretch : end));
    const long from = first * unit, to = std::min(m.panels, last * unit);
    kernels_->matmul(m, x(), rows, from, to, out);
    behind(from, to);
  });
}

// The same of rows that have to be prepared first.
template <class F>
void Decoder::multiply(const Matrix& m, const Floats& x, long rows, const Output& out, Scratch& s,
                       long unit, F&& behind) {
  if (pool_->threads() == 1 || rows < kOwnRows || rows * x.ld >= kSharedNumbers) {
    prepare(x, rows, m.format, s);
    return multiply(m, [&]() -> const Rows& { return s.rows; }, rows, out, unit, behind);
  }
  loop_++;
  const auto own = [&]() -> const Rows& { return own_rows(x, rows, m.format, s); };
  multiply(m, own, rows, out, unit, behind);
}

}  // namespace atlasd
