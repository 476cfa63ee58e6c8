#include "twelve.h"

#include <cstring>
#include <vector>

#include "pack.h"
#include "pool.h"

namespace atlasd {
namespace {

constexpr uint32_t both(uint32_t half) { return half << 16 | half; }

constexpr uint32_t kWhole = both(0x87FF);                       // sign, exponent's end, mantissa
constexpr uint32_t kBase = both(kTwelveWindow << 7);
constexpr long kGroupPairs = kTwelveGroup / 2 * kPanel;         // of k, in 32 bits each

// What is decided about a panel before its place is known.
struct Plan {
  int32_t moved = 0;
  std::vector<int32_t> plain;
};

// Both halves' exponents moved, each inside its field; the window never wraps around.
inline uint32_t moved_pair(uint32_t pair, uint32_t by) {
  return (pair & both(0x807F)) | (((pair & 0x7F807F80) + by) & 0x7F807F80);
}

// The sixteen exponents most weights have; the first of them.
int best_window(const uint16_t* weights, long count) {
  std::vector<long> seen(256 + 1);
  for (long i = 0; i < count; i++) seen[(weights[i] >> 7 & 255) + 1]++;
  for (int e = 0; e < 256; e++) seen[e + 1] += seen[e];
  int best = 1;   // zeros and denormals have exponent 0; infinities 255
  for (int first = 1; first + 16 < 255; first++)
    if (seen[first + 16] - seen[first] > seen[best + 16] - seen[best]) best = first;
  return best;
}

float from_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

float power_of_two(int exponent) { return from_bits(static_cast<uint32_t>(127 + exponent) << 23); }

uint16_t scaled(uint16_t weight, int by) {
  const float x = from_bits(uint32_t{weight} << 16) * power_of_two(by);
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return static_cast<uint16_t>(bits >> 16);
}

// Moved up, a weight above 2^64 would make sums infinite that are not.
constexpr int kHighestMoved = 127 + 64;

bool moves_without_loss(const uint16_t* weights, int by) {
  for (int i = 0; i < 2 * kGroupPairs; i++) {
    const uint16_t there = scaled(weights[i], by);
    const int exponent = there >> 7 & 255;
    const bool zero = (weights[i] & 0x7FFF) == 0;
    if (!zero && (exponent == 0 || exponent == 255)) return false;
    if (by > 0 && exponent > kHighestMoved) return false;
    if (scaled(there, -by) != weights[i]) return false;
  }
  return true;
}

Plan plan_panel(const uint16_t* weights, long k) {
  Plan plan;
  plan.moved = kTwelveWindow - best_window(weights, k * kPanel);
  const uint32_t by = both(static_cast<uint32_t>(plan.moved & 255) << 7) & 0x7F807F80;
  const long groups = k / kTwelveGroup;
  for (long g = 0; g < groups; g++) {
    const uint16_t* group = weights + g * 2 * kGroupPairs;
    uint32_t outside = 0;
    for (long i = 0; i < kGroupPairs; i++) {
      uint32_t pair;
      memcpy(&pair, group + 2 * i, 4);
      outside |= (moved_pair(pair, by) ^ kBase) & both(0x7800);
    }
    if (!outside) continue;
    plan.plain.push_back(static_cast<int32_t>(g));
    if (moves_without_loss(group, plan.moved)) continue;
    plan.moved = 0;
    plan.plain.clear();
    for (long each = 0; each < groups; each++) plan.plain.push_back(static_cast<int32_t>(each));
    break;
  }
  plan.plain.push_back(static_cast<int32_t>(groups));
  return plan;
}

long stream_bytes(const Plan& plan, long k) {
  const long plain = static_cast<long>(plan.plain.size()) - 1;
  return k / kTwelveGroup * kTwelveBytes + plain * (kPlainBytes - kTwelveBytes);
}

// pairs: [4][32], of k and k + 1; a side's sixteen columns begin at `column`.
void write_side(const uint32_t* pairs, uint32_t by, int column, uint32_t* out) {
  for (int c = 0; c < 16; c++) {
    const uint32_t* p = pairs + column + c;
    const uint32_t d = moved_pair(p[3 * kPanel], by);
    const uint32_t signs = (d & 0x80008000) >> 4;   // they change places, see matmul_twelve.h
    out[c] = (moved_pair(p[0], by) & kWhole) | (d & both(0x0780)) << 4;
    out[16 + c] = (moved_pair(p[kPanel], by) & kWhole) | (d & both(0x0007)) << 12 | signs >> 16 |
                  signs << 16;
    out[32 + c] = (moved_pair(p[2 * kPanel], by) & kWhole) | (d & both(0x0078)) << 8;
  }
}

void write_panel(const Plan& plan, const uint16_t* weights, long k, uint8_t* out) {
  const uint32_t by = both(static_cast<uint32_t>(plan.moved & 255) << 7) & 0x7F807F80;
  const int32_t* plain = plan.plain.data();
  for (long g = 0; g < k / kTwelveGroup; g++, weights += 2 * kGroupPairs) {
    if (*plain == g) {
      for (long i = 0; i < 2 * kGroupPairs; i++) {
        const uint16_t weight = plan.moved ? scaled(weights[i], plan.moved) : weights[i];
        memcpy(out + 2 * i, &weight, 2);
      }
      plain++;
      out += kPlainBytes;
      continue;
    }
    uint32_t pairs[kGroupPairs], side[48];
    memcpy(pairs, weights, sizeof pairs);
    for (int column = 0; column < kPanel; column += 16, out += kTwelveSide) {
      write_side(pairs, by, column, side);
      memcpy(out, side, kTwelveSide);
    }
  }
}

}  // namespace

long shorten(Pool& pool, const uint8_t* bf16, long panels, long k, uint8_t* out) {
  const uint16_t* weights = reinterpret_cast<const uint16_t*>(bf16);
  const long each = k * kPanel;
  std::vector<Plan> plans(panels);
  constexpr long kChunk = 16;   // panels
  const long chunks = (panels + kChunk - 1) / kChunk;
  const auto each_panel = [&](auto&& body) {
    pool.run(chunks, [&](long c) {
      for (long p = c * kChunk; p < panels && p < (c + 1) * kChunk; p++) body(p);
    });
  };
  each_panel([&](long p) { plans[p] = plan_panel(weights + p * each, k); });

  std::vector<TwelvePanel> table(panels);
  long lists = panels * static_cast<long>(sizeof(TwelvePanel)) / 4;
  for (long p = 0; p < panels; p++) {
    table[p].plain = static_cast<int32_t>(lists);
    table[p].moved = plans[p].moved;
    lists += static_cast<long>(plans[p].plain.size());
  }
  long end = padded(lists * 4, 64) + 64;   // kernels read two bytes before a stream, one behind
  for (long p = 0; p < panels; p++) {
    table[p].groups = end;
    end += stream_bytes(plans[p], k);
  }
  if (end > each * panels * 2 / 16 * 15) return 0;
  memcpy(out, table.data(), panels * sizeof(TwelvePanel));
  each_panel([&](long p) {
    const std::vector<int32_t>& plain = plans[p].plain;
    memcpy(out + table[p].plain * 4, plain.data(), plain.size() * 4);
    write_panel(plans[p], weights + p * each, k, out + table[p].groups);
  });
  return end;
}

void unpack_twelve(const uint8_t* data, long column, long count, float* out) {
  TwelvePanel panel;
  memcpy(&panel, data + column / kPanel * sizeof panel, sizeof panel);
  const uint8_t* group = data + panel.groups;
  const uint8_t* next = data + 4 * long{panel.plain};
  const float back = power_of_two(-panel.moved);
  const long c = column % kPanel;
  for (long k = 0; k < count; k += kTwelveGroup) {
    int32_t plain;
    memcpy(&plain, next, 4);
    uint32_t pairs[4];
    if (plain == k / kTwelveGroup) {
      for (int i = 0; i < 4; i++) memcpy(&pairs[i], group + i * 4 * kPanel + 4 * c, 4);
      next += 4;
      group += kPlainBytes;
    } else {
      const uint8_t* side = group + c / 16 * kTwelveSide + c % 16 * 4;
      for (int i = 0; i < 3; i++) memcpy(&pairs[i], side + i * 64, 4);
      const uint32_t signs = pairs[1] & both(0x0800);
      pairs[3] = (pairs[0] >> 4 & both(0x0780)) | (pairs[1] >> 12 & both(0x0007)) |
                 (pairs[2] >> 8 & both(0x0078)) | signs << 20 | signs >> 12;
      for (uint32_t& pair : pairs) pair = (pair & kWhole) | kBase;
      group += kTwelveBytes;
    }
    for (long i = 0; i < kTwelveGroup && k + i < count; i++) {
      const uint32_t weight = i % 2 ? pairs[i / 2] & 0xFFFF0000 : pairs[i / 2] << 16;
      out[k + i] = from_bits(weight) * back;
    }
  }
}

}  // namespace atlasd
