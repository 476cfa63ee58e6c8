// The softmax of attention_fp16.h: scores and weights are fp16 numbers, 32 to a vector; their sums
// are floats.
#pragma once

namespace {

using Fp16 = __m512h;

constexpr int kHalf = 32;                       // dimensions or positions that are summed in fp16
constexpr int kHalfVectors = kBlock / kHalf;    // of a block's positions
constexpr int kHalfGroups = 8;                  // of dimensions: heads of up to 256

// Scores are powers of two over this, so that one bit tells of a sum that has reached 2, which are
// 44 units of a softmax: what is summed further would be rounded more coarsely than attention in
// bf16 rounds its scores.
constexpr float kScoreUnit = 32.0f;
constexpr short kReached = 0x4000;   // of 2 and more, infinities, and what is not a number

// The largest score may be passed by this many powers of two before sums shrink: 64 weights of 4
// leave room for values of 250.
constexpr float kHalfGrowth = 2.0f;

inline Fp16 half_load(const uint16_t* p) { return _mm512_castsi512_ph(_mm512_loadu_si512(p)); }
inline void half_store(uint16_t* p, Fp16 x) { _mm512_storeu_si512(p, _mm512_castph_si512(x)); }
inline Fp16 half_set1(float x) { return _mm512_set1_ph(static_cast<_Float16>(x)); }
// Kept in a register: the compiler would spread a constant anew each time, on a port that
// multiply-adds need.
inline Fp16 half_kept(float x) {
  return _mm512_castsi512_ph(kept(I{_mm512_castph_si512(half_set1(x))}).v);
}
inline __m256h low_half(Fp16 x) { return _mm512_castph512_ph256(x); }
inline __m256h high_half(Fp16 x) {
  const __m256i high = _mm512_extracti64x4_epi64(_mm512_castph_si512(x), 1);
  return _mm256_castsi256_ph(high);
}

struct HalfConstants {
  // of 2^x for x in [0, 1): the error is a twentieth of what rounding to fp16 makes
  Fp16 cubic = half_kept(0.07720947265625f), square = half_kept(0.2271728515625f);
  Fp16 linear = half_kept(0.6953125f), one = half_kept(1.0f);
  Fp16 unit = half_kept(kScoreUnit), growth = half_kept(kHalfGrowth);
  I reached = kept(I{_mm512_set1_epi16(kReached)});

  // 2^x; 0 in lanes that are not asked for
  ATLASD_INLINE Fp16 power(__mmask32 lanes, Fp16 x) const {
    const Fp16 r = _mm512_reduce_ph(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    Fp16 p = _mm512_fmadd_ph(cubic, r, square);
    p = _mm512_fmadd_ph(p, r, linear);
    p = _mm512_fmadd_ph(p, r, one);
    return _mm512_maskz_scalef_ph(lanes, p, x);
  }
};

// A query's softmax so far, in units of 2^-shift.
struct HalfRunning {
  alignas(64) float total[16];         // lane by lane
  alignas(64) uint16_t shift[kHalf];   // the same 32 times; what is added to scores

  void begin() {
    store(total, zero());
    half_store(shift, half_set1(__builtin_inff()));
  }

  // Sums go on in units of the largest score so far.
  __attribute__((noinline)) void follow(const Query& query, int head_dim, Fp16 largest) {
    const float before = _mm512_cvtsh_h(half_load(shift));
    const float now = -_mm512_reduce_max_ph(largest);
    half_store(shift, half_set1(now));
    if (before == __builtin_inff()) return;
    const V shrink = exp_weight(set1((now - before) * 0.69314718f));
    store(total, load(total) * shrink);
    for (int d = 0; d < head_dim; d += 16) store(query.out + d, load(query.out + d) * shrink);
  }
};

// Positions of the block at `start` that a query sees, a bit each.
inline uint64_t seen_by(const Query& query, int start) {
  if (query.begin <= start && query.end >= start + kBlock) return ~uint64_t{0};
  const int first = within_block(query.begin - start), last = within_block(query.end - start);
  return first < last ? ~uint64_t{0} >> (kBlock - last) & ~uint64_t{0} << first : 0;
}

// Turns a query's scores over the first 32 * N positions of a block into weights, zero where it
// sees nothing. sums: one for each 32 dimensions, `distance` numbers apart. False: one of them is
// beyond what fp16 tells well.
template <int N>
ATLASD_INLINE bool half_softmax(const HalfConstants& c, const Query& query, int head_dim,
                                uint64_t seen, const uint16_t* sums, long distance, uint16_t* p,
                                HalfRunning& running) {
  __mmask32 lanes[N], beyond[2] = {};
  Fp16 s[N], x[N], shift = half_load(running.shift);
#pragma GCC unroll 2
  for (int v = 0; v < N; v++) {
    lanes[v] = static_cast<__mmask32>(seen >> (kHalf * v));
    s[v] = half_load(sums + kHalf * v);
    __m512i bits = _mm512_castph_si512(s[v]);
    for (int d = kHalf; d < head_dim; d += kHalf) {
      const Fp16 more = half_load(sums + d / kHalf * distance + kHalf * v);
      bits = _mm512_or_si512(bits, _mm512_castph_si512(more));
      s[v] = _mm512_add_ph(s[v], more);
    }
    beyond[v] = _mm512_mask_test_epi16_mask(lanes[v], bits, c.reached.v);
    x[v] = _mm512_maskz_fmadd_ph(lanes[v], s[v], c.unit, shift);
  }
  if (!_kortestz_mask32_u8(beyond[0], beyond[1])) return false;
  if (_mm512_cmp_ph_mask(N > 1 ? _mm512_max_ph(x[0], x[N - 1]) : x[0], c.growth, _CMP_GT_OQ)) {
    Fp16 largest = half_set1(-__builtin_inff());
    for (int v = 0; v < N; v++)
      largest = _mm512_mask_max_ph(largest, lanes[v], largest, _mm512_mul_ph(s[v], c.unit));
    running.follow(query, head_dim, largest);
    shift = half_load(running.shift);
    for (int v = 0; v < N; v++) x[v] = _mm512_fmadd_ph(s[v], c.unit, shift);
  }
  Fp16 total = _mm512_setzero_ph();
#pragma GCC unroll 2
  for (int v = 0; v < N; v++) {
    x[v] = c.power(lanes[v], x[v]);
    half_store(p + kHalf * v, x[v]);
    total = v ? _mm512_add_ph(total, x[v]) : x[v];
  }
  const V more{_mm512_cvtxph_ps(_mm256_add_ph(low_half(total), high_half(total)))};
  store(running.total, load(running.total) + more);
  return true;
}

}  // namespace
