// Kernels over one row: RMSNorm, RoPE, and its place in the cache.
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

// Rotates pairs (i, i + half), the layout of Hugging Face checkpoints, and scales them.
void rope_head(float* head, const float* cos, const float* sin, int half, float scale) {
  const V factor = set1(scale);
  int i = 0;
  for (; i + 16 <= half; i += 16) {
    const V a = load(head + i), b = load(head + half + i);
    const V c = load(cos + i), s = load(sin + i);
    store(head + i, fma(a, c, set1(0.0f) - b * s) * factor);
    store(head + half + i, fma(b, c, a * s) * factor);
  }
  for (; i < half; i++) {
    const float a = head[i], b = head[half + i];
    head[i] = (a * cos[i] - b * sin[i]) * scale;
    head[half + i] = (b * cos[i] + a * sin[i]) * scale;
  }
}

// The nearest bf16, ties to even, in the low halves of words.
inline I round_halves(V x) {
  const I word = bits(x);
  const I odd = shift_right<16>(word) & iset1(1);
  return shift_right<16>(word + iset1(0x7FFF) + odd);
}

// One position's key and value of a KV head, in the layout that attention.h reads. keys: its block;
// value: its own place there; dim is a multiple of 16.
void cache_row(const float* k, const float* v, int dim, int place, Numbers numbers, void* keys,
               void* value) {
  if (numbers == Numbers::fp32) {
    float* ko = static_cast<float*>(keys) + place;
    for (int d = 0; d < dim; d++) ko[d * kBlock] = k[d];
    __builtin_memcpy(value, v, dim * sizeof(float));
    return;
  }
  // pairs (i, i + 16) of every 32
  uint16_t* ko = static_cast<uint16_t*>(keys) + place / 32 * 32 + place % 16 * 2 + place / 16 % 2;
  uint16_t* vo = static_cast<uint16_t*>(value);
  alignas(64) int32_t words[16];
  int d = 0;
  for (; d < dim; d += 16) {
    istore(words, round_halves(load(k + d)));
    for (int i = 0; i < 16; i++) ko[(d + i) * kBlock] = static_cast<uint16_t>(words[i]);
  }
  for (d = 0; d + 32 <= dim; d += 32)
    istore(vo + d, round_halves(load(v + d)) | shift_left<16>(round_halves(load(v + d + 16))));
  if (d < dim) {
    istore(words, round_halves(load(v + d)));
    for (int i = 0; i < 16; i++) vo[d + i] = static_cast<uint16_t>(words[i]);
  }
}

}  // namespace
