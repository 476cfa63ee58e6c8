#include "sixteen.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "pool.h"

namespace atlasd {
namespace {

constexpr double kMostRounded = 0x1p-20;   // of a column's squares
constexpr int kLeastExponent = 1 + kWeightBits;   // of bf16's; below, a unit would be a denormal

float float_of(uint32_t bf16) {
  const uint32_t bits = bf16 << 16;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

// Of a panel's columns, squares of its weights and of what rounding changes them by.
struct Squares {
  double weights[kPanel] = {}, rounded[kPanel] = {};
};

// One group: [pair][column][2] bf16 numbers to integers. False if some are no numbers.
bool round_group(const uint16_t* weights, uint8_t* out, Squares& squares) {
  uint16_t largest[kPanel] = {};
  for (long i = 0; i < kPanel * kSixteenGroup; i++) {
    const uint16_t size = weights[i] & 0x7FFF;
    uint16_t& known = largest[i / 2 % kPanel];
    known = std::max(known, size);
  }
  float unit[kPanel], inverse[kPanel];
  for (int c = 0; c < kPanel; c++) {
    const int exponent = largest[c] >> 7;
    if (exponent == 255 || (largest[c] != 0 && exponent < kLeastExponent)) return false;
    const uint32_t bits = largest[c] ? static_cast<uint32_t>(exponent - kWeightBits + 1) << 7 : 0;
    unit[c] = float_of(bits);
    inverse[c] = largest[c] ? 1.0f / unit[c] : 0.0f;
    const uint16_t half = static_cast<uint16_t>(bits);
    memcpy(out + kSixteenScales + (c % 16 * 2 + c / 16) * 2, &half, 2);
  }
  int16_t* numbers = reinterpret_cast<int16_t*>(out);
  for (long first = 0; first < kPanel * kSixteenGroup; first += 2 * kPanel)
    for (int c = 0; c < kPanel; c++)
      for (long i = first + 2 * c; i < first + 2 * c + 2; i++) {
        const float weight = float_of(weights[i]);
        const float number = std::nearbyint(weight * inverse[c]);
        const double change = number * unit[c] - weight, size = weight;
        numbers[i] = static_cast<int16_t>(number);
        squares.weights[c] += size * size;
        squares.rounded[c] += change * change;
      }
  return true;
}

bool round_panel(const uint8_t* bf16, long k, uint8_t* out) {
  Squares squares;
  for (long g = 0; g < k / kSixteenGroup; g++, out += kSixteenBytes)
    if (!round_group(reinterpret_cast<const uint16_t*>(bf16) + g * kSixteenGroup * kPanel, out,
                     squares))
      return false;
  for (int c = 0; c < kPanel; c++)
    if (!(squares.rounded[c] <= kMostRounded * squares.weights[c])) return false;
  return true;
}

}  // namespace

bool shorten_sixteen(Pool& pool, const uint8_t* bf16, long panels, long k, uint8_t* out) {
  std::atomic<bool> good{true};
  constexpr long kChunk = 16;   // panels
  pool.run((panels + kChunk - 1) / kChunk, [&](long c) {
    for (long p = c * kChunk; p < std::min(panels, (c + 1) * kChunk) && good; p++)
      if (!round_panel(bf16 + p * k * kPanel * 2, k, out + p * sixteen_panel_bytes(k))) good = false;
  });
  return good;
}

}  // namespace atlasd
