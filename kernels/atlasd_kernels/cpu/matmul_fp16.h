// bf16 weights as fp16 numbers (twelve_fp16.h) times rows rounded to fp16.
//
// 32 k are summed in fp16, two such sums are added, and these go on in fp32: always in this order,
// whatever the number of rows, so a row's bits never depend on its neighbours. What it costs in
// accuracy is about half of what rounding activations to bf16 does (docs/cpu-kernels.md).
#pragma once
#include <array>
#include <utility>

#include "twelve_fp16.h"

namespace {

using Fp16 = __m512h;

constexpr long kFp16Depth = 64;      // k whose sums go on in fp32 together
constexpr long kFp16Ahead = 3072;    // bytes to fetch ahead of a panel's stream
constexpr int kFp16Rows = 16;        // whose sums fit the register file
constexpr int kFp16Paired = 4;       // rows of two panels at a time
constexpr long kFp16Most = 64;       // rows whose sums wait for a panel's decoded weights

// A row is moved below 2^7: 64 products with weights below 2 stay below 2^14, and fp16 ends at 2^16.
constexpr int kFp16Peak = 7;

// What decoding takes bits by. Kept, since making one again in the loop takes a port that the
// multiply-adds need.
struct Fp16Masks {
  __m512i whole = kept(I{_mm512_set1_epi16(static_cast<short>(kFp16Whole))}).v;
  __m512i mine = kept(iset1(0x40074007)).v;
  __m512i beside = kept(iset1(0x07400740)).v;
  __m512i spread = kept(I{_mm512_set1_epi64(0x0000000102040040)}).v;   // 6, 2, 1, 0 to 7, 5, 4, 3
};

// Hands the 32 columns of each k of a group to f(k inside the group, weights).
template <class F>
ATLASD_INLINE void fp16_weights(const uint8_t* group, const Fp16Masks& m, F&& f) {
  const __m512i x = iload(group).v, y = iload(group + 64).v, z = iload(group + 128).v;
  for (int line = 0; line < 3; line++) prefetch(group + kFp16Ahead + 64 * line);
  f(0, _mm512_castsi512_ph(_mm512_and_si512(x, m.whole)));
  f(1, _mm512_castsi512_ph(_mm512_and_si512(y, m.whole)));
  f(2, _mm512_castsi512_ph(_mm512_and_si512(z, m.whole)));
  const __m512i ends = select({m.mine}, {x}, {_mm512_rol_epi32(z, 8)}).v;
  const __m512i spread = _mm512_gf2p8affine_epi64_epi8(ends, m.spread, 0);
  f(3, _mm512_castsi512_ph(select({m.beside}, {_mm512_rol_epi32(y, 8)}, {spread}).v));
}

// sum + x * weights. The compiler would spread x into a register first, on a port that the
// multiply-adds need.
ATLASD_INLINE Fp16 add_product(Fp16 sum, Fp16 weights, const uint16_t* x) {
  asm("vfmadd231ph %2%{1to32%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(*x));
  return sum;
}

ATLASD_INLINE void add_to(float* sums, Fp16 more) {
  const __m256i high = _mm512_extracti64x4_epi64(_mm512_castph_si512(more), 1);
  store(sums, load(sums) + V{_mm512_cvtxph_ps(_mm512_castph512_ph256(more))});
  store(sums + 16, load(sums + 16) + V{_mm512_cvtxph_ps(_mm256_castsi256_ph(high))});
}

// Adds 64 k of R rows and P panels to sums [R][P][32]. x: [k / 4][R][4]; each(p, group, f) hands the
// weights of four k of a panel to f, as fp16_weights does.
template <int R, int P, class Each>
ATLASD_INLINE void add_depth(const uint16_t* x, float (*sums)[kPanel], Each&& each) {
  Fp16 first[R][P], second[R][P];
  const auto half = [&](long begin, auto& sum) ATLASD_INLINE_LAMBDA {
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
      for (int p = 0; p < P; p++) sum[r][p] = _mm512_castsi512_ph(_mm512_setzero_si512());
#pragma GCC unroll 1
    for (long group = begin; group < begin + kFp16Depth / kFp16Group / 2; group++)
#pragma GCC unroll 2
      for (int p = 0; p < P; p++)
        each(p, group, [&](int k, Fp16 weights) ATLASD_INLINE_LAMBDA {
#pragma GCC unroll 16
          for (int r = 0; r < R; r++)
            sum[r][p] = add_product(sum[r][p], weights, x + (group * R + r) * kFp16Group + k);
        });
  };
  half(0, first);
  half(kFp16Depth / kFp16Group / 2, second);
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int p = 0; p < P; p++) add_to(sums[r * P + p], _mm512_add_ph(first[r][p], second[r][p]));
}

// Where a block of rows finds a panel's weights: in its stream, or as the first of several blocks
// left them in the first cache.
enum class Fp16Source { stream, stream_for_others, decoded };

struct Fp16Decoded {
  alignas(64) uint16_t weights[kFp16Depth][kPanel];
};

struct Fp16Work {
  const uint8_t* groups;    // of the first of the panels
  long panel_bytes;
  const uint16_t* x;        // [k / 4][R][4]
  long depths;              // so many 64 k
  float (*sums)[kPanel];    // [R][P]
  Fp16Decoded* decoded;     // where there are other blocks; one depth then
};

template <int R, int P, Fp16Source S>
void fp16_rows(const Fp16Work& work) {
  const Fp16Masks masks;
  const uint8_t* groups = work.groups;
  const uint16_t* x = work.x;
  for (long d = 0; d < work.depths; d++, x += kFp16Depth * R) {
    add_depth<R, P>(x, work.sums, [&](int p, long group, auto&& f) ATLASD_INLINE_LAMBDA {
      if constexpr (S == Fp16Source::decoded) {
#pragma GCC unroll 4
        for (int k = 0; k < kFp16Group; k++)
          f(k, _mm512_load_ph(work.decoded->weights[group * kFp16Group + k]));
        return;
      }
      const uint8_t* data = groups + p * work.panel_bytes + group * kFp16Bytes;
      fp16_weights(data, masks, [&](int k, Fp16 weights) ATLASD_INLINE_LAMBDA {
        if constexpr (S == Fp16Source::stream_for_others)
          _mm512_store_ph(work.decoded->weights[group * kFp16Group + k], weights);
        f(k, weights);
      });
    });
    groups += kFp16Depth / kFp16Group * kFp16Bytes;
  }
}

using Fp16Block = void (*)(const Fp16Work&);

template <int P, Fp16Source S, size_t... R>
constexpr std::array<Fp16Block, sizeof...(R)> fp16_blocks(std::index_sequence<R...>) {
  return {fp16_rows<static_cast<int>(R) + 1, P, S>...};
}

// By rows, less one.
template <Fp16Source S>
constexpr auto kFp16Blocks = fp16_blocks<1, S>(std::make_index_sequence<kFp16Rows>());
constexpr auto kFp16Pairs =
    fp16_blocks<2, Fp16Source::stream>(std::make_index_sequence<kFp16Paired>());

ATLASD_INLINE const uint8_t* fp16_panel(const Matrix& m, long panel) {
  return m.data + panel * m.panel_bytes;
}

// What sums are moved back by, the row's scale first: a column's may be beyond it.
ATLASD_INLINE void fp16_finish(const Matrix& m, const Rows& x, long row, long panel,
                               const float* sums, const Output& out) {
  const float* back = reinterpret_cast<const float*>(fp16_panel(m, panel));
  const V scale = set1(x.scales[row]);
  finish(out, row, panel, load(sums) * scale * load(back),
         load(sums + 16) * scale * load(back + 16));
}

template <int P>
void fp16_few_rows(const Matrix& m, long panel, const Rows& x, long rows, const Output& out) {
  alignas(64) float sums[kFp16Rows][kPanel];
  for (long i = 0; i < rows * P; i++) store(sums[i], zero()), store(sums[i] + 16, zero());
  const Fp16Work work{fp16_panel(m, panel) + kFp16Header, m.panel_bytes, x.halves,
                      m.k / kFp16Depth, sums, nullptr};
  if constexpr (P == 1) kFp16Blocks<Fp16Source::stream>[rows - 1](work);
  else kFp16Pairs[rows - 1](work);
  for (long i = 0; i < rows * P; i++) fp16_finish(m, x, i / P, panel + i % P, sums[i], out);
}

// Rows [first, first + rows) in blocks, of which the first decodes for all.
void fp16_many_rows(const Matrix& m, long panel, const Rows& x, long first, long rows, long block,
                    const Output& out) {
  alignas(64) float sums[kFp16Most][kPanel];
  Fp16Decoded decoded;
  for (long r = 0; r < rows; r++) store(sums[r], zero()), store(sums[r] + 16, zero());
  for (long k = 0; k < m.k; k += kFp16Depth)
    for (long r = 0; r < rows; r += block) {
      const long count = rows - r < block ? rows - r : block;
      const Fp16Work work{fp16_panel(m, panel) + kFp16Header + k / kFp16Group * kFp16Bytes,
                          m.panel_bytes, x.halves + (first + r) * x.ld + k * count, 1, sums + r,
                          &decoded};
      if (r) kFp16Blocks<Fp16Source::decoded>[count - 1](work);
      else kFp16Blocks<Fp16Source::stream_for_others>[count - 1](work);
    }
  for (long r = 0; r < rows; r++) fp16_finish(m, x, first + r, panel, sums[r], out);
}

void fp16_matmul(const Matrix& m, const Rows& x, long rows, long begin, long end,
                 const Output& out) {
  long panel = begin;
  if (rows <= kFp16Paired)
    for (; panel + 2 <= end; panel += 2) fp16_few_rows<2>(m, panel, x, rows, out);
  const long block = block_rows(rows, kFp16Rows), part = kFp16Most / block * block;
  for (; panel < end; panel++) {
    if (rows <= kFp16Rows) {
      fp16_few_rows<1>(m, panel, x, rows, out);
      continue;
    }
    for (long row = 0; row < rows; row += part)
      fp16_many_rows(m, panel, x, row, rows - row < part ? rows - row : part, block, out);
  }
}

// A row moved by a power of two, so that its largest number is below 2^7, and rounded; returns what
// undoes the move.
float fp16_row(const float* x, long k, long distance, uint16_t* out) {
  V most = zero();
  for (long i = 0; i < k; i += 16) most = max(most, abs(load(x + i)));
  const float largest = max_lanes(most);
  uint32_t exponent;
  __builtin_memcpy(&exponent, &largest, 4);
  exponent >>= 23;
  // beyond these a power of two would be no float
  exponent = exponent < 8 ? 8 : exponent > 254 ? 254 : exponent;
  const uint32_t up = (253 + kFp16Peak - exponent) << 23, down = (exponent - kFp16Peak + 1) << 23;
  float ahead, back;
  __builtin_memcpy(&ahead, &up, 4);
  __builtin_memcpy(&back, &down, 4);
  for (long i = 0; i < k; i += 16) {
    alignas(32) uint16_t quads[4][kFp16Group];
    const __m256h near = _mm512_cvtxps_ph((load(x + i) * set1(ahead)).v);
    _mm256_store_ph(quads, near);
    for (long q = 0; q < 4; q++)
      __builtin_memcpy(out + (i / kFp16Group + q) * distance, quads[q], sizeof quads[q]);
  }
  return back;
}

}  // namespace
