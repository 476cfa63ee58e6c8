// Sixteen floats in two AVX2 registers; the integer dot product by AVX-VNNI, or else through 16-bit
// products, which cannot saturate and therefore equals it.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace {

constexpr int kFloatRows = 3;
constexpr int kPairedRows = 1;   // the same, of two panels at a time
constexpr int kIntegerRows = 2;
constexpr int kPairedIntegerRows = 1;
constexpr int kQueries = 6;
constexpr int kFloatVectors = 1;   // of sixteen: twelve sums of six queries, and what they are made of

struct V {
  __m256 a, b;
};
struct I {
  __m256i a, b;
};

inline V zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline V set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, V x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline V operator+(V x, V y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline V operator-(V x, V y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline V operator*(V x, V y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline V operator/(V x, V y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline V fma(V x, V y, V z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline V max(V x, V y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline V min(V x, V y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline V abs(V x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline bool any_greater(V x, V y) {
  const __m256 a = _mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ);
  const __m256 b = _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ);
  return _mm256_movemask_ps(_mm256_or_ps(a, b)) != 0;
}

inline bool any_nan(V x, V y) {
  const __m256 a = _mm256_cmp_ps(x.a, y.a, _CMP_UNORD_Q);
  const __m256 b = _mm256_cmp_ps(x.b, y.b, _CMP_UNORD_Q);
  return _mm256_movemask_ps(_mm256_or_ps(a, b)) != 0;
}

inline bool any_equal(V x, V y) {
  const __m256 a = _mm256_cmp_ps(x.a, y.a, _CMP_EQ_OQ);
  const __m256 b = _mm256_cmp_ps(x.b, y.b, _CMP_EQ_OQ);
  return _mm256_movemask_ps(_mm256_or_ps(a, b)) != 0;
}

inline __m256 widen_bf16(__m128i half) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline V load_bf16(const uint16_t* p) {
  const __m128i* q = reinterpret_cast<const __m128i*>(p);
  return {widen_bf16(_mm_loadu_si128(q)), widen_bf16(_mm_loadu_si128(q + 1))};
}

// 32 bf16 stored as pairs (column c, column c + 16): two float vectors from one load.
inline void load_bf16_pairs(const uint16_t* p, V& low, V& high) {
  const __m256i* q = reinterpret_cast<const __m256i*>(p);
  const __m256i a = _mm256_loadu_si256(q), b = _mm256_loadu_si256(q + 1);
  const __m256i mask = _mm256_set1_epi32(-65536);
  low = {_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
         _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
  high = {_mm256_castsi256_ps(_mm256_and_si256(a, mask)),
          _mm256_castsi256_ps(_mm256_and_si256(b, mask))};
}

// As in vec_portable.h: halves upon halves.
inline float sum_lanes(V x) {
  const __m256 eight = _mm256_add_ps(x.a, x.b);
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float max_lanes(V x) {
  const __m256 eight = _mm256_max_ps(x.a, x.b);
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
inline int32_t sum_lanes(I x) {
  const __m256i eight = _mm256_add_epi32(x.a, x.b);
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 1)));
}

inline I to_int(V x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
inline V to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline I bits(V x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
inline V from_bits(I x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }

inline I iset1(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline I iload(const void* p) {
  const __m256i* q = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
inline void istore(void* p, I x) {
  __m256i* q = static_cast<__m256i*>(p);
  _mm256_storeu_si256(q, x.a);
  _mm256_storeu_si256(q + 1, x.b);
}
inline I operator+(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline I operator-(I x, I y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
inline I operator&(I x, I y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
inline I operator|(I x, I y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
inline I operator^(I x, I y) { return {_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)}; }
template <int N>
inline I shift_left(I x) { return {_mm256_slli_epi32(x.a, N), _mm256_slli_epi32(x.b, N)}; }
template <int N>
inline I shift_right(I x) { return {_mm256_srli_epi32(x.a, N), _mm256_srli_epi32(x.b, N)}; }

inline void multiply_wide(__m256i x, __m256i y, __m256i& high, __m256i& low) {
  const __m256i even = _mm256_mul_epu32(x, y);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(y, 32));
  high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
  low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
}
inline void multiply_wide(I x, I y, I& high, I& low) {
  multiply_wide(x.a, y.a, high.a, low.a);
  multiply_wide(x.b, y.b, high.b, low.b);
}

#ifdef __AVXVNNI__
inline I dot4(I sum, I weights, int32_t quad) {
  const __m256i activations = _mm256_set1_epi32(quad);
  return {_mm256_dpbusd_avx_epi32(sum.a, weights.a, activations),
          _mm256_dpbusd_avx_epi32(sum.b, weights.b, activations)};
}
#else
// Even and odd bytes apart, so that the 16-bit sums of two products cannot overflow 32 bits.
inline __m256i dot4(__m256i sum, __m256i weights, __m256i even, __m256i odd) {
  const __m256i low = _mm256_and_si256(weights, _mm256_set1_epi16(0x00FF));
  const __m256i high = _mm256_srli_epi16(weights, 8);
  const __m256i products =
      _mm256_add_epi32(_mm256_madd_epi16(low, even), _mm256_madd_epi16(high, odd));
  return _mm256_add_epi32(sum, products);
}
inline I dot4(I sum, I weights, int32_t quad) {
  const __m256i activations = _mm256_set1_epi32(quad);
  const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(activations, 8), 8);
  const __m256i odd = _mm256_srai_epi16(activations, 8);
  return {dot4(sum.a, weights.a, even, odd), dot4(sum.b, weights.b, even, odd)};
}
#endif

// The low nibble of each byte, sixteen times.
inline I raise_low_nibbles(I a) { return shift_left<4>(a & iset1(0x0F0F0F0F)); }

inline void store_int8(int8_t* p, I x) {
  // packing goes by halves of a register
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xD8);
  const __m128i bytes =
      _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

__attribute__((always_inline)) inline void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}
__attribute__((always_inline)) inline void prefetch_in_turn(const void* p) { prefetch(p); }

}  // namespace
