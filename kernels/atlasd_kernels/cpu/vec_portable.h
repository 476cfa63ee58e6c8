// Sixteen floats in an array, for any processor; the compiler vectorises what it can.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int kFloatRows = 2;
constexpr int kPairedRows = 1;   // the same, of two panels at a time
constexpr int kIntegerRows = 2;
constexpr int kPairedIntegerRows = 1;
constexpr int kQueries = 4;
constexpr int kFloatVectors = 4;

struct V {
  float v[16];
};
struct I {
  int32_t v[16];
};

template <class F>
inline V each(F f) {
  V r;
  for (int i = 0; i < 16; i++) r.v[i] = f(i);
  return r;
}
template <class F>
inline I ieach(F f) {
  I r;
  for (int i = 0; i < 16; i++) r.v[i] = static_cast<int32_t>(f(i));
  return r;
}

inline V set1(float x) { return each([=](int) { return x; }); }
inline V zero() { return set1(0.0f); }
inline V load(const float* p) {
  V r;
  memcpy(r.v, p, sizeof r.v);
  return r;
}
inline void store(float* p, const V& a) { memcpy(p, a.v, sizeof a.v); }
inline V operator+(const V& a, const V& b) { return each([&](int i) { return a.v[i] + b.v[i]; }); }
inline V operator-(const V& a, const V& b) { return each([&](int i) { return a.v[i] - b.v[i]; }); }
inline V operator*(const V& a, const V& b) { return each([&](int i) { return a.v[i] * b.v[i]; }); }
inline V operator/(const V& a, const V& b) { return each([&](int i) { return a.v[i] / b.v[i]; }); }
// Fused only where the hardware does it: a library call per product would be far too slow.
inline V fma(const V& a, const V& b, const V& c) {
#ifdef __FP_FAST_FMAF
  return each([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
#else
  return each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
#endif
}
inline V max(const V& a, const V& b) {
  return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline V min(const V& a, const V& b) {
  return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline V abs(const V& a) { return each([&](int i) { return __builtin_fabsf(a.v[i]); }); }
inline bool any_greater(const V& a, const V& b) {
  bool any = false;
  for (int i = 0; i < 16; i++) any |= a.v[i] > b.v[i];
  return any;
}

// Among the lanes of both.
inline bool any_nan(const V& a, const V& b) {
  bool any = false;
  for (int i = 0; i < 16; i++) any |= a.v[i] != a.v[i] || b.v[i] != b.v[i];
  return any;
}

inline bool any_equal(const V& a, const V& b) {
  bool any = false;
  for (int i = 0; i < 16; i++) any |= a.v[i] == b.v[i];
  return any;
}

inline float float_from_bits(uint32_t x) {
  float r;
  memcpy(&r, &x, 4);
  return r;
}
inline V load_bf16(const uint16_t* p) {
  return each([=](int i) { return float_from_bits(uint32_t{p[i]} << 16); });
}
inline void load_bf16_pairs(const uint16_t* p, V& low, V& high) {
  low = each([=](int i) { return float_from_bits(uint32_t{p[2 * i]} << 16); });
  high = each([=](int i) { return float_from_bits(uint32_t{p[2 * i + 1]} << 16); });
}

inline I to_int(const V& a) { return ieach([&](int i) { return __builtin_rintf(a.v[i]); }); }
inline V to_float(const I& a) {
  return each([&](int i) { return static_cast<float>(a.v[i]); });
}
inline I bits(const V& a) {
  I r;
  memcpy(r.v, a.v, sizeof r.v);
  return r;
}
inline V from_bits(const I& a) {
  V r;
  memcpy(r.v, a.v, sizeof r.v);
  return r;
}

// Of all lanes, by adding the upper half to the lower until one is left: every set does so.
inline float sum_lanes(V x) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) x.v[i] += x.v[i + half];
  return x.v[0];
}
inline float max_lanes(V x) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) x.v[i] = x.v[i] > x.v[i + half] ? x.v[i] : x.v[i + half];
  return x.v[0];
}
inline int32_t sum_lanes(const I& x) {
  int32_t total = 0;
  for (int i = 0; i < 16; i++) total += x.v[i];
  return total;
}

inline uint32_t word(const I& a, int i) { return static_cast<uint32_t>(a.v[i]); }
inline I iset1(int32_t x) { return ieach([=](int) { return x; }); }
inline I iload(const void* p) {
  I r;
  memcpy(r.v, p, sizeof r.v);
  return r;
}
inline void istore(void* p, const I& a) { memcpy(p, a.v, sizeof a.v); }
inline I operator+(const I& a, const I& b) {
  return ieach([&](int i) { return word(a, i) + word(b, i); });
}
inline I operator-(const I& a, const I& b) {
  return ieach([&](int i) { return word(a, i) - word(b, i); });
}
inline I operator&(const I& a, const I& b) { return ieach([&](int i) { return a.v[i] & b.v[i]; }); }
inline I operator|(const I& a, const I& b) { return ieach([&](int i) { return a.v[i] | b.v[i]; }); }
inline I operator^(const I& a, const I& b) { return ieach([&](int i) { return a.v[i] ^ b.v[i]; }); }
template <int N>
inline I shift_left(const I& a) { return ieach([&](int i) { return word(a, i) << N; }); }
template <int N>
inline I shift_right(const I& a) { return ieach([&](int i) { return word(a, i) >> N; }); }

inline void multiply_wide(const I& a, const I& b, I& high, I& low) {
  const I x = a, y = b;
  high = ieach([&](int i) { return (uint64_t{word(x, i)} * word(y, i)) >> 32; });
  low = ieach([&](int i) { return word(x, i) * word(y, i); });
}

inline I dot4(const I& sum, const I& weights, int32_t quad) {
  return ieach([&](int i) {
    int32_t s = sum.v[i];
    for (int j = 0; j < 4; j++) {
      const int w = (word(weights, i) >> (8 * j)) & 255;
      s += w * static_cast<int8_t>(static_cast<uint32_t>(quad) >> (8 * j));
    }
    return s;
  });
}

// The low nibble of each byte, sixteen times.
inline I raise_low_nibbles(I a) { return shift_left<4>(a & iset1(0x0F0F0F0F)); }

inline void store_int8(int8_t* p, const I& a) {
  for (int i = 0; i < 16; i++) p[i] = static_cast<int8_t>(a.v[i]);
}

inline void prefetch(const void* p) { __builtin_prefetch(p); }
inline void prefetch_in_turn(const void* p) { prefetch(p); }

}  // namespace
