// bf16 weights as integers of 13 bits (sixteen.h), by AVX-VNNI: pairs of products are added up at once,
// twice as many as floats are multiplied and added.
#pragma once
#include "matmul_narrow.h"
#include "sixteen.h"

namespace {

// A load brings two k of 16 columns. See Int8.
struct Sixteen {
  static constexpr int group = kSixteenGroup;
  static constexpr long bytes = kSixteenBytes;
  static constexpr int scales = kSixteenScales;
  static constexpr int loads = group / 2;
};

template <int R, int C>
struct GroupSums<Sixteen, R, C> {
  __m256i sums[R][C];

  void start(const Rows&, long, long) {
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
      for (int c = 0; c < C; c++) sums[r][c] = _mm256_setzero_si256();
  }

  void add(const uint8_t* w, const Rows& x, long row, long g) {
    const int16_t* q =
        reinterpret_cast<const int16_t*>(x.halves) + row * x.ld + g * Sixteen::group;
#pragma GCC unroll 2
    for (int i = 0; i < Sixteen::loads; i++)
#pragma GCC unroll 2
      for (int c = 0; c < C; c += 2) {
        const I weights = iload(w + i * 128 + c * 32);
        prefetch(w + i * 128 + c * 32 + kAhead);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
          int32_t two;
          __builtin_memcpy(&two, q + r * x.ld + 2 * i, 4);
          const __m256i pair = _mm256_set1_epi32(two);
          sums[r][c] = _mm256_dpwssd_avx_epi32(sums[r][c], weights.a, pair);
          sums[r][c + 1] = _mm256_dpwssd_avx_epi32(sums[r][c + 1], weights.b, pair);
        }
      }
  }
};

// Units are as small as a float can be, which times a row's scale might be nothing.
template <>
inline V add_group<Sixteen>(I sums, V unit, V scale, V total) {
  return fma(to_float(sums) * scale, unit, total);
}

constexpr float kLeastActivation = 0x1p-100f;   // of a group's largest; less is nothing

// x = scale * numbers + rounding, per group.
void sixteen_row(const float* x, long k, int16_t* numbers, float* scales) {
  for (long g = 0; g < k / kSixteenGroup; g++, x += kSixteenGroup, numbers += kSixteenGroup) {
    V most = abs(load(x));
    bool broken = any_nan(most, most);
    for (int i = 16; i < kSixteenGroup; i += 16) {
      const V v = load(x + i);
      broken |= any_nan(v, v);
      most = max(most, abs(v));
    }
    const float largest = max_lanes(most);
    scales[g] = broken ? __builtin_nanf("") : largest / kActivationLevels;
    const V factor = set1(largest > kLeastActivation ? kActivationLevels / largest : 0.0f);
    for (int i = 0; i < kSixteenGroup; i += 16) {
      const I rounded = to_int(load(x + i) * factor);
      const __m256i packed =
          _mm256_permute4x64_epi64(_mm256_packs_epi32(rounded.a, rounded.b), 0xD8);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(numbers + i), packed);
    }
  }
}

}  // namespace
