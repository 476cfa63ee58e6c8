#include "twelve_fp16.h"

#include <algorithm>
#include <atomic>
#include <cstring>

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

// A panel's columns while their numbers are made. Loops over columns, and over pairs of them, are
// written so that compilers make vectors of them.
struct Columns {
  uint16_t largest[kPanel] = {};   // without its sign
  uint16_t base[kPanel];           // what moves a weight's exponent
  uint16_t least[kPanel];          // below, a weight becomes a denormal
  long rounded[kPanel] = {};
};

// bf16 weights of two k, beside each other for each column, as k after k.
void part_pair(const uint16_t* pair, uint16_t* first, uint16_t* second) {
  for (int c = 0; c < kPanel; c++) {
    first[c] = pair[2 * c];
    second[c] = pair[2 * c + 1];
  }
}

// The nearest fp16 with seven bits of mantissa to a bf16 weight below 2^-14, once moved; ties to
// even. Counts it if that is another number. bf16's own denormals become zeros.
uint16_t denormal_of(uint16_t weight, int largest, long& rounded) {
  const int exponent = weight >> 7 & 255;
  const uint32_t sign = weight & 0x8000, mantissa = weight & 127;
  if (exponent == 0) {
    rounded += mantissa != 0;
    return static_cast<uint16_t>(sign);
  }
  const int away = std::min(1 - (exponent + kLargest - largest), 9);   // 2^-9 of 255 is nothing
  const uint32_t whole = 128 | mantissa, kept = whole >> away;
  rounded += kept << away != whole;
  const uint32_t nearest = (whole + (1u << (away - 1)) - 1 + (kept & 1)) >> away;
  return static_cast<uint16_t>(sign | nearest << 3);
}

void find_largest(const uint16_t* weights, long k, Columns& columns) {
  for (long i = 0; i < k * kPanel; i += 2 * kPanel) {
    uint16_t first[kPanel], second[kPanel];
    part_pair(weights + i, first, second);
    for (int c = 0; c < kPanel; c++) {
      const int16_t one = first[c] & 0x7FFF, other = second[c] & 0x7FFF;
      const int16_t known = static_cast<int16_t>(columns.largest[c]);
      const int16_t more = one > other ? one : other;   // signed ones compare in vectors
      columns.largest[c] = static_cast<uint16_t>(more > known ? more : known);
    }
  }
}

// What columns are moved by, and back; false if some weights are no numbers.
bool plan_columns(Columns& columns, float* back) {
  for (int c = 0; c < kPanel; c++) {
    int largest = columns.largest[c] >> 7;
    if (largest == 255) return false;
    if (largest == 0) largest = 127;   // nothing but zeros and denormals
    columns.largest[c] = static_cast<uint16_t>(largest);
    columns.base[c] = static_cast<uint16_t>((largest - kLargest) << 7);
    columns.least[c] = static_cast<uint16_t>(std::max(largest - kLargest + 1, 1) << 7);
    back[c] = power_of_two(largest - 127);
  }
  return true;
}

void number_row(uint16_t* row, Columns& columns) {
  uint16_t numbers[kPanel], small = 0;
  for (int c = 0; c < kPanel; c++) {
    const uint16_t size = row[c] & 0x7FFF;
    const uint16_t moved = static_cast<uint16_t>(size - columns.base[c]);
    numbers[c] = static_cast<uint16_t>((row[c] & 0x8000) | moved << 3);
    small |= static_cast<int16_t>(size) < static_cast<int16_t>(columns.least[c]) ? 1 : 0;
  }
  if (small)
    for (int c = 0; c < kPanel; c++)
      if ((row[c] & 0x7FFF) < columns.least[c])
        numbers[c] = denormal_of(row[c], columns.largest[c], columns.rounded[c]);
  memcpy(row, numbers, sizeof numbers);
}

// An fp16 below 2: its bits lie where those of a float do whose exponent is 112 less; to multiply
// that in also makes denormals what they are.
float value_of(uint32_t fp16) {
  const uint32_t bits = (fp16 & 0x8000) << 16 | (fp16 & 0x7FFF) << 13;
  float value;
  memcpy(&value, &bits, 4);
  return value * power_of_two(127 - kLargest);
}

// numbers: four k of 32 columns. Two columns at a time, the neighbours.
void write_group(const uint16_t* numbers, uint8_t* out) {
  constexpr int kPairs = kPanel / 2;
  uint32_t in[4][kPairs], group[3][kPairs];
  memcpy(in, numbers, sizeof in);
  for (int c = 0; c < kPairs; c++) {
    const uint32_t fourth = in[3][c], beside = fourth << 16 | fourth >> 16;
    group[0][c] = in[0][c] | (fourth & 0x80008000) >> 1 | (fourth >> 3 & 0x00070007);
    group[1][c] = in[1][c] | (beside & 0x00400040) << 8 | (fourth >> 8 & 0x00070007);
    group[2][c] = in[2][c] | (beside & 0x00800080) << 7 | (fourth >> 11 & 0x00070007);
  }
  memcpy(out, group, sizeof group);
}

// The four k of column c, of which a group has two neighbours in 32 bits.
void read_group(const uint8_t* group, long c, uint32_t* numbers) {
  uint32_t pair[3];
  for (int i = 0; i < 3; i++) memcpy(&pair[i], group + i * 2 * kPanel + c / 2 * 4, 4);
  if (c % 2)
    for (uint32_t& both : pair) both = both << 16 | both >> 16;
  const auto [x, y, z] = pair;
  numbers[0] = x & kFp16Whole;
  numbers[1] = y & kFp16Whole;
  numbers[2] = z & kFp16Whole;
  numbers[3] = (x & 0x4000) << 1 | (z & 7) << 11 | (y & 7) << 8 | (y >> 30 & 1) << 6 |
               (z >> 30 & 1) << 7 | (x & 7) << 3;
}

}  // namespace

bool shorten_fp16_panel(const uint8_t* bf16, long k, uint8_t* out) {
  const uint16_t* weights = reinterpret_cast<const uint16_t*>(bf16);
  Columns columns;
  float back[kPanel];
  find_largest(weights, k, columns);
  if (!plan_columns(columns, back)) return false;
  memcpy(out, back, kFp16Header);
  uint8_t* group = out + kFp16Header;
  for (long first = 0; first < k; first += kFp16Group, group += kFp16Bytes) {
    uint16_t numbers[kFp16Group][kPanel];
    part_pair(weights + first * kPanel, numbers[0], numbers[1]);
    part_pair(weights + (first + 2) * kPanel, numbers[2], numbers[3]);
    for (uint16_t* row : numbers) number_row(row, columns);
    write_group(numbers[0], group);
  }
  return *std::max_element(columns.rounded, columns.rounded + kPanel) * kRoundedShare <= k;
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
  const uint8_t* group = panel + kFp16Header;
  for (long first = 0; first < count; first += kFp16Group, group += kFp16Bytes) {
    uint32_t numbers[kFp16Group];
    read_group(group, column % kPanel, numbers);
    for (long i = 0; i < kFp16Group && first + i < count; i++)
      out[first + i] = value_of(numbers[i]) * back;
  }
}

}  // namespace atlasd
