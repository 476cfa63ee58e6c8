// Attention over KV blocks at absolute positions, in ascending order, with a running softmax. Rows
// of one slot share each load of keys and values, and nothing else: what a row computes depends on
// its query and positions [begin, end).
#pragma once
#include "attention_reading.h"
#include "attention_softmax.h"

namespace {

// scores[q][j] = query q . key j for 16 * N positions of a block from `place` on.
template <int Q, int N, class From>
void block_scores(const Query* queries, int head_dim, const From& keys, int place,
                  float (*scores)[kBlock]) {
  V sums[Q][N];
#pragma GCC unroll 8
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) sums[q][v] = zero();
#pragma GCC unroll 2
  for (int d = 0; d < head_dim; d++) {
    V key[N];
    keys.template load<N>(long{d} * kBlock + place, key);
    keys.template fetch<From::kVectors>(long{d} * kBlock + place);
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
    for (int v = 0; v < N; v++) store(scores[q] + place + 16 * v, sums[q][v]);
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
  constexpr int vectors = N < From::kVectors ? N : From::kVectors;
  for (int v = 0; v < N; v += vectors)
    block_scores<Q, vectors>(t.queries, head_dim, keys, 16 * v, t.p);
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
    if constexpr (From::kVectors > 1) {
      for (; d + 64 <= head_dim; d += 64)
        block_values<Q, 4>(t.queries, head_dim, values, t.p, t.first, t.last, d);
      for (; d + 32 <= head_dim; d += 32)
        block_values<Q, 2>(t.queries, head_dim, values, t.p, t.first, t.last, d);
    }
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

// Where registers are few, a block is widened before its tiles: none of them has room for that.
// Rows [first, last) of so many numbers each.
template <class From>
void widen_rows(const From& block, int first, int last, int numbers) {
  for (int row = first; row < last; row++) {
    const long begin = long{row} * numbers, end = begin + numbers;
    V floats[2];
    for (long at = begin; at + 32 <= end; at += 32) {
      block.template load<2>(at, floats);
      if (at % 64 == 0) block.template fetch<4>(at);
    }
    if (numbers % 32) block.template load<1>(end - 16, floats);
  }
}

// What queries have between them while they go through the blocks.
struct Attending {
  Running running[kMaxQueries];
  alignas(64) float p[kMaxQueries][kBlock];
  alignas(64) float wide[kBlock * kWideDim];   // keys or values of one block
};

// Queries [from, to), which see nothing outside of positions [begin, end).
struct Together {
  int from, to, begin, end;
};

// All queries in tiles of nearly equal size, of at most `most`.
struct Cut {
  Together tiles[kMostTiles];
  int count, begin, end;

  Cut(const Attention& a, int most)
      : count((a.count + most - 1) / most), begin(a.queries[0].begin), end(a.queries[0].end) {
    for (int t = 0; t < count; t++) {
      const int from = a.count * t / count, to = a.count * (t + 1) / count;
      Together& tile = tiles[t];
      tile = {from, to, a.queries[from].begin, a.queries[from].end};
      for (int q = from; q < to; q++) {
        tile.begin = a.queries[q].begin < tile.begin ? a.queries[q].begin : tile.begin;
        tile.end = a.queries[q].end > tile.end ? a.queries[q].end : tile.end;
      }
      begin = tile.begin < begin ? tile.begin : begin;
      end = tile.end > end ? tile.end : end;
    }
  }
};

// All queries over one block.
template <class T>
void attend_block(const Attention& a, Attending& state, const Cut& cut, int start, const T* keys,
                  const T* values) {
  Tile seeing[kMostTiles];
  int count = 0, begin = kBlock, end = 0;
  for (int t = 0; t < cut.count; t++) {
    const Together& s = cut.tiles[t];
    const int first = within_block(s.begin - start), last = within_block(s.end - start);
    if (first >= last) continue;
    seeing[count++] = {a.queries + s.from, state.running + s.from, state.p + s.from,
                       s.to - s.from,      start,                  first,
                       last};
    begin = first < begin ? first : begin;
    end = last > end ? last : end;
  }
  // The first tile fetches what comes next: the values, then the next block's keys. The others, if
  // they read the cache itself, name what is near already.
  const auto bytes = [](const void* p) { return static_cast<const uint8_t*>(p); };
  const uint8_t* next = bytes(start + kBlock < cut.end ? keys + kBlock * a.head_dim : values);
  if constexpr (sizeof(T) == 4) {
    for (int t = 0; t < count; t++) {
      tile_weights(seeing[t], a.head_dim, Floats{{keys}, bytes(t ? keys : values)});
      tile_values(seeing[t], a.head_dim, Floats{{values}, t ? bytes(values) : next});
    }
  } else if (kFloatVectors == 1 && a.head_dim <= kWideDim) {
    widen_rows(Widened<T>{{keys, bytes(values)}, state.wide}, 0, a.head_dim, kBlock);
    for (int t = 0; t < count; t++) tile_weights(seeing[t], a.head_dim, Near{state.wide});
    widen_rows(Widened<T>{{values, next}, state.wide}, begin, end, a.head_dim);
    for (int t = 0; t < count; t++) tile_values(seeing[t], a.head_dim, Near{state.wide});
  } else if (count < widened_tiles(a.head_dim)) {
    for (int t = 0; t < count; t++) {
      tile_weights(seeing[t], a.head_dim, Halves<T>{keys, bytes(t ? keys : values)});
      tile_values(seeing[t], a.head_dim, Halves<T>{values, t ? bytes(values) : next});
    }
  } else {
    // the first one reads all that any of them does
    seeing[0].first = begin;
    seeing[0].last = end;
    tile_weights(seeing[0], a.head_dim, Widened<T>{{keys, bytes(values)}, state.wide});
    for (int t = 1; t < count; t++) tile_weights(seeing[t], a.head_dim, Near{state.wide});
    tile_values(seeing[0], a.head_dim, Widened<T>{{values, next}, state.wide});
    for (int t = 1; t < count; t++) tile_values(seeing[t], a.head_dim, Near{state.wide});
  }
}

template <class T>
void attend_queries(const Attention& a) {
  Attending state;
  for (int q = 0; q < a.count; q++) {
    state.running[q].most = -__builtin_inff();
    store(state.running[q].total, zero());
    for (int d = 0; d < a.head_dim; d += 16) store(a.queries[q].out + d, zero());
  }
  const Cut cut(a, kQueries);
  for (int start = cut.begin / kBlock * kBlock; start < cut.end; start += kBlock) {
    const T* keys = static_cast<const T*>(a.keys) + long{start} * a.head_dim;
    const T* values = static_cast<const T*>(a.values) + long{start} * a.head_dim;
    attend_block(a, state, cut, start, keys, values);
  }
  for (int q = 0; q < a.count; q++) {
    const V scale = set1(1.0f / sum_lanes(load(state.running[q].total)));
    for (int d = 0; d < a.head_dim; d += 16)
      store(a.queries[q].out + d, load(a.queries[q].out + d) * scale);
  }
}

}  // namespace
