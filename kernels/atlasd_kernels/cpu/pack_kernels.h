// Quantising weights at load, one group at a time. No fused operations: packed files are the same
// whichever instruction set wrote them.
#pragma once

namespace {

inline V clamp(V x, float low, float high) { return min(max(x, set1(low)), set1(high)); }

inline float round_bf16(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

// A code, and what it stands for in steps. Four bits lie in pairs (matmul_integer.h): the second
// quad's weights are whole bytes, which add a sixteenth of the code four lanes before, so they are
// rounded with that in place. Code 0 after code 0 stands for 0.
struct Rounded {
  V code, value;
};

inline Rounded round_codes(V x, int levels) {
  const V code = clamp(to_float(to_int(x)), -levels, levels - 1);
  if (levels > 8) return {code, code};
  constexpr float s = 1.0f / 16;
  alignas(64) static const float shares[16] = {0, 0, 0, 0, s, s, s, s, 0, 0, 0, 0, s, s, s, s};
  alignas(64) float lanes[32] = {};
  store(lanes + 4, code);
  const V low = load(lanes) * load(shares);
  const V high = clamp(to_float(to_int(x - low)), -levels, levels - 1);
  return {high, high + low};
}

inline float group_error(const float* x, int n, int levels, float scale) {
  const V inverse = set1(1.0f / scale);
  V sum = zero();
  for (int i = 0; i < n; i += 16) {
    const V v = load(x + i);
    const V error = round_codes(v * inverse, levels).value * set1(scale) - v;
    sum = sum + error * error;
  }
  return sum_lanes(sum);
}

// The range is [-levels, levels - 1]: the side of the largest value gets the extra step. Four bits
// gain a tenth of their error by trying a few scales around that; eight bits do not need it.
inline float group_scale(const float* x, int n, int levels) {
  V least = load(x), most = load(x);
  for (int i = 16; i < n; i += 16) {
    least = min(least, load(x + i));
    most = max(most, load(x + i));
  }
  const float high = max_lanes(most), low = -max_lanes(set1(0.0f) - least);
  const float peak = high > -low ? -high : -low;
  if (peak == 0.0f) return 0.0f;
  if (levels > 8) return round_bf16((peak < 0 ? -peak : peak) / static_cast<float>(levels - 1));
  float best = 0.0f, smallest = __builtin_inff();
  for (int step = -6; step <= 4; step++) {
    const float scale = round_bf16(peak / (static_cast<float>(levels) + 0.2f * step));
    if (scale == 0.0f) continue;
    const float error = group_error(x, n, levels, scale);
    if (error < smallest) {
      smallest = error;
      best = scale;
    }
  }
  return best;
}

// codes: value / scale + levels, one byte each; returns the scale, which is a bf16 number.
float quantise_group(const float* x, int n, int levels, uint8_t* codes) {
  const float scale = group_scale(x, n, levels);
  const V inverse = set1(scale == 0.0f ? 0.0f : 1.0f / scale);
  for (int i = 0; i < n; i += 16) {
    const V q = round_codes(load(x + i) * inverse, levels).code;
    alignas(64) int32_t lane[16];
    istore(lane, to_int(q) + iset1(levels));
    for (int j = 0; j < 16; j++) codes[i + j] = static_cast<uint8_t>(lane[j]);
  }
  return scale;
}

}  // namespace
