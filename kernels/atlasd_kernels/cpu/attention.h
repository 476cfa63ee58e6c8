// Attention over KV blocks at absolute positions, in ascending order, with a running softmax. Rows
// of one slot share each load of keys and values, and nothing else: what a row computes depends on
// its query and positions [begin, end).
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
void block_scores(const Query* queries, int head_dim, const typename Cache::T* keys,
                  float (*scores)[kBlock]) {
  V sums[Q][kBlockVectors];
#pragma GCC unroll 8
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < kBlockVectors; v++) sums[q][v] = zero();
  for (int d = 0; d < head_dim; d++) {
    V key[kBlockVectors];
    Cache::template load_vectors<kBlockVectors>(keys + d * kBlock, key);
#pragma GCC unroll 8
    for (int q = 0; q < Q; q++) {
      const V x = set1(queries[q].values[d]);
#pragma GCC unroll 4
      for (int v = 0; v < kBlockVectors; v++) sums[q][v] = fma(x, key[v], sums[q][v]);
    }
  }
#pragma GCC unroll 8
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < kBlockVectors; v++) store(scores[q] + 16 * v, sums[q][v]);
}

// N vectors, from d on, of out[q] = out[q] * shrink[q] + sum over positions, ascending, of
// p[q][j] * value j; p is zero where a query does not see what another one does.
template <class Cache, int Q, int N>
void block_values(const float (*p)[kBlock], const float* shrink, int first, int last,
                  const typename Cache::T* values, int head_dim, const Query* queries, int d) {
  V sums[Q][N];
#pragma GCC unroll 8
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < N; v++)
      sums[q][v] = load(queries[q].out + d + 16 * v) * set1(shrink[q]);
  for (int j = first; j < last; j++) {
    V value[N];
    Cache::template load_vectors<N>(values + long{j} * head_dim + d, value);
#pragma GCC unroll 8
    for (int q = 0; q < Q; q++) {
      const V weight = set1(p[q][j]);
#pragma GCC unroll 4
      for (int v = 0; v < N; v++) sums[q][v] = fma(weight, value[v], sums[q][v]);
    }
  }
#pragma GCC unroll 8
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) store(queries[q].out + d + 16 * v, sums[q][v]);
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
  float shrink = 1.0f;   // as exp(0) is, to the bit
  if (most == -__builtin_inff()) {
    shrink = 0.0f;
  } else if (most != next) {
    alignas(64) float lanes[16];
    store(lanes, exp(set1(most - next)));
    shrink = lanes[0];
  }
  total = total * shrink + sum_lanes(sum);
  most = next;
  return shrink;
}

inline int within_block(int position) {
  return position < 0 ? 0 : position < kBlock ? position : kBlock;
}

template <class Cache, int Q>
void attend_queries(const Attention& a) {
  using T = typename Cache::T;
  const int head_dim = a.head_dim;
  const long block_size = long{kBlock} * head_dim;
  const Query* queries = a.queries;
  alignas(64) float p[Q][kBlock];
  float most[Q], total[Q], shrink[Q];
  int begin = queries[0].begin, end = queries[0].end;
  for (int q = 0; q < Q; q++) {
    most[q] = -__builtin_inff();
    total[q] = 0.0f;
    begin = queries[q].begin < begin ? queries[q].begin : begin;
    end = queries[q].end > end ? queries[q].end : end;
    for (int d = 0; d < head_dim; d++) queries[q].out[d] = 0.0f;
  }
  for (int block = begin / kBlock; block * kBlock < end; block++) {
    const T* keys = static_cast<const T*>(a.keys) + block * block_size;
    const T* values = static_cast<const T*>(a.values) + block * block_size;
    const int start = block * kBlock;
    block_scores<Cache, Q>(queries, head_dim, keys, p);
    for (int q = 0; q < Q; q++) {
      const int first = within_block(queries[q].begin - start);
      const int last = within_block(queries[q].end - start);
      shrink[q] = 1.0f;
      if (first < last)
        shrink[q] = block_softmax(p[q], first, last, most[q], total[q]);
      else
        for (int j = 0; j < kBlock; j++) p[q][j] = 0.0f;
    }
    const int first = within_block(begin - start), last = within_block(end - start);
    int d = 0;
    for (; d + 64 <= head_dim; d += 64)
      block_values<Cache, Q, 4>(p, shrink, first, last, values, head_dim, queries, d);
    for (; d + 32 <= head_dim; d += 32)
      block_values<Cache, Q, 2>(p, shrink, first, last, values, head_dim, queries, d);
    for (; d < head_dim; d += 16)
      block_values<Cache, Q, 1>(p, shrink, first, last, values, head_dim, queries, d);
  }
  for (int q = 0; q < Q; q++) {
    const V scale = set1(1.0f / total[q]);
    for (int d = 0; d < head_dim; d += 16)
      store(queries[q].out + d, load(queries[q].out + d) * scale);
  }
}

template <class Cache, int Q>
void attend_with(const Attention& a) {
  if constexpr (Q >= 1) {
    if (a.count == Q) return attend_queries<Cache, Q>(a);
    attend_with<Cache, Q - 1>(a);
  }
}

void attend_row(const Attention& a) {
  a.half ? attend_with<HalfCache, kQueries>(a) : attend_with<FullCache, kQueries>(a);
}

}  // namespace
