// Attention over KV blocks at absolute positions, in ascending order, with a running softmax. Rows
// of one slot share each load of keys and values, and nothing else: what a row computes depends on
// its query and positions [begin, end).
#pragma once
#include "attention_softmax.h"

namespace {

// What a tile of queries reads keys or values from: N vectors of 16 floats at a time, and what it
// fetches meanwhile of what comes next. This one: floats of which the first tile has left them.
struct Near {
  const float* from;

  template <int N>
  ATLASD_INLINE void load(long at, V* out) const {
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) out[v] = ::load(from + at + 16 * v);
  }
  template <int N>
  ATLASD_INLINE void fetch(long) const {}
};

// An fp32 cache.
struct Floats : Near {
  const uint8_t* ahead;

  template <int N>
  ATLASD_INLINE void fetch(long at) const {
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) prefetch(ahead + 4 * at + 64 * v);
  }
};

// A bf16 cache, in pairs (i, i + 16) of 32 elements, as weights are; a single 16 lies as it is.
struct Halves {
  const uint16_t* from;
  const uint8_t* ahead;

  template <int N>
  ATLASD_INLINE void load(long at, V* out) const {
    if (N == 1) out[0] = load_bf16(from + at);
#pragma GCC unroll 2
    for (int v = 0; v + 1 < N; v += 2) load_bf16_pairs(from + at + 16 * v, out[v], out[v + 1]);
  }
  template <int N>
  ATLASD_INLINE void fetch(long at) const {
    prefetch(ahead + 2 * at);
    if (N == 4) prefetch(ahead + 2 * at + 64);
  }
};

// The same for the first of several tiles, which leaves the floats for the others.
struct Widened : Halves {
  float* wide;

  template <int N>
  ATLASD_INLINE void load(long at, V* out) const {
    Halves::load<N>(at, out);
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) store(wide + at + 16 * v, out[v]);
  }
};

// scores[q][j] = query q . key j for the first 16 * N positions of a block.
template <int Q, int N, class From>
void block_scores(const Query* queries, int head_dim, const From& keys, float (*scores)[kBlock]) {
  V sums[Q][N];
#pragma GCC unroll 8
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) sums[q][v] = zero();
#pragma GCC unroll 2
  for (int d = 0; d < head_dim; d++) {
    V key[N];
    keys.template load<N>(long{d} * kBlock, key);
    keys.template fetch<kBlockVectors>(long{d} * kBlock);
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

// Adds p[q][j] * value j, positions [first, last) ascending, to N vectors of out[q] from d on; p is
// zero where a query does not see what another one does.
template <int Q, int N, class From>
void block_values(const Query* queries, int head_dim, const From& values, const float (*p)[kBlock],
                  int first, int last, int d) {
  V sums[Q][N];
#pragma GCC unroll 8
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) sums[q][v] = load(queries[q].out + d + 16 * v);
#pragma GCC unroll 2
  for (int j = first; j < last; j++) {
    V value[N];
    values.template load<N>(long{j} * head_dim + d, value);
    values.template fetch<N>(long{j} * head_dim + d);
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

// Queries of which some see positions [first, last) of a block.
struct Tile {
  const Query* queries;
  Running* running;
  float (*p)[kBlock];   // their scores, then their weights
  int count, start, first, last;
};

template <int Q, int N, class From>
void tile_weights(const Tile& t, int head_dim, const From& keys) {
  block_scores<Q, N>(t.queries, head_dim, keys, t.p);
  for (int q = 0; q < Q; q++)
    block_softmax<N>(t.queries[q], head_dim, t.start, t.p[q], t.running[q]);
}

template <int Q = kQueries, class From>
void tile_weights(const Tile& t, int head_dim, const From& keys) {
  if constexpr (Q >= 1) {
    if (t.count < Q) return tile_weights<Q - 1>(t, head_dim, keys);
    if (t.last <= kBlock / 2)
      tile_weights<Q, kBlockVectors / 2>(t, head_dim, keys);
    else
      tile_weights<Q, kBlockVectors>(t, head_dim, keys);
  }
}

template <int Q = kQueries, class From>
void tile_values(const Tile& t, int head_dim, const From& values) {
  if constexpr (Q >= 1) {
    if (t.count < Q) return tile_values<Q - 1>(t, head_dim, values);
    int d = 0;
    for (; d + 64 <= head_dim; d += 64)
      block_values<Q, 4>(t.queries, head_dim, values, t.p, t.first, t.last, d);
    for (; d + 32 <= head_dim; d += 32)
      block_values<Q, 2>(t.queries, head_dim, values, t.p, t.first, t.last, d);
    for (; d < head_dim; d += 16)
      block_values<Q, 1>(t.queries, head_dim, values, t.p, t.first, t.last, d);
  }
}

constexpr int kMostTiles = (kMaxQueries + kQueries - 1) / kQueries;
constexpr int kWideDim = 128;   // of larger heads a block would not stay in the first cache

// From so many tiles on, widening a block once for all of them pays: larger blocks crowd the cache.
inline int widened_tiles(int head_dim) {
  return head_dim <= 64 ? 2 : head_dim <= kWideDim ? 4 : kMostTiles + 1;
}

// What queries have between them while they go through the blocks.
struct Attending {
  Running running[kMaxQueries];
  alignas(64) float p[kMaxQueries][kBlock];
  alignas(64) float wide[kBlock * kWideDim];   // keys or values of one block
};

// All queries over one block, in tiles of nearly equal size.
template <class T>
void attend_block(const Attention& a, Attending& state, int tiles, int start, bool more,
                  const T* keys, const T* values) {
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
    seeing[count++] = {a.queries + from, state.running + from, state.p + from, to - from,
                       start,            first,                last};
    begin = first < begin ? first : begin;
    end = last > end ? last : end;
  }
  // The first tile fetches what comes next: the values, then the next block's keys. The others, if
  // they read the cache itself, name what is near already.
  const auto bytes = [](const void* p) { return static_cast<const uint8_t*>(p); };
  const uint8_t* next = bytes(more ? keys + kBlock * a.head_dim : values);
  if constexpr (sizeof(T) == 4) {
    for (int t = 0; t < count; t++) {
      tile_weights(seeing[t], a.head_dim, Floats{{keys}, bytes(t ? keys : values)});
      tile_values(seeing[t], a.head_dim, Floats{{values}, t ? bytes(values) : next});
    }
  } else if (count < widened_tiles(a.head_dim)) {
    for (int t = 0; t < count; t++) {
      tile_weights(seeing[t], a.head_dim, Halves{keys, bytes(t ? keys : values)});
      tile_values(seeing[t], a.head_dim, Halves{values, t ? bytes(values) : next});
    }
  } else {
    // the first one reads all that any of them does
    seeing[0].first = begin;
    seeing[0].last = end;
    tile_weights(seeing[0], a.head_dim, Widened{{keys, bytes(values)}, state.wide});
    for (int t = 1; t < count; t++) tile_weights(seeing[t], a.head_dim, Near{state.wide});
    tile_values(seeing[0], a.head_dim, Widened{{values, next}, state.wide});
    for (int t = 1; t < count; t++) tile_values(seeing[t], a.head_dim, Near{state.wide});
  }
}

template <class T>
void attend_queries(const Attention& a) {
  Attending state;
  int begin = a.queries[0].begin, end = a.queries[0].end;
  for (int q = 0; q < a.count; q++) {
    state.running[q].most = -__builtin_inff();
    store(state.running[q].total, zero());
    begin = a.queries[q].begin < begin ? a.queries[q].begin : begin;
    end = a.queries[q].end > end ? a.queries[q].end : end;
    for (int d = 0; d < a.head_dim; d += 16) store(a.queries[q].out + d, zero());
  }
  const int tiles = (a.count + kQueries - 1) / kQueries;
  for (int block = begin / kBlock; block * kBlock < end; block++) {
    const int start = block * kBlock;
    const T* keys = static_cast<const T*>(a.keys) + long{start} * a.head_dim;
    const T* values = static_cast<const T*>(a.values) + long{start} * a.head_dim;
    attend_block(a, state, tiles, start, start + kBlock < end, keys, values);
  }
  for (int q = 0; q < a.count; q++) {
    const V scale = set1(1.0f / sum_lanes(load(state.running[q].total)));
    for (int d = 0; d < a.head_dim; d += 16)
      store(a.queries[q].out + d, load(a.queries[q].out + d) * scale);
  }
}

void attend_all(const Attention& a) {
  a.half ? attend_queries<uint16_t>(a) : attend_queries<float>(a);
}

}  // namespace
