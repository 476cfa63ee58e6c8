#include "twelve_fp16.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "pack.h"
#include "pool.h"

namespace atlasd {
namespace {

constexpr int kLargest = 15;       // fp16's exponent of [1, 2)
constexpr long kRoundedShare = 64;   // one weight of so many in a column

float power_of_two(int exponent) {
  const uint32_t bits = static_cast<uint32_t>(127 + exponent) << 23;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

// Where k of a column lies in a bf16 panel.
long place(long k, long column) { return k / 2 * 2 * kPanel + 2 * column + k % 2; }

// The nearest fp16 with seven bits of mantissa to a bf16 weight moved by 2^(127 - largest), ties to
// even; counts it if that is another number. bf16's own denormals become zeros.
uint16_t fp16_of(uint16_t weight, int largest, long& rounded) {
  const int exponent = weight >> 7 & 255, moved = exponent + kLargest - largest;
  const uint32_t sign = weight & 0x8000, mantissa = weight & 127;
  if (exponent == 0) {
    rounded += mantissa != 0;
    return static_cast<uint16_t>(sign);
  }
  if (moved >= 1) return static_cast<uint16_t>(sign | moved << 10 | mantissa << 3);
  const int away = std::min(1 - moved, 9);   // 2^-9 of 255 is nothing
  const uint32_t whole = 128 | mantissa, kept = whole >> away;
  rounded += kept << away != whole;
  const uint32_t nearest = (whole + (1u << (away - 1)) - 1 + (kept & 1)) >> away;
  return static_cast<uint16_t>(sign | nearest << 3);
}

// An fp16 below 2.
float value_of(uint16_t fp16) {
  const int exponent = fp16 >> 10 & 31;
  const float mantissa = static_cast<float>((fp16 & 1023) | (exponent ? 1024 : 0));
  const float value = mantissa * power_of_two(std::max(exponent, 1) - kLargest - 10);
  return fp16 & 0x8000 ? -value : value;
}

// A column's numbers, and what its sums are moved back by; false if they would not do.
bool write_column(const uint16_t* weights, long k, long column, uint16_t* numbers, float* back) {
  int largest = 0;
  for (long i = 0; i < k; i++) largest = std::max(largest, weights[place(i, column)] >> 7 & 255);
  if (largest == 255) return false;
  if (largest == 0) largest = 127;   // nothing but zeros and denormals
  long rounded = 0;
  for (long i = 0; i < k; i++)
    numbers[i * kPanel + column] = fp16_of(weights[place(i, column)], largest, rounded);
  *back = power_of_two(largest - 127);
  return rounded * kRoundedShare <= k;
}

// numbers: four k of 32 columns
void write_group(const uint16_t* numbers, uint16_t* out) {
  uint16_t* x = out;
  uint16_t* y = out + kPanel;
  uint16_t* z = out + 2 * kPanel;
  for (int c = 0; c < kPanel; c++) {
    const uint32_t fourth = numbers[3 * kPanel + c], beside = numbers[3 * kPanel + (c ^ 1)];
    x[c] = static_cast<uint16_t>(numbers[c] | (fourth >> 15) << 14 | (fourth >> 3 & 7));
    y[c] = static_cast<uint16_t>(numbers[kPanel + c] | (beside >> 6 & 1) << 14 | (fourth >> 8 & 7));
    z[c] = static_cast<uint16_t>(numbers[2 * kPanel + c] | (beside >> 7 & 1) << 14 |
                                 (fourth >> 11 & 7));
  }
}

// The four k of a column.
void read_group(const uint16_t* group, long c, uint16_t* numbers) {
  const uint16_t x = group[c], y = group[kPanel + c], z = group[2 * kPanel + c];
  const uint32_t beside = (group[kPanel + (c ^ 1)] >> 14 & 1) << 6 |
                          (group[2 * kPanel + (c ^ 1)] >> 14 & 1) << 7;
  numbers[0] = x & kFp16Whole;
  numbers[1] = y & kFp16Whole;
  numbers[2] = z & kFp16Whole;
  numbers[3] = static_cast<uint16_t>((x >> 14 & 1) << 15 | (z & 7) << 11 | (y & 7) << 8 | beside |
                                     (x & 7) << 3);
}

}  // namespace

bool shorten_fp16_panel(const uint8_t* bf16, long k, uint8_t* out) {
  const uint16_t* weights = reinterpret_cast<const uint16_t*>(bf16);
  std::vector<uint16_t> numbers(k * kPanel);
  float back[kPanel];
  for (long c = 0; c < kPanel; c++)
    if (!write_column(weights, k, c, numbers.data(), back + c)) return false;
  memcpy(out, back, kFp16Header);
  uint16_t group[3 * kPanel];
  for (long first = 0; first < k; first += kFp16Group) {
    write_group(numbers.data() + first * kPanel, group);
    memcpy(out + kFp16Header + first / kFp16Group * kFp16Bytes, group, kFp16Bytes);
  }
  return true;
}

bool shorten_fp16(Pool& pool, const uint8_t* bf16, long panels, long k, uint8_t* out) {
  std::atomic<bool> good{true};
  constexpr long kChunk = 16;   // panels
  pool.run((panels + kChunk - 1) / kChunk, [&](long c) {
    for (long p = c * kChunk; p < std::min(panels, (c + 1) * kChunk) && good; p++)
      if (!shorten_fp16_panel(bf16 + p * k * kPanel * 2, k, out + p * fp16_panel_bytes(k)))
        good = false;
  });
  if (!good) memset(out, 0, panels * fp16_panel_bytes(k));
  return good;
}

void unpack_fp16(const uint8_t* data, long k, long column, long count, float* out) {
  const uint8_t* panel = data + column / kPanel * fp16_panel_bytes(k);
  float back;
  memcpy(&back, panel + column % kPanel * sizeof back, sizeof back);
  for (long first = 0; first < count; first += kFp16Group) {
    uint16_t group[3 * kPanel], numbers[kFp16Group];
    memcpy(group, panel + kFp16Header + first / kFp16Group * kFp16Bytes, kFp16Bytes);
    read_group(group, column % kPanel, numbers);
    for (long i = 0; i < kFp16Group && first + i < count; i++)
      out[first + i] = value_of(numbers[i]) * back;
  }
}

}  // namespace atlasd
