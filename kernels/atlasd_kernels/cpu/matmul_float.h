// Float weights: per output one chain of fused multiply-adds, k ascending. Blocks of rows and
// panels share loads, never an accumulator, so a row's bits are the same in every block.
#pragma once

namespace {

// `depth` consecutive k of 32 columns lie in 128 bytes.
struct Fp32 {
  static constexpr int depth = 1;
  static void load_panel(const uint8_t* w, V* low, V* high) {
    const float* p = reinterpret_cast<const float*>(w);
    low[0] = load(p);
    high[0] = load(p + 16);
  }
};

struct Bf16 {
  static constexpr int depth = 2;
  static void load_panel(const uint8_t* w, V* low, V* high) {
    const uint16_t* p = reinterpret_cast<const uint16_t*>(w);
    load_bf16_pairs(p, low[0], low[1]);
    load_bf16_pairs(p + 32, high[0], high[1]);
  }
};

// Bytes to fetch ahead of a panel's stream; beyond a page the hardware does not look.
constexpr long kAhead = 4096;

template <class Weights, int R, int P>
void float_block(const Matrix& m, long panel, const float* x, long ld, long row,
                 const Output& out) {
  constexpr int depth = Weights::depth;
  V low[R][P], high[R][P];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) low[r][p] = high[r][p] = zero();
  const uint8_t* w = m.data + panel * m.panel_bytes;
#pragma GCC unroll 2
  for (long k = 0; k < m.k; k += depth) {
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) {
      V a[depth], b[depth];
      const uint8_t* wp = w + p * m.panel_bytes + k / depth * 128;
      Weights::load_panel(wp, a, b);
#pragma GCC unroll 2
      for (int d = 0; d < depth; d++) {
        prefetch(wp + kAhead + 64 * d);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
          const V xr = set1(x[r * ld + k + d]);
          low[r][p] = fma(xr, a[d], low[r][p]);
          high[r][p] = fma(xr, b[d], high[r][p]);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) finish(out, row + r, panel + p, low[r][p], high[r][p]);
}

template <class Weights, int R, int P>
void float_rows(int rows, const Matrix& m, long panel, const float* x, long ld, long row,
                const Output& out) {
  if constexpr (R >= 1) {
    if (rows == R) return float_block<Weights, R, P>(m, panel, x, ld, row, out);
    float_rows<Weights, R - 1, P>(rows, m, panel, x, ld, row, out);
  }
}

// Few rows are bound by memory and by the latency of their chains: two panels at a time give
// twice as many chains, and two streams to fetch.
template <class Weights>
void float_matmul(const Matrix& m, const Rows& x, long rows, long begin, long end,
                  const Output& out) {
  long panel = begin;
  if (rows <= kPairedRows)
    for (; panel + 2 <= end; panel += 2)
      float_rows<Weights, kPairedRows, 2>(static_cast<int>(rows), m, panel, x.values, x.ld, 0,
                                          out);
  const long block = block_rows(rows, kFloatRows);
  for (; panel < end; panel++)
    for (long row = 0; row < rows; row += block) {
      const int count = static_cast<int>(rows - row < block ? rows - row : block);
      float_rows<Weights, kFloatRows, 1>(count, m, panel, x.values + row * x.ld, x.ld, row, out);
    }
}

}  // namespace
