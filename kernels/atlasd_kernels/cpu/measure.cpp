// How many threads are worth having on this machine at this moment, by trying.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <vector>

#include "memory.h"
#include "measure.h"
#include "pack.h"
#include "pool.h"

namespace atlasd {
namespace {

constexpr long kColumns = 8192, kDepth = 512;   // 8 MB of weights: a small model's step, or so
constexpr int kRounds = 9, kLoops = 4;
constexpr double kWorthIt = 0.85;   // twice the threads must take at most this much of the time

double milliseconds(Pool& pool, const Matrix& matrix, const Rows& rows, const Output& out) {
  const auto begin = std::chrono::steady_clock::now();
  const Pool::Series series(pool);
  const long chunks = 2 * pool.threads();
  for (int i = 0; i < kLoops; i++)
    pool.run(chunks, [&](long c) {
      find_kernels(nullptr)->matmul(matrix, rows, 1, matrix.panels * c / chunks,
                                    matrix.panels * (c + 1) / chunks, out);
    });
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
  return took.count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int measure_threads() {
  std::vector<int> counts;
  for (int n = 1; n < allowed_processors(); n *= 2) counts.push_back(n);
  counts.push_back(allowed_processors());
  if (counts.size() == 1) return 1;

  const Memory weights(panel_bytes(Format::bf16, kDepth) * kColumns / kPanel + 8192);
  const Memory floats((kDepth + kColumns) * 4), halves(kDepth * 2);
  const Matrix matrix{Format::bf16, weights.as<uint8_t>(), kColumns / kPanel, kDepth,
                      panel_bytes(Format::bf16, kDepth)};
  memset(weights.as<uint8_t>(), 0, weights.bytes());   // real pages, not the system's zero page
  const Rows rows{floats.as<float>(), kDepth, nullptr, nullptr, nullptr, 0,
                  halves.as<uint16_t>()};
  const Output out{floats.as<float>(kDepth * 4), kColumns, Finish::store, nullptr};

  std::vector<std::unique_ptr<Pool>> pools;
  for (const int n : counts) pools.push_back(std::make_unique<Pool>(n));
  std::vector<std::vector<double>> times(counts.size());
  for (int round = 0; round < kRounds; round++)
    for (size_t i = 0; i < counts.size(); i++) {
      milliseconds(*pools[i], matrix, rows, out);   // the threads are awake and spread out now
      times[i].push_back(milliseconds(*pools[i], matrix, rows, out));
    }
  size_t best = 0;
  for (size_t i = 1; i < counts.size(); i++)
    if (median(times[i]) < kWorthIt * median(times[best])) best = i;
  return counts[best];
}

double read_bandwidth(int threads, long bytes) {
  // parts of one size; small reads are repeated until the clock can tell
  constexpr long kLeast = 64 << 20;
  const long parts = std::clamp<long>(bytes >> 18, 2 * threads, 4096);
  const long part = std::max<long>(4096, bytes / parts / 4096 * 4096);
  const long repeats = std::max<long>(1, kLeast / (part * parts));
  const Memory memory(part * parts);
  memset(memory.as<uint8_t>(), 1, part * parts);
  std::vector<uint64_t> sums(parts);
  Pool pool(threads);
  std::vector<double> rates;
  for (int round = 0; round < 5; round++) {
    const auto begin = std::chrono::steady_clock::now();
    const Pool::Series series(pool);
    for (long i = 0; i < repeats; i++)
      pool.run(parts, [&](long c) {
        const uint64_t* words = memory.as<uint64_t>(c * part);
        uint64_t sum[8] = {};
        for (long i = 0; i < part / 8; i += 8)
          for (int j = 0; j < 8; j++) sum[j] += words[i + j];
        for (const uint64_t s : sum) sums[c] += s;
      });
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    rates.push_back(static_cast<double>(repeats * part * parts) / took.count());
  }
  // somebody has to look at the sums, or the compiler leaves the reading out
  return sums[0] ? median(rates) : 0.0;
}

}  // namespace atlasd
