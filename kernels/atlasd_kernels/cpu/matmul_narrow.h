// Integer weights where there are sixteen registers of 256 bits: up to six rows share a load of
// sixteen columns' weights. Each group's sum is exact, hence that of matmul_integer.h.
#pragma once

namespace {

// The sums of one group, R rows by 8 C columns, are added up in `sums`, which begin with what rows
// start from. `w`: the group's first line of these columns; they follow 128 bytes apart. What the panel
// has next is fetched meanwhile.
template <class Weights, int R, int C>
struct GroupSums {
  __m256i sums[R][C];

  void start(const Rows& x, long row, long g) {
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
      for (int c = 0; c < C; c++)
        sums[r][c] = _mm256_set1_epi32(x.offsets[(row + r) * x.groups + g]);
  }

  void add(const uint8_t* w, const Rows& x, long row, long g) {
    const int8_t* q = x.quantised + row * x.ld + g * Weights::group;
#ifndef __AVXVNNI__
    if constexpr (Weights::quads == 1) return add_int8(w, q, x.ld);
#endif
#pragma GCC unroll 2
    for (int i = 0; i < Weights::loads; i++)
#pragma GCC unroll 2
      for (int c = 0; c < C; c += 2) {
        const I weights = iload(w + i * 128 + c * 32);
        prefetch(w + i * 128 + c * 32 + kAhead);
#pragma GCC unroll 2
        for (int quad = 0; quad < Weights::quads; quad++) {
          const I bytes = Weights::unpack(weights, quad);
#pragma GCC unroll 8
          for (int r = 0; r < R; r++) {
            const int32_t xr = load_quad(q + r * x.ld + 4 * (i * Weights::quads + quad));
            const I two = dot4(I{sums[r][c], sums[r][c + 1]}, bytes, xr);
            sums[r][c] = two.a;
            sums[r][c + 1] = two.b;
          }
        }
      }
  }

#ifndef __AVXVNNI__
  static __m256i dot2(__m256i sum, __m256i weights, const int16_t* two) {
    int32_t pair;
    __builtin_memcpy(&pair, two, 4);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(weights, _mm256_set1_epi32(pair)));
  }

  // Even and odd bytes as 16-bit numbers, whose products cannot overflow two at a time; those of the
  // rows are made once for all columns.
  void add_int8(const uint8_t* w, const int8_t* q, long ld) {
    alignas(32) int16_t even[R][Int8::group / 2], odd[R][Int8::group / 2];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
      for (int i = 0; i < Int8::group; i += 32) {
        const auto* from = reinterpret_cast<const __m256i*>(q + r * ld + i);
        const __m256i quads = _mm256_loadu_si256(from);
        _mm256_store_si256(reinterpret_cast<__m256i*>(even[r] + i / 2),
                           _mm256_srai_epi16(_mm256_slli_epi16(quads, 8), 8));
        _mm256_store_si256(reinterpret_cast<__m256i*>(odd[r] + i / 2), _mm256_srai_epi16(quads, 8));
      }
    const __m256i low = _mm256_set1_epi16(0x00FF);
#pragma GCC unroll 2
    for (int i = 0; i < Int8::loads; i++)
#pragma GCC unroll 4
      for (int c = 0; c < C; c++) {
        const auto* from = reinterpret_cast<const __m256i*>(w + i * 128 + c * 32);
        const __m256i weights = _mm256_loadu_si256(from);
        if (c % 2) prefetch(w + i * 128 + c * 32 + kAhead);
        const __m256i evens = _mm256_and_si256(weights, low), odds = _mm256_srli_epi16(weights, 8);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
          sums[r][c] = dot2(sums[r][c], evens, even[r] + 2 * i);
          sums[r][c] = dot2(sums[r][c], odds, odd[r] + 2 * i);
        }
      }
  }
#endif
};

// Weights' and rows' scales are multiplied first, as in matmul_integer.h.
template <class Weights>
inline V add_group(I sums, V unit, V scale, V total) {
  return fma(to_float(sums), unit * scale, total);
}

// One group of R rows and 16 or 32 columns, scaled and added to the rows' totals, kPanel apart.
template <class Weights, int R, int C>
void narrow_group(const uint8_t* w, const V* scales, const Rows& x, long row, long g,
                  float* totals) {
  GroupSums<Weights, R, C> group;
  group.start(x, row, g);
  group.add(w, x, row, g);
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
    const V scale = set1(x.scales[(row + r) * x.groups + g]);
#pragma GCC unroll 2
    for (int c = 0; c < C / 2; c++) {
      float* total = totals + r * kPanel + c * 16;
      const I sums{group.sums[r][2 * c], group.sums[r][2 * c + 1]};
      store(total, add_group<Weights>(sums, scales[c], scale, load(total)));
    }
  }
}

constexpr int kWideRows = 3;     // so few need a whole panel's chains of sums
#ifdef __AVXVNNI__
constexpr int kNarrowRows = 6;   // twelve sums, two of weights and a quad
#else
constexpr int kNarrowRows = 4;   // eight sums; products take a register, too
#endif

template <class Weights, int R>
void narrow_rows(int rows, const uint8_t* w, const V* scales, const Rows& x, long row, long g,
                 float* totals) {
  if constexpr (R > kWideRows) {
    if (rows < R) return narrow_rows<Weights, R - 1>(rows, w, scales, x, row, g, totals);
    for (int half = 0; half < 2; half++)
      narrow_group<Weights, R, 2>(w + 64 * half, scales + half, x, row, g, totals + 16 * half);
  } else if constexpr (R >= 1) {
    if (rows < R) return narrow_rows<Weights, R - 1>(rows, w, scales, x, row, g, totals);
    narrow_group<Weights, R, 4>(w, scales, x, row, g, totals);
  }
}

template <class Weights>
void narrow_panel(const Matrix& m, long panel, const Rows& x, long row, long rows,
                  const Output& out) {
  alignas(64) float totals[kTotalRows][kPanel];
  for (long r = 0; r < rows; r++) {
    store(totals[r], zero());
    store(totals[r] + 16, zero());
  }
  const long block = block_rows(rows, kNarrowRows), groups = m.k / Weights::group;
  const uint8_t* w = m.data + panel * m.panel_bytes;
  for (long g = 0; g < groups; g++, w += Weights::bytes) {
    V scales[2];
    load_bf16_pairs(reinterpret_cast<const uint16_t*>(w + Weights::scales), scales[0], scales[1]);
    for (long r = 0; r < rows; r += block)
      narrow_rows<Weights, kNarrowRows>(static_cast<int>(rows - r < block ? rows - r : block), w,
                                        scales, x, row + r, g, totals[r]);
  }
  for (long r = 0; r < rows; r++)
    finish(out, row + r, panel, load(totals[r]), load(totals[r] + 16));
}

template <class Weights>
void narrow_matmul(const Matrix& m, const Rows& x, long rows, long begin, long end,
                   const Output& out) {
  const long part = block_rows(rows, kTotalRows);
  for (long panel = begin; panel < end; panel++)
    for (long row = 0; row < rows; row += part)
      narrow_panel<Weights>(m, panel, x, row, rows - row < part ? rows - row : part, out);
}

}  // namespace
