// Sixteen floats in one AVX-512 register, and the VNNI dot product.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace {

constexpr int kFloatRows = 12;   // rows whose accumulators fit the register file, 32 columns each
constexpr int kPairedRows = 5;   // the same, of two panels at a time
constexpr int kIntegerRows = 8;   // float sums may spill: they are touched once a group
constexpr int kPairedIntegerRows = 1;
constexpr int kFloatVectors = 4;   // of sixteen
constexpr int kQueries = 6;   // whose sums over so many vectors fit

struct V {
  __m512 v;
};
struct I {
  __m512i v;
};

inline V zero() { return {_mm512_setzero_ps()}; }
inline V set1(float x) { return {_mm512_set1_ps(x)}; }
inline V load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, V a) { _mm512_storeu_ps(p, a.v); }
inline V operator+(V a, V b) { return {_mm512_add_ps(a.v, b.v)}; }
inline V operator-(V a, V b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline V operator*(V a, V b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline V operator/(V a, V b) { return {_mm512_div_ps(a.v, b.v)}; }
inline V fma(V a, V b, V c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline V max(V a, V b) { return {_mm512_max_ps(a.v, b.v)}; }
inline V min(V a, V b) { return {_mm512_min_ps(a.v, b.v)}; }
inline V abs(V a) { return {_mm512_abs_ps(a.v)}; }
inline bool any_greater(V a, V b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ) != 0; }

inline bool any_nan(V a, V b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_UNORD_Q) != 0; }

inline bool any_equal(V a, V b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ) != 0; }

inline V load_bf16(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
}

// 32 bf16 stored as pairs (column c, column c + 16): two floats vectors from one load.
inline void load_bf16_pairs(const uint16_t* p, V& low, V& high) {
  const __m512i pairs = _mm512_loadu_si512(p);
  low.v = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
  high.v = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-65536)));
}

// As in vec_portable.h: halves upon halves.
inline float sum_lanes(V x) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float max_lanes(V x) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
inline int32_t sum_lanes(I x) { return _mm512_reduce_add_epi32(x.v); }

// Round to nearest even.
inline I to_int(V a) { return {_mm512_cvtps_epi32(a.v)}; }
inline V to_float(I a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline I bits(V a) { return {_mm512_castps_si512(a.v)}; }
inline V from_bits(I a) { return {_mm512_castsi512_ps(a.v)}; }

inline I iset1(int32_t x) { return {_mm512_set1_epi32(x)}; }
// A constant that the compiler may put aside, but not make again.
inline I kept(I a) {
  asm("" : "+v"(a.v));
  return a;
}
inline I iload(const void* p) { return {_mm512_loadu_si512(p)}; }
inline void istore(void* p, I a) { _mm512_storeu_si512(p, a.v); }
inline I operator+(I a, I b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I operator-(I a, I b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline I operator&(I a, I b) { return {_mm512_and_si512(a.v, b.v)}; }
inline I operator|(I a, I b) { return {_mm512_or_si512(a.v, b.v)}; }
inline I operator^(I a, I b) { return {_mm512_xor_si512(a.v, b.v)}; }
template <int N>
inline I shift_left(I a) { return {_mm512_slli_epi32(a.v, N)}; }
template <int N>
inline I shift_right(I a) { return {_mm512_srli_epi32(a.v, N)}; }

template <int N>
inline I rotate_right(I a) { return {_mm512_ror_epi32(a.v, N)}; }
// a where mask has ones, b elsewhere
inline I select(I mask, I a, I b) { return {_mm512_ternarylogic_epi32(mask.v, a.v, b.v, 0xCA)}; }
// (a & mask) | base
inline I keep_and_set(I a, I mask, I base) {
  return {_mm512_ternarylogic_epi32(a.v, mask.v, base.v, 0xEA)};
}

// High and low halves of the 32 x 32 bit unsigned product.
inline void multiply_wide(I a, I b, I& high, I& low) {
  const __m512i even = _mm512_mul_epu32(a.v, b.v);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), _mm512_srli_epi64(b.v, 32));
  high.v = _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
  low.v = _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
}

// The low nibble of each byte, sixteen times.
inline I raise_low_nibbles(I a) {
#ifdef __GFNI__
  // one operation, which takes either port: bit i comes from bit i - 4
  const __m512i raised = _mm512_set1_epi64(0x01020408);
  return {_mm512_gf2p8affine_epi64_epi8(a.v, raised, 0)};
#else
  return shift_left<4>(a & iset1(0x0F0F0F0F));
#endif
}

// sum + four products u8 (weights, 16 columns) x s8 (one activation quad for all columns).
inline I dot4(I sum, I weights, int32_t quad) {
  return {_mm512_dpbusd_epi32(sum.v, weights.v, _mm512_set1_epi32(quad))};
}

inline void store_int8(int8_t* p, I a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(a.v));
}

// GCC 12 takes a function that only fetches ahead for one without effect, and drops calls of it that
// it has not inlined by then.
__attribute__((always_inline)) inline void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

// The same, where it stands: GCC gathers a loop's fetches at its head. That suits a loop that waits
// for memory anyway; in one that computes meanwhile they wait for each other.
__attribute__((always_inline)) inline void prefetch_in_turn(const void* p) {
  asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(p)));
}

}  // namespace
