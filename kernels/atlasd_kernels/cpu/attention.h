// Attention of one row's query heads over KV blocks at absolute positions, in ascending order,
// with a running softmax: what a row computes depends on its query and positions [begin, end).
#pragma once

namespace {

struct FullCache {
  using T = float;
  // N vectors of 16 floats
  template <int N>
  static void load_vectors(const float* p, V* out) {
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) out[v] = load(p + 16 * v);
  }
};

// bf16 in pairs (i, i + 16) of 32 elements, as weights are; a single 16 lies as it is.
struct HalfCache {
  using T = uint16_t;
  template <int N>
  static void load_vectors(const uint16_t* p, V* out) {
    if (N == 1) out[0] = load_bf16(p);
#pragma GCC unroll 2
    for (int v = 0; v + 1 < N; v += 2) load_bf16_pairs(p + 16 * v, out[v], out[v + 1]);
  }
};

constexpr int kBlockVectors = kBlock / 16;

// scores[q][j] = query q . key j for the 64 positions of a block
template <class Cache, int Q>
void block_scores(const float* queries, int head_dim, const typename Cache::T* keys,
                  float (*scores)[kBlock]) {
  V sums[Q][kBlockVectors];
#pragma GCC unroll 4
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < kBlockVectors; v++) sums[q][v] = zero();
  for (int d = 0; d < head_dim; d++) {
    V key[kBlockVectors];
    Cache::template load_vectors<kBlockVectors>(keys + d * kBlock, key);
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) {
      const V x = set1(queries[q * head_dim + d]);
#pragma GCC unroll 4
      for (int v = 0; v < kBlockVectors; v++) sums[q][v] = fma(x, key[v], sums[q][v]);
    }
  }
#pragma GCC unroll 4
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < kBlockVectors; v++) store(scores[q] + 16 * v, sums[q][v]);
}

// N vectors of out[q] = out[q] * shrink[q] + sum over positions, ascending, of p[q][j] * value j
template <class Cache, int Q, int N>
void block_values(const float (*p)[kBlock], const float* shrink, int first, int last,
                  const typename Cache::T* values, int head_dim, float* out) {
  V sums[Q][N];
#pragma GCC unroll 4
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < N; v++)
      sums[q][v] = load(out + q * head_dim + 16 * v) * set1(shrink[q]);
  for (int j = first; j < last; j++) {
    V value[N];
    Cache::template load_vectors<N>(values + long{j} * head_dim, value);
#pragma GCC unroll 4
    for (int q = 0; q < Q; q++) {
      const V weight = set1(p[q][j]);
#pragma GCC unroll 4
      for (int v = 0; v < N; v++) sums[q][v] = fma(weight, value[v], sums[q][v]);
    }
  }
#pragma GCC unroll 4
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) store(out + q * head_dim + 16 * v, sums[q][v]);
}

// Turns scores into weights; returns the factor by which what was summed before shrinks.
inline float block_softmax(float* scores, int first, int last, float& most, float& total) {
  for (int j = 0; j < first; j++) scores[j] = -__builtin_inff();
  for (int j = last; j < kBlock; j++) scores[j] = -__builtin_inff();
  V largest = load(scores);
  for (int v = 1; v < kBlockVectors; v++) largest = max(largest, load(scores + 16 * v));
  const float now = max_lanes(largest);
  const float next = now > most ? now : most;
  V sum = zero();
  for (int v = 0; v < kBlockVectors; v++)
    store(scores + 16 * v, exp(load(scores + 16 * v) - set1(next)));
  for (int j = 0; j < first; j++) scores[j] = 0.0f;
  for (int j = last; j < kBlock; j++) scores[j] = 0.0f;
  for (int v = 0; v < kBlockVectors; v++) sum = sum + load(scores + 16 * v);
  alignas(64) float shrink[16];
  store(shrink, exp(set1(most - next)));
  if (most == -__builtin_inff()) shrink[0] = 0.0f;
  total = total * shrink[0] + sum_lanes(sum);
  most = next;
  return shrink[0];
}

template <class Cache, int Q>
void attend_queries(const Attention& a) {
  using T = typename Cache::T;
  const int head_dim = a.head_dim;
  const long block_size = long{kBlock} * head_dim;
  alignas(64) float p[Q][kBlock];
  float most[Q], total[Q], shrink[Q];
  for (int q = 0; q < Q; q++) {
    most[q] = -__builtin_inff();
    total[q] = 0.0f;
  }
  for (int i = 0; i < Q * head_dim; i++) a.out[i] = 0.0f;
  for (int block = a.begin / kBlock; block * kBlock < a.end; block++) {
    const T* keys = static_cast<const T*>(a.keys) + block * block_size;
    const T* values = static_cast<const T*>(a.values) + block * block_size;
    const int start = block * kBlock;
    const int first = a.begin > start ? a.begin - start : 0;
    const int last = a.end - start < kBlock ? a.end - start : kBlock;
    block_scores<Cache, Q>(a.queries, head_dim, keys, p);
    for (int q = 0; q < Q; q++)
      shrink[q] = block_softmax(p[q], first, last, most[q], total[q]);
    int d = 0;
    for (; d + 64 <= head_dim; d += 64)
      block_values<Cache, Q, 4>(p, shrink, first, last, values + d, head_dim, a.out + d);
    for (; d + 32 <= head_dim; d += 32)
      block_values<Cache, Q, 2>(p, shrink, first, last, values + d, head_dim, a.out + d);
    for (; d < head_dim; d += 16)
      block_values<Cache, Q, 1>(p, shrink, first, last, values + d, head_dim, a.out + d);
  }
  for (int q = 0; q < Q; q++) {
    const V scale = set1(1.0f / total[q]);
    for (int d = 0; d < head_dim; d += 16)
      store(a.out + q * head_dim + d, load(a.out + q * head_dim + d) * scale);
  }
}

template <class Cache>
void attend_with(const Attention& a) {
  switch (a.count) {
    case 1: return attend_queries<Cache, 1>(a);
    case 2: return attend_queries<Cache, 2>(a);
    case 3: return attend_queries<Cache, 3>(a);
    default: return attend_queries<Cache, 4>(a);
  }
}

void attend_row(const Attention& a) {
  a.half ? attend_with<HalfCache>(a) : attend_with<FullCache>(a);
}

}  // namespace
