// Attention over a cache of fp16 numbers with fp16 multiply-adds, of which the processor does 32 at
// a time: scores are sums of 32 dimensions in fp16, outputs of twice 32 positions; outputs go on in
// fp32 from block to block. What is summed with what follows from positions alone.
//
// A query one of whose sums leaves what fp16 tells well is computed again with fp32 sums, all of
// it: whether it is depends, as all of its bits do, on the query and what it sees.
#pragma once
#include <algorithm>
#include <cstring>

#include "attention.h"
#include "attention_fp16_softmax.h"

namespace {

struct CachedFp16 {
  uint16_t bits;

  template <int N>
  static ATLASD_INLINE void load(const CachedFp16* from, V* out) {
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) out[v].v = _mm512_cvtxph_ps(_mm256_loadu_ph(from + 16 * v));
  }
};

constexpr int kHalfQueries = 12;   // whose sums over two vectors fit the register file

// What queries have between them while they go through the blocks.
struct HalfAttending {
  HalfRunning running[kMaxQueries];
  bool beyond[kMaxQueries];   // what fp16 sums can tell: to be computed with fp32 sums
  int left;                   // queries that are not
  alignas(64) uint16_t queries[kHalfGroups][kMaxQueries][kHalf];
  alignas(64) uint16_t sums[kHalfGroups][kHalfQueries][kBlock];
  alignas(64) uint16_t p[kHalfQueries][kBlock];
};

// Queries of which some see positions [first, last) of the block at `start`.
struct HalfTile {
  const Query* queries;
  HalfRunning* running;
  int from, count, start, first, last;
  const uint16_t *keys, *values;
  const uint16_t* next;   // what comes behind the values
};

// sums[q][j] = query q . key j over `Dims` dimensions, for the first 32 * N positions of a block.
template <int Q, int N, bool Fetch, int Dims>
ATLASD_INLINE void half_scores(const uint16_t (*queries)[kHalf], const uint16_t* keys,
                               const uint16_t* ahead, uint16_t (*sums)[kBlock]) {
  Fp16 sum[Q][N];
#pragma GCC unroll 16
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 2
    for (int v = 0; v < N; v++) sum[q][v] = _mm512_setzero_ph();
#pragma GCC unroll 4
  for (int d = 0; d < Dims; d++) {
    Fp16 key[N];
#pragma GCC unroll 2
    for (int v = 0; v < N; v++) key[v] = half_load(keys + d * kBlock + kHalf * v);
    if (Fetch)
      for (int line = 0; line < 2; line++) prefetch_in_turn(ahead + d * kBlock + kHalf * line);
#pragma GCC unroll 16
    for (int q = 0; q < Q; q++)
#pragma GCC unroll 2
      for (int v = 0; v < N; v++) sum[q][v] = add_product(sum[q][v], key[v], queries[q] + d);
  }
#pragma GCC unroll 16
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 2
    for (int v = 0; v < N; v++) half_store(sums[q] + kHalf * v, sum[q][v]);
}

// dims: head_dim; of most models the compiler knows it.
template <int N>
ATLASD_INLINE void half_softmaxes(const HalfTile& t, int dims, HalfAttending& state) {
  const HalfConstants constants;
  for (int q = 0; q < t.count; q++) {
    bool& beyond = state.beyond[t.from + q];
    const uint64_t seen = beyond ? 0 : seen_by(t.queries[q], t.start);
    if (half_softmax<N>(constants, t.queries[q], dims, seen, state.sums[0][q],
                        kHalfQueries * kBlock, state.p[q], t.running[q]))
      continue;
    beyond = true;
    state.left--;
    std::memset(state.p[q], 0, sizeof state.p[q]);
  }
}

template <int N>
__attribute__((noinline)) void half_softmax_tile(const HalfTile& t, int head_dim,
                                                 HalfAttending& state) {
  if (head_dim == 64) half_softmaxes<N>(t, 64, state);
  else if (head_dim == 128) half_softmaxes<N>(t, 128, state);
  else half_softmaxes<N>(t, head_dim, state);
}

template <int Q, int N, bool Fetch>
void half_weights(const HalfTile& t, int head_dim, HalfAttending& state) {
  int d = 0;
  for (; d + kHalf <= head_dim; d += kHalf)
    half_scores<Q, N, Fetch, kHalf>(state.queries[d / kHalf] + t.from, t.keys + d * kBlock,
                                    t.values + d * kBlock, state.sums[d / kHalf]);
  if (d < head_dim)
    half_scores<Q, N, Fetch, kHalf / 2>(state.queries[d / kHalf] + t.from, t.keys + d * kBlock,
                                        t.values + d * kBlock, state.sums[d / kHalf]);
  half_softmax_tile<N>(t, head_dim, state);
}

// Adds p[q][j] * value j, positions [first, last), to dimensions d to d + 32 * N of out[q]; to the
// first 16 of them if `lanes` says so.
template <int Q, int N, bool Fetch>
void half_values(const HalfTile& t, int head_dim, const uint16_t (*p)[kBlock], int d,
                 __mmask32 lanes) {
  Fp16 sums[kHalfVectors][Q][N];
#pragma GCC unroll 2
  for (int part = 0; part < kHalfVectors; part++) {
    auto& sum = sums[part];
#pragma GCC unroll 16
    for (int q = 0; q < Q; q++)
#pragma GCC unroll 2
      for (int v = 0; v < N; v++) sum[q][v] = _mm512_setzero_ph();
    const int first = std::max(t.first, kHalf * part), last = std::min(t.last, kHalf * (part + 1));
#pragma GCC unroll 4
    for (int j = first; j < last; j++) {
      const long at = long{j} * head_dim + d;
      Fp16 value[N];
#pragma GCC unroll 2
      for (int v = 0; v < N; v++)
        value[v] = N == 1 ? _mm512_castsi512_ph(_mm512_maskz_loadu_epi16(lanes, t.values + at))
                          : half_load(t.values + at + kHalf * v);
      if (Fetch)
        for (int v = 0; v < N; v++) prefetch_in_turn(t.next + at + kHalf * v);
#pragma GCC unroll 16
      for (int q = 0; q < Q; q++)
#pragma GCC unroll 2
        for (int v = 0; v < N; v++) sum[q][v] = add_product(sum[q][v], value[v], p[q] + j);
    }
  }
#pragma GCC unroll 16
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 2
    for (int v = 0; v < N; v++) {
      const Fp16 sum = _mm512_add_ph(sums[0][q][v], sums[1][q][v]);
      float* out = t.queries[q].out + d + kHalf * v;
      store(out, load(out) + V{_mm512_cvtxph_ps(low_half(sum))});
      if (N > 1 || lanes >> 16) store(out + 16, load(out + 16) + V{_mm512_cvtxph_ps(high_half(sum))});
    }
}

template <bool Fetch, int Q = kHalfQueries>
void half_tile(const HalfTile& t, int head_dim, HalfAttending& state) {
  if constexpr (Q >= 1) {
    if (t.count < Q) return half_tile<Fetch, Q - 1>(t, head_dim, state);
    if (t.last <= kHalf) half_weights<Q, 1, Fetch>(t, head_dim, state);
    else half_weights<Q, 2, Fetch>(t, head_dim, state);
    int d = 0;
    for (; d + 2 * kHalf <= head_dim; d += 2 * kHalf)
      half_values<Q, 2, Fetch>(t, head_dim, state.p, d, 0);
    for (; d < head_dim; d += kHalf)
      half_values<Q, 1, Fetch>(t, head_dim, state.p, d, ~__mmask32{0} >> (head_dim - d < kHalf) * 16);
  }
}

void half_begin(const Attention& a, HalfAttending& state) {
  const V scale = set1(1.44269504f / kScoreUnit);
  state.left = a.count;
  for (int q = 0; q < a.count; q++) {
    state.running[q].begin();
    state.beyond[q] = false;
    for (int d = 0; d < a.head_dim; d += 16) {
      const __m256h rounded = _mm512_cvtxps_ph((load(a.queries[q].values + d) * scale).v);
      _mm256_store_ph(state.queries[d / kHalf][q] + d % kHalf, rounded);
      store(a.queries[q].out + d, zero());
    }
  }
}

// Divides by the totals; those that went beyond fp16 are computed again.
void half_finish(const Attention& a, const HalfAttending& state) {
  Query again[kMaxQueries];
  int count = 0;
  for (int q = 0; q < a.count; q++) {
    const Query& query = a.queries[q];
    bool beyond = state.beyond[q];
    const V scale = set1(1.0f / sum_lanes(load(state.running[q].total)));
    for (int d = 0; d < a.head_dim; d += 16) {
      const V out = load(query.out + d) * scale;
      constexpr int kInfiniteOrNone = 0x99;
      beyond |= _mm512_fpclass_ps_mask(out.v, kInfiniteOrNone) != 0;
      store(query.out + d, out);
    }
    if (beyond) again[count++] = query;
  }
  if (count)
    attend_queries<CachedFp16>({again, count, a.head_dim, a.keys, a.values, a.numbers});
}

void half_attend(const Attention& a) {
  if (a.head_dim > kHalfGroups * kHalf) return attend_queries<CachedFp16>(a);
  HalfAttending state;
  half_begin(a, state);
  const Cut cut(a, kHalfQueries);
  for (int start = cut.begin / kBlock * kBlock; start < cut.end && state.left; start += kBlock) {
    const uint16_t* keys = static_cast<const uint16_t*>(a.keys) + long{start} * a.head_dim;
    const uint16_t* values = static_cast<const uint16_t*>(a.values) + long{start} * a.head_dim;
    const uint16_t* next = start + kBlock < cut.end ? keys + kBlock * a.head_dim : values;
    // the first tile that sees something of the block fetches what comes next for all
    bool fetched = false;
    for (int t = 0; t < cut.count; t++) {
      const Together& s = cut.tiles[t];
      const int first = within_block(s.begin - start), last = within_block(s.end - start);
      if (first >= last) continue;
      const HalfTile tile{a.queries + s.from, state.running + s.from, s.from, s.to - s.from,
                          start,              first,                  last,   keys,
                          values,             next};
      if (fetched) half_tile<false>(tile, a.head_dim, state);
      else half_tile<true>(tile, a.head_dim, state);
      fetched = true;
    }
  }
  half_finish(a, state);
}

// One position's key and value, as cache_row takes them. Nothing infinite is ever stored: what a
// query does not see is multiplied by zero.
void half_cache_row(const float* k, const float* v, int dim, int place, void* keys, void* value) {
  uint16_t* ko = static_cast<uint16_t*>(keys) + place;
  const V most = set1(65504.0f), least = set1(-65504.0f);
  for (int d = 0; d < dim; d += 16) {
    alignas(32) uint16_t column[16];
    // of a number and none, min returns the second
    _mm256_store_ph(column, _mm512_cvtxps_ph(max(min(load(k + d), most), least).v));
    for (int i = 0; i < 16; i++) ko[(d + i) * kBlock] = column[i];
    _mm256_storeu_ph(static_cast<uint16_t*>(value) + d,
                     _mm512_cvtxps_ph(max(min(load(v + d), most), least).v));
  }
}

}  // namespace
