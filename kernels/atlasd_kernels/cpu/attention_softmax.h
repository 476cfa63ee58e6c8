// A query's softmax over KV blocks: what it has seen so far, and a block's scores made weights.
#pragma once

namespace {

constexpr int kBlockVectors = kBlock / 16;

inline int within_block(int position) {
  return position < 0 ? 0 : position < kBlock ? position : kBlock;
}

// exp of what is far below 88; under -87 about 1e-38, never a denormal. Relative error 1.5e-7.
inline V exp_weight(V x) {
  const V turn = set1(12582912.0f);   // 1.5 * 2^23: what it is added to is rounded to whole numbers
  x = max(x, set1(-87.0f));
  const V shifted = fma(x, set1(1.44269504f), turn);
  const V r = fma(shifted - turn, set1(-0.69314718f), x);
  V p = set1(8.2902889699e-3f);
  p = fma(p, r, set1(4.1898071766e-2f));
  p = fma(p, r, set1(1.6667637229e-1f));
  p = fma(p, r, set1(4.9999147654e-1f));
  p = fma(p, r, set1(9.9999970198e-1f));
  p = fma(p, r, set1(1.0f));
  return from_bits(bits(p) + shift_left<23>(bits(shifted)));
}

struct Ones {
  alignas(64) int32_t lanes[2 * kBlock] = {};
  constexpr Ones() {
    for (int i = 0; i < kBlock; i++) lanes[i] = -1;
  }
};

// Ones in the lanes of a block's vector v that lie in [first, last).
inline I lanes_between(int first, int last, int v) {
  static constexpr Ones ones;
  const int32_t* from = ones.lanes + kBlock + 16 * v;
  return iload(from - first) ^ iload(from - last);
}

// A query's softmax so far, in units of exp(most). That follows the largest score only where it
// has grown by more than kGrowth, rare behind the first block: sums need not shrink each time, and
// stay far from what a float holds.
constexpr float kGrowth = 8.0f;
struct Running {
  alignas(64) float total[16];   // lane by lane
  float most;
};

// Turns a query's scores over the first 16 * N positions of the block at `start` into weights, zero
// where it sees nothing.
template <int N>
void block_softmax(const Query& query, int head_dim, int start, float* scores, Running& running) {
  const int first = within_block(query.begin - start), last = within_block(query.end - start);
  const bool sees_all = first == 0 && last >= 16 * N;
  V s[N];
#pragma GCC unroll 4
  for (int v = 0; v < N; v++) s[v] = load(scores + 16 * v);
  if (!sees_all) {
    if (first >= last) {
#pragma GCC unroll 4
      for (int v = 0; v < N; v++) store(scores + 16 * v, zero());
      return;
    }
    const I nothing = bits(set1(-__builtin_inff()));
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) {
      const I seen = lanes_between(first, last, v);
      s[v] = from_bits(nothing ^ ((bits(s[v]) ^ nothing) & seen));
    }
  }
  V largest = s[0];
#pragma GCC unroll 4
  for (int v = 1; v < N; v++) largest = max(largest, s[v]);
  V total = load(running.total);
  if (any_greater(largest, set1(running.most + kGrowth))) {
    const float before = running.most;
    running.most = max_lanes(largest);
    if (before > -__builtin_inff()) {
      const V shrink = exp_weight(set1(before - running.most));
      total = total * shrink;
      for (int d = 0; d < head_dim; d += 16) store(query.out + d, load(query.out + d) * shrink);
    }
  }
  const V most = set1(running.most);
#pragma GCC unroll 4
  for (int v = 0; v < N; v++) {
    s[v] = exp_weight(s[v] - most);
    if (!sees_all) s[v] = from_bits(bits(s[v]) & lanes_between(first, last, v));
    total = total + s[v];
    store(scores + 16 * v, s[v]);
  }
  store(running.total, total);
}

}  // namespace
