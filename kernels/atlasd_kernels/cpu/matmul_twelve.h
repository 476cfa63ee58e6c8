// bf16 weights in twelve bits (twelve.h): the sums and the order of matmul_float.h, hence its bits.
//
// Where one core is bound by reading weights, a quarter less of them is a quarter less time; where
// it is bound by multiply-adds, what counts is how little decoding adds to them on the same ports.
// Twelve operations give eight vectors of sixteen floats, where plain bf16 takes eight: six weights
// need only their spare bits overwritten (those of low halves are loaded two bytes early, which
// shifts them without an instruction), the other two are put together in one register.
#pragma once
#include "twelve.h"

namespace {

constexpr long kTwelveAhead = 3072;   // bytes to fetch ahead of a panel's stream
constexpr int kTwelvePaired = 4;      // rows of two panels at a time
constexpr int kDeepRows = 10;         // where one of several blocks also decodes for the others

// What decoding takes bits by. Kept, since making one again in the loop takes a port that the
// multiply-adds need.
struct TwelveMasks {
  I whole = kept(iset1(static_cast<int32_t>(0x87FF0000)));
  I base = kept(iset1(kTwelveWindow << 23));
  I exponents = kept(iset1(0x78007800));
  I turned = kept(iset1(static_cast<int32_t>(0x87878787)));
};

// Eight k of 16 columns, asked for one after the other.
struct TwelveSide {
  const uint8_t* data;
  const TwelveMasks& masks;
  I last;   // the last two weights, with anything in the spare bits

  I vector(int number, int bytes) const { return iload(data + 64 * number + bytes); }

  template <int K>
  inline V weight() {
    const auto& [whole, base, exponents, turned] = masks;
    if constexpr (K < 6)
      return from_bits(keep_and_set(vector(K / 2, K % 2 ? 0 : -2), whole, base));
    if constexpr (K == 6) {
      // exponents of X beside what Y has, turned to where a float keeps them, and Z's between
      const I ends = select(exponents, vector(0, 0), vector(1, 1));
      last = select(turned, rotate_right<4>(ends), vector(2, 1));
    }
    return from_bits(keep_and_set(K == 6 ? shift_left<16>(last) : last, whole, base));
  }
};

// What is left to read of a panel.
struct TwelveStream {
  const uint8_t* data;
  const int32_t* plain;   // the next plain group
  float back;             // what undoes the move

  TwelveStream() = default;
  TwelveStream(const Matrix& m, long panel) {
    const TwelvePanel& p = reinterpret_cast<const TwelvePanel*>(m.data)[panel];
    const int32_t bits = (127 - p.moved) << 23;
    data = m.data + p.groups;
    plain = reinterpret_cast<const int32_t*>(m.data) + p.plain;
    __builtin_memcpy(&back, &bits, 4);
  }
};

// Hands the 32 columns of each k of group g to f(k inside the group, low, high), and goes on to
// the next.
template <int K = 0, class F>
ATLASD_INLINE void twelve_weights(TwelveSide& low, TwelveSide& high, F&& f) {
  if constexpr (K < kTwelveGroup) {
    if constexpr (K < 6) prefetch(low.data + kTwelveAhead + 64 * K);
    const V a = low.weight<K>(), b = high.weight<K>();
    f(K, a, b);
    twelve_weights<K + 1>(low, high, f);
  }
}

template <class F>
ATLASD_INLINE void next_group(TwelveStream& s, long g, const TwelveMasks& masks, F&& f) {
  if (__builtin_expect(*s.plain == g, 0)) {
    for (int k = 0; k < kTwelveGroup; k += 2, s.data += 128) {
      V a[2], b[2];
      Bf16::load_panel(s.data, a, b);
      prefetch(s.data + kTwelveAhead);
      prefetch(s.data + kTwelveAhead + 64);
      f(k, a[0], b[0]);
      f(k + 1, a[1], b[1]);
    }
    s.plain++;
    return;
  }
  TwelveSide low{s.data, masks, {}}, high{s.data + kTwelveSide, masks, {}};
  twelve_weights(low, high, f);
  s.data += kTwelveBytes;
}

template <int R, int P>
void twelve_block(const Matrix& m, long panel, const Rows& x, const Output& out) {
  V low[P][R], high[P][R];
  TwelveStream streams[P];
#pragma GCC unroll 2
  for (int p = 0; p < P; p++) {
    streams[p] = TwelveStream(m, panel + p);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) low[p][r] = high[p][r] = zero();
  }
  const TwelveMasks masks;
  const float* values = x.values;
  for (long g = 0; g < m.k / kTwelveGroup; g++, values += kTwelveGroup)
#pragma GCC unroll 2
    for (int p = 0; p < P; p++)
      next_group(streams[p], g, masks, [&](int k, V a, V b) ATLASD_INLINE_LAMBDA {
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
          const V xr = set1(values[r * x.ld + k]);
          low[p][r] = fma(xr, a, low[p][r]);
          high[p][r] = fma(xr, b, high[p][r]);
        }
      });
#pragma GCC unroll 2
  for (int p = 0; p < P; p++) {
    const V back = set1(streams[p].back);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
      finish(out, r, panel + p, low[p][r] * back, high[p][r] * back);
  }
}

template <int R, int P>
void twelve_rows(int rows, const Matrix& m, long panel, const Rows& x, const Output& out) {
  if constexpr (R >= 1) {
    if (rows == R) return twelve_block<R, P>(m, panel, x, out);
    twelve_rows<R - 1, P>(rows, m, panel, x, out);
  }
}

// More rows than fit the registers: the first of them leave the weights as they were decoded, in
// the first cache, for the others.
constexpr int kTwelveDepth = 128;   // k at a time
constexpr long kTwelveMost = 64;    // rows whose sums wait meanwhile

struct Decoded {
  alignas(64) float weights[kTwelveDepth][kPanel];
  alignas(64) float sums[kTwelveMost][kPanel];
};

// Multiplies R rows by what `each` hands over: k, and the weights' columns.
template <int R, class F>
ATLASD_INLINE void add_rows(const float* x, long ld, float (*sums)[kPanel], F&& each) {
  V low[R], high[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) low[r] = load(sums[r]), high[r] = load(sums[r] + 16);
  each([&](long k, V a, V b) ATLASD_INLINE_LAMBDA {
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const V xr = set1(x[r * ld + k]);
      low[r] = fma(xr, a, low[r]);
      high[r] = fma(xr, b, high[r]);
    }
  });
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) store(sums[r], low[r]), store(sums[r] + 16, high[r]);
}

// Rows over `depth` k from `first` on; `stream` is null where these are decoded already.
template <int R>
void deep_rows(int rows, TwelveStream* stream, const Rows& x, long row, long first, long depth,
               Decoded& d, long place) {
  if constexpr (R >= 1) {
    if (rows < R) return deep_rows<R - 1>(rows, stream, x, row, first, depth, d, place);
    const float* values = x.values + row * x.ld + first;
    if (!stream)
      return add_rows<R>(values, x.ld, d.sums + place, [&](auto&& add) ATLASD_INLINE_LAMBDA {
#pragma GCC unroll 4
        for (long k = 0; k < depth; k++) add(k, load(d.weights[k]), load(d.weights[k] + 16));
      });
    const TwelveMasks masks;
    add_rows<R>(values, x.ld, d.sums + place, [&](auto&& add) ATLASD_INLINE_LAMBDA {
      for (long k = 0; k < depth; k += kTwelveGroup) {
        const long group = (first + k) / kTwelveGroup;
        next_group(*stream, group, masks, [&](int i, V a, V b) ATLASD_INLINE_LAMBDA {
          store(d.weights[k + i], a);
          store(d.weights[k + i] + 16, b);
          add(k + i, a, b);
        });
      }
    });
  }
}

void deep_panel(const Matrix& m, long panel, const Rows& x, long row, long rows,
                const Output& out) {
  Decoded d;
  for (long r = 0; r < rows; r++) {
    store(d.sums[r], zero());
    store(d.sums[r] + 16, zero());
  }
  const long block = block_rows(rows, kDeepRows);
  TwelveStream stream(m, panel);
  for (long first = 0; first < m.k; first += kTwelveDepth) {
    const long depth = m.k - first < kTwelveDepth ? m.k - first : kTwelveDepth;
    for (long r = 0; r < rows; r += block)
      deep_rows<kDeepRows>(static_cast<int>(rows - r < block ? rows - r : block),
                             r ? nullptr : &stream, x, row + r, first, depth, d, r);
  }
  const V back = set1(stream.back);
  for (long r = 0; r < rows; r++)
    finish(out, row + r, panel, load(d.sums[r]) * back, load(d.sums[r] + 16) * back);
}

void twelve_matmul(const Matrix& m, const Rows& x, long rows, long begin, long end,
                   const Output& out) {
  long panel = begin;
  if (rows <= kTwelvePaired)
    for (; panel + 2 <= end; panel += 2)
      twelve_rows<kTwelvePaired, 2>(static_cast<int>(rows), m, panel, x, out);
  const long part = block_rows(rows, kTwelveMost);
  for (; panel < end; panel++) {
    if (rows <= kFloatRows) {
      twelve_rows<kFloatRows, 1>(static_cast<int>(rows), m, panel, x, out);
      continue;
    }
    for (long row = 0; row < rows; row += part)
      deep_panel(m, panel, x, row, rows - row < part ? rows - row : part, out);
  }
}

}  // namespace
