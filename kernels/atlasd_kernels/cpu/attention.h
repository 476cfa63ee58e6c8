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

// A query's softmax so far.
struct Running {
  float most, total;
};

// scores[q][j] = query q . key j for the first 16 * N positions of a block. `ahead`: what is
// fetched meanwhile, as long as a block's keys.
template <class Cache, int Q, int N>
void block_scores(const Query* queries, int head_dim, const typename Cache::T* keys,
                  const uint8_t* ahead, float (*scores)[kBlock]) {
  V sums[Q][N];
#pragma GCC unroll 8
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) sums[q][v] = zero();
  for (int d = 0; d < head_dim; d++) {
    V key[N];
    Cache::template load_vectors<N>(keys + d * kBlock, key);
    prefetch(ahead + d * 2 * kBlock);
    prefetch(ahead + d * 2 * kBlock + 64);
#pragma GCC unroll 8
    for (int q = 0; q < Q; q++) {
      const V x = set1(queries[q].values[d]);
#pragma GCC unroll 4
      for (int v = 0; v < N; v++) sums[q][v] = fma(x, key[v], sums[q][v]);
    }
  }
#pragma GCC unroll 8
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) store(scores[q] + 16 * v, sums[q][v]);
}

// N vectors, from d on, of out[q] = out[q] * shrink[q] + sum over positions, ascending, of
// p[q][j] * value j; p is zero where a query does not see what another one does.
template <class Cache, int Q, int N>
void block_values(const float (*p)[kBlock], const float* shrink, int first, int last,
                  const typename Cache::T* values, const uint8_t* ahead, int head_dim,
                  const Query* queries, int d) {
  V sums[Q][N];
#pragma GCC unroll 8
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < N; v++)
      sums[q][v] = load(queries[q].out + d + 16 * v) * set1(shrink[q]);
  for (int j = first; j < last; j++) {
    V value[N];
    Cache::template load_vectors<N>(values + long{j} * head_dim + d, value);
    prefetch(ahead + (long{j} * head_dim + d) * 2);
    if (N == 4) prefetch(ahead + (long{j} * head_dim + d) * 2 + 64);
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

inline int within_block(int position) {
  return position < 0 ? 0 : position < kBlock ? position : kBlock;
}

// Turns the scores of Q queries over the first 16 * N positions into weights, zero where a query
// sees nothing; shrink: the factor by which what it summed before shrinks.
template <int Q, int N>
void block_softmax(const Query* queries, int start, float (*scores)[kBlock], Running* running,
                   float* shrink) {
  constexpr int width = 16 * N;
  int first[Q], last[Q];
  alignas(64) float change[16] = {};
#pragma GCC unroll 8
  for (int q = 0; q < Q; q++) {
    first[q] = within_block(queries[q].begin - start);
    last[q] = within_block(queries[q].end - start);
    if (first[q] >= last[q]) continue;
    float* s = scores[q];
    for (int j = 0; j < first[q]; j++) s[j] = -__builtin_inff();
    for (int j = last[q]; j < width; j++) s[j] = -__builtin_inff();
    V largest = load(s);
#pragma GCC unroll 4
    for (int v = 1; v < N; v++) largest = max(largest, load(s + 16 * v));
    const float now = max_lanes(largest);
    const float next = now > running[q].most ? now : running[q].most;
    change[q] = running[q].most - next;   // -inf in the first block: any factor of nothing will do
    running[q].most = next;
  }
  store(shrink, exp(load(change)));
#pragma GCC unroll 8
  for (int q = 0; q < Q; q++) {
    float* s = scores[q];
    V sum = zero();
    if (first[q] < last[q]) {
      const V most = set1(running[q].most);
#pragma GCC unroll 4
      for (int v = 0; v < N; v++) store(s + 16 * v, exp(load(s + 16 * v) - most));
    }
    const int end = first[q] < last[q] ? last[q] : 0;
    for (int j = 0; j < first[q] && end; j++) s[j] = 0.0f;
    for (int j = end; j < width; j++) s[j] = 0.0f;
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) sum = sum + load(s + 16 * v);
    running[q].total = running[q].total * shrink[q] + sum_lanes(sum);
  }
}

// Queries of which some see positions [first, last) of a block.
struct Tile {
  const Query* queries;
  Running* running;
  float (*p)[kBlock];   // their scores, then their weights
  float* shrink;        // [16]
  int count, start, first, last;
};

template <class Cache, int Q>
void tile_scores(const Tile& t, int head_dim, const typename Cache::T* keys,
                 const uint8_t* ahead) {
  if constexpr (Q >= 1) {
    if (t.count < Q) return tile_scores<Cache, Q - 1>(t, head_dim, keys, ahead);
    if (t.last <= kBlock / 2) {
      block_scores<Cache, Q, kBlockVectors / 2>(t.queries, head_dim, keys, ahead, t.p);
      block_softmax<Q, kBlockVectors / 2>(t.queries, t.start, t.p, t.running, t.shrink);
    } else {
      block_scores<Cache, Q, kBlockVectors>(t.queries, head_dim, keys, ahead, t.p);
      block_softmax<Q, kBlockVectors>(t.queries, t.start, t.p, t.running, t.shrink);
    }
  }
}

template <class Cache, int Q>
void tile_values(const Tile& t, int head_dim, const typename Cache::T* values,
                 const uint8_t* ahead) {
  if constexpr (Q >= 1) {
    if (t.count < Q) return tile_values<Cache, Q - 1>(t, head_dim, values, ahead);
    int d = 0;
    for (; d + 64 <= head_dim; d += 64)
      block_values<Cache, Q, 4>(t.p, t.shrink, t.first, t.last, values, ahead, head_dim,
                                 t.queries, d);
    for (; d + 32 <= head_dim; d += 32)
      block_values<Cache, Q, 2>(t.p, t.shrink, t.first, t.last, values, ahead, head_dim,
                                 t.queries, d);
    for (; d < head_dim; d += 16)
      block_values<Cache, Q, 1>(t.p, t.shrink, t.first, t.last, values, ahead, head_dim,
                                 t.queries, d);
  }
}

constexpr int kMostTiles = (kMaxQueries + kQueries - 1) / kQueries;
constexpr int kWideTiles = 7;     // from so many on, it pays to widen a block once for all of them
constexpr int kWideDim = 128;     // of larger heads a block would not stay in the first cache

// What queries have between them while they go through the blocks.
struct Attending {
  Running running[kMaxQueries];
  alignas(64) float p[kMaxQueries][kBlock];
  alignas(64) float shrink[kMostTiles][16];
  alignas(64) float wide[kBlock * kWideDim];   // keys or values of one block
};

// Rows of a bf16 cache as floats.
void widen_block(const uint16_t* from, int rows, int columns, float* to) {
  for (int r = 0; r < rows; r++, from += columns, to += columns) {
    int c = 0;
    for (; c + 32 <= columns; c += 32) {
      V pair[2];
      HalfCache::load_vectors<2>(from + c, pair);
      store(to + c, pair[0]);
      store(to + c + 16, pair[1]);
    }
    if (c < columns) store(to + c, load_bf16(from + c));
  }
}

// All queries over one block, in tiles of nearly equal size.
template <class Cache>
void attend_block(const Attention& a, Attending& state, int tiles, int start, bool more,
                  const typename Cache::T* keys, const typename Cache::T* values) {
  Tile seeing[kMostTiles];
  int count = 0, begin = kBlock, end = 0;
  for (int t = 0; t < tiles; t++) {
    const int from = a.count * t / tiles, to = a.count * (t + 1) / tiles;
    int first = kBlock, last = 0;
    for (int q = from; q < to; q++) {
      const int sees = within_block(a.queries[q].begin - start);
      const int until = within_block(a.queries[q].end - start);
      if (sees >= until) continue;
      first = sees < first ? sees : first;
      last = until > last ? until : last;
    }
    if (first >= last) continue;
    seeing[count++] = {a.queries + from,      state.running + from, state.p + from,
                       state.shrink[t],       to - from,            start,
                       first,                 last};
    begin = first < begin ? first : begin;
    end = last > end ? last : end;
  }
  // The first tile fetches what comes next: the values, then the next block's keys. The others
  // name what is near already.
  const auto bytes = [](const void* p) { return static_cast<const uint8_t*>(p); };
  const uint8_t* next = bytes(more ? keys + kBlock * a.head_dim : values);
  if constexpr (sizeof(typename Cache::T) == 2) {
    if (count >= kWideTiles && a.head_dim <= kWideDim) {
      const uint8_t* near = bytes(state.wide);
      widen_block(keys, a.head_dim, kBlock, state.wide);
      for (int t = 0; t < count; t++)
        tile_scores<FullCache, kQueries>(seeing[t], a.head_dim, state.wide,
                                         t ? near : bytes(values));
      const long skipped = long{begin} * a.head_dim;
      widen_block(values + skipped, end - begin, a.head_dim, state.wide + skipped);
      for (int t = 0; t < count; t++)
        tile_values<FullCache, kQueries>(seeing[t], a.head_dim, state.wide, t ? near : next);
      return;
    }
  }
  for (int t = 0; t < count; t++) {
    tile_scores<Cache, kQueries>(seeing[t], a.head_dim, keys, bytes(t ? keys : values));
    tile_values<Cache, kQueries>(seeing[t], a.head_dim, values, t ? bytes(values) : next);
  }
}

template <class Cache>
void attend_queries(const Attention& a) {
  using T = typename Cache::T;
  Attending state;
  int begin = a.queries[0].begin, end = a.queries[0].end;
  for (int q = 0; q < a.count; q++) {
    state.running[q] = {-__builtin_inff(), 0.0f};
    begin = a.queries[q].begin < begin ? a.queries[q].begin : begin;
    end = a.queries[q].end > end ? a.queries[q].end : end;
    for (int d = 0; d < a.head_dim; d += 16) store(a.queries[q].out + d, zero());
  }
  const int tiles = (a.count + kQueries - 1) / kQueries;
  for (int block = begin / kBlock; block * kBlock < end; block++) {
    const int start = block * kBlock;
    const T* keys = static_cast<const T*>(a.keys) + long{start} * a.head_dim;
    const T* values = static_cast<const T*>(a.values) + long{start} * a.head_dim;
    attend_block<Cache>(a, state, tiles, start, start + kBlock < end, keys, values);
  }
  for (int q = 0; q < a.count; q++) {
    const V scale = set1(1.0f / state.running[q].total);
    for (int d = 0; d < a.head_dim; d += 16)
      store(a.queries[q].out + d, load(a.queries[q].out + d) * scale);
  }
}

void attend_all(const Attention& a) {
  a.half ? attend_queries<HalfCache>(a) : attend_queries<FullCache>(a);
}

}  // namespace
