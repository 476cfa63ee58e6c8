// Sixteen floats in four NEON registers; the integer dot product by that of ARMv8.2, whose bytes all
// have signs.
#pragma once
#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace {

// Of 32 registers a row's 32 columns take eight.
constexpr int kFloatRows = 2;
constexpr int kPairedRows = 1;   // the same, of two panels at a time
constexpr int kIntegerRows = 2;
constexpr int kPairedIntegerRows = 1;
constexpr int kQueries = 5;
constexpr int kFloatVectors = 1;   // of sixteen: 20 sums of five queries, and what they are made of

struct V {
  float32x4_t v[4];
};
struct I {
  int32x4_t v[4];
};

// One register after the other.
template <class F>
inline V each(F f) {
  return {f(0), f(1), f(2), f(3)};
}
template <class F>
inline I ieach(F f) {
  return {f(0), f(1), f(2), f(3)};
}

inline V set1(float x) {
  const float32x4_t four = vdupq_n_f32(x);
  return {four, four, four, four};
}
inline V zero() { return set1(0.0f); }
inline V load(const float* p) {
  return each([=](int i) { return vld1q_f32(p + 4 * i); });
}
inline void store(float* p, const V& a) {
  for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, a.v[i]);
}
inline V operator+(const V& a, const V& b) {
  return each([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline V operator-(const V& a, const V& b) {
  return each([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
inline V operator*(const V& a, const V& b) {
  return each([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline V operator/(const V& a, const V& b) {
  return each([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
inline V fma(const V& a, const V& b, const V& c) {
  return each([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
// The second where they cannot be compared, as on other processors.
inline V max(const V& a, const V& b) {
  return each([&](int i) { return vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
inline V min(const V& a, const V& b) {
  return each([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
inline V abs(const V& a) {
  return each([&](int i) { return vabsq_f32(a.v[i]); });
}

// `test`: of one register, all ones in some lanes.
template <class F>
inline bool any(F test) {
  const uint32x4_t found = vorrq_u32(vorrq_u32(test(0), test(1)), vorrq_u32(test(2), test(3)));
  return vmaxvq_u32(found) != 0;
}
inline bool any_greater(const V& a, const V& b) {
  return any([&](int i) { return vcgtq_f32(a.v[i], b.v[i]); });
}
inline bool any_nan(const V& a, const V& b) {
  return any([&](int i) {
    return vmvnq_u32(vandq_u32(vceqq_f32(a.v[i], a.v[i]), vceqq_f32(b.v[i], b.v[i])));
  });
}
inline bool any_equal(const V& a, const V& b) {
  return any([&](int i) { return vceqq_f32(a.v[i], b.v[i]); });
}

inline V load_bf16(const uint16_t* p) {
  return each(
      [=](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
}

// 32 bf16 stored as pairs (column c, column c + 16): two float vectors from one load.
inline void load_bf16_pairs(const uint16_t* p, V& low, V& high) {
  const uint32x4_t mask = vdupq_n_u32(0xFFFF0000);
  for (int i = 0; i < 4; i++) {
    const uint32x4_t pairs = vreinterpretq_u32_u16(vld1q_u16(p + 8 * i));
    low.v[i] = vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16));
    high.v[i] = vreinterpretq_f32_u32(vandq_u32(pairs, mask));
  }
}

inline I to_int(const V& a) {
  return ieach([&](int i) { return vcvtnq_s32_f32(a.v[i]); });
}
inline V to_float(const I& a) {
  return each([&](int i) { return vcvtq_f32_s32(a.v[i]); });
}
inline I bits(const V& a) {
  return ieach([&](int i) { return vreinterpretq_s32_f32(a.v[i]); });
}
inline V from_bits(const I& a) {
  return each([&](int i) { return vreinterpretq_f32_s32(a.v[i]); });
}

// As in vec_portable.h: halves upon halves.
inline float sum_lanes(const V& x) {
  const float32x4_t four =
      vaddq_f32(vaddq_f32(x.v[0], x.v[2]), vaddq_f32(x.v[1], x.v[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
inline float max_lanes(const V& x) {
  float lanes[16];
  store(lanes, x);
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  return lanes[0];
}
inline int32_t sum_lanes(const I& x) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(x.v[0], x.v[1]), vaddq_s32(x.v[2], x.v[3])));
}

inline I iset1(int32_t x) {
  const int32x4_t four = vdupq_n_s32(x);
  return {four, four, four, four};
}
inline I iload(const void* p) {
  const uint8_t* bytes = static_cast<const uint8_t*>(p);
  return ieach([=](int i) { return vreinterpretq_s32_u8(vld1q_u8(bytes + 16 * i)); });
}
inline void istore(void* p, const I& a) {
  uint8_t* bytes = static_cast<uint8_t*>(p);
  for (int i = 0; i < 4; i++) vst1q_u8(bytes + 16 * i, vreinterpretq_u8_s32(a.v[i]));
}
inline I operator+(const I& a, const I& b) {
  return ieach([&](int i) { return vaddq_s32(a.v[i], b.v[i]); });
}
inline I operator-(const I& a, const I& b) {
  return ieach([&](int i) { return vsubq_s32(a.v[i], b.v[i]); });
}
inline I operator&(const I& a, const I& b) {
  return ieach([&](int i) { return vandq_s32(a.v[i], b.v[i]); });
}
inline I operator|(const I& a, const I& b) {
  return ieach([&](int i) { return vorrq_s32(a.v[i], b.v[i]); });
}
inline I operator^(const I& a, const I& b) {
  return ieach([&](int i) { return veorq_s32(a.v[i], b.v[i]); });
}
template <int N>
inline I shift_left(const I& a) {
  return ieach([&](int i) { return vshlq_n_s32(a.v[i], N); });
}
template <int N>
inline I shift_right(const I& a) {
  return ieach([&](int i) {
    return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v[i]), N));
  });
}

inline void multiply_wide(const I& a, const I& b, I& high, I& low) {
  for (int i = 0; i < 4; i++) {
    const uint32x4_t x = vreinterpretq_u32_s32(a.v[i]), y = vreinterpretq_u32_s32(b.v[i]);
    const uint64x2_t first = vmull_u32(vget_low_u32(x), vget_low_u32(y));
    const uint64x2_t second = vmull_u32(vget_high_u32(x), vget_high_u32(y));
    const uint32x4_t p = vreinterpretq_u32_u64(first), q = vreinterpretq_u32_u64(second);
    low.v[i] = vreinterpretq_s32_u32(vuzp1q_u32(p, q));
    high.v[i] = vreinterpretq_s32_u32(vuzp2q_u32(p, q));
  }
}

// Weights are bytes without a sign: 128 less have one, and what that takes from the sum, 128 times
// the quad's own, is the same for all columns.
inline I dot4(const I& sum, const I& weights, int32_t quad) {
  const int8x16_t activations = vreinterpretq_s8_s32(vdupq_n_s32(quad));
  const int32x4_t half = vdotq_s32(vdupq_n_s32(0), activations, vdupq_n_s8(64));
  const int32x4_t taken = vaddq_s32(half, half);
  const uint8x16_t sign = vdupq_n_u8(0x80);
  return ieach([&](int i) {
    const int8x16_t less = vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_s32(weights.v[i]), sign));
    return vdotq_s32(vaddq_s32(sum.v[i], taken), less, activations);
  });
}

// The low nibble of each byte, sixteen times.
inline I raise_low_nibbles(const I& a) { return shift_left<4>(a & iset1(0x0F0F0F0F)); }

inline void store_int8(int8_t* p, const I& a) {
  const int16x8_t first = vcombine_s16(vmovn_s32(a.v[0]), vmovn_s32(a.v[1]));
  const int16x8_t second = vcombine_s16(vmovn_s32(a.v[2]), vmovn_s32(a.v[3]));
  vst1q_s8(p, vcombine_s8(vmovn_s16(first), vmovn_s16(second)));
}

inline void prefetch(const void* p) { __builtin_prefetch(p); }
inline void prefetch_in_turn(const void* p) { prefetch(p); }

}  // namespace
