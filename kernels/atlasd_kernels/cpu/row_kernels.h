// Kernels over one row: RMSNorm and RoPE.
#pragma once

namespace {

// Whole vectors first, then what is left of n.
void rms_norm_row(const float* x, const float* weight, float eps, long n, float* out) {
  V sums[4] = {zero(), zero(), zero(), zero()};
  long i = 0;
  for (; i + 64 <= n; i += 64)
    for (int j = 0; j < 4; j++) {
      const V v = load(x + i + 16 * j);
      sums[j] = fma(v, v, sums[j]);
    }
  for (; i + 16 <= n; i += 16) {
    const V v = load(x + i);
    sums[0] = fma(v, v, sums[0]);
  }
  float total = sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
  const long vectors = i;
  for (; i < n; i++) total += x[i] * x[i];
  const float scale = 1.0f / __builtin_sqrtf(total / static_cast<float>(n) + eps);
  const V factor = set1(scale);
  for (i = 0; i < vectors; i += 16) store(out + i, load(x + i) * factor * load(weight + i));
  for (; i < n; i++) out[i] = x[i] * scale * weight[i];
}

// Rotates pairs (i, i + half), the layout of Hugging Face checkpoints.
void rope_head(float* head, const float* cos, const float* sin, int half) {
  int i = 0;
  for (; i + 16 <= half; i += 16) {
    const V a = load(head + i), b = load(head + half + i);
    const V c = load(cos + i), s = load(sin + i);
    store(head + i, fma(a, c, set1(0.0f) - b * s));
    store(head + half + i, fma(b, c, a * s));
  }
  for (; i < half; i++) {
    const float a = head[i], b = head[half + i];
    head[i] = a * cos[i] - b * sin[i];
    head[half + i] = b * cos[i] + a * sin[i];
  }
}

}  // namespace
