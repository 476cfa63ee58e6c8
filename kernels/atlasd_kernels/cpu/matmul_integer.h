// Integer weights with a scale per group of k and column. Inside a group the sum is exact; the
// groups are added in ascending order with one fused multiply-add each.
#pragma once

namespace {

// A panel's group: [group / 4][32 columns][4] unsigned bytes, then 32 bf16 scales in pairs.
struct Int8 {
  static constexpr int group = 64;
  static constexpr long bytes = kPanel * group + 2 * kPanel;
  static constexpr int scales = kPanel * group;
  static constexpr int loads = group / 4;
  static constexpr int quads = 1;   // activation quads that one load of weights meets
  static I unpack(I weights, int) { return weights; }
  static int chain(int load, int) { return load % 2; }
  static I bytes_of(I weights, int) { return weights; }
  static I join(I first, I second) { return first + second; }
};

// Two quads share a byte. The first one's weights are its low nibbles, in units of 16; the second
// one's are the whole bytes, which were rounded with the low nibbles in place (pack.cpp): nothing
// has to be masked or shifted for them. The scales are of a unit.
struct Int4 {
  static constexpr int group = 32;
  static constexpr long bytes = kPanel * group / 2 + 2 * kPanel;
  static constexpr int scales = kPanel * group / 2;
  static constexpr int loads = group / 8;
  static constexpr int quads = 2;
  static I unpack(I weights, int quad) {
    return quad ? weights : raise_low_nibbles(weights);
  }
  static int chain(int, int quad) { return quad; }
  static I bytes_of(I weights, int quad) {
    return quad ? weights : weights & iset1(0x0F0F0F0F);
  }
  static I join(I first, I second) { return shift_left<4>(first) + second; }
};

inline int32_t load_quad(const int8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return quad;
}

// Adds a group's exact sums, scaled, to a row's totals.
inline void add_scaled(I a, I b, V sa, V sb, float scale, V& low, V& high) {
  const V xs = set1(scale);
  low = fma(to_float(a), sa * xs, low);
  high = fma(to_float(b), sb * xs, high);
}

// One group of one panel for one row, in two chains that are joined at the end: a single row is
// bound by the latency of its sums, and INT4 saves the shift. Exact, hence the same in any order.
template <class Weights>
inline void single_group(const uint8_t* w, const Rows& x, long row, long g, V& low, V& high) {
  const int8_t* q = x.quantised + row * x.ld + g * Weights::group;
  const long at = row * x.groups + g;
  I a[2] = {iset1(0), iset1(x.offsets[at])}, b[2] = {a[0], a[1]};
#pragma GCC unroll 16
  for (int i = 0; i < Weights::loads; i++) {
    const I first = iload(w + i * 128), second = iload(w + i * 128 + 64);
    prefetch(w + i * 128 + kAhead);
    prefetch(w + i * 128 + 64 + kAhead);
#pragma GCC unroll 2
    for (int quad = 0; quad < Weights::quads; quad++) {
      const int32_t xr = load_quad(q + 4 * (i * Weights::quads + quad));
      const int c = Weights::chain(i, quad);
      a[c] = dot4(a[c], Weights::bytes_of(first, quad), xr);
      b[c] = dot4(b[c], Weights::bytes_of(second, quad), xr);
    }
  }
  prefetch(w + Weights::scales + kAhead);
  V sa, sb;
  load_bf16_pairs(reinterpret_cast<const uint16_t*>(w + Weights::scales), sa, sb);
  add_scaled(Weights::join(a[0], a[1]), Weights::join(b[0], b[1]), sa, sb, x.scales[at], low, high);
}

// One group of one panel: R rows' exact sums, scaled and added to what is there. The first block of
// rows fetches what comes next in the panel; a later one, if `ahead` is not null, half as much from
// there.
template <class Weights, int R>
inline void integer_group(const uint8_t* w, const Rows& x, long row, long g, const uint8_t* ahead,
                          V* low, V* high) {
  if constexpr (R == 1) return single_group<Weights>(w, x, row, g, *low, *high);
  const int8_t* q = x.quantised + row * x.ld + g * Weights::group;
  I a[R], b[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) a[r] = b[r] = iset1(x.offsets[(row + r) * x.groups + g]);
#pragma GCC unroll 16
  for (int i = 0; i < Weights::loads; i++) {
    const I first = iload(w + i * 128), second = iload(w + i * 128 + 64);
    if (ahead) {
      prefetch_in_turn(ahead + i * 64);
    } else {
      prefetch_in_turn(w + i * 128 + kAhead);
      prefetch_in_turn(w + i * 128 + 64 + kAhead);
    }
#pragma GCC unroll 2
    for (int quad = 0; quad < Weights::quads; quad++) {
      const I wa = Weights::unpack(first, quad), wb = Weights::unpack(second, quad);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const int32_t xr = load_quad(q + r * x.ld + 4 * (i * Weights::quads + quad));
        a[r] = dot4(a[r], wa, xr);
        b[r] = dot4(b[r], wb, xr);
      }
    }
  }
  if (!ahead) prefetch_in_turn(w + Weights::scales + kAhead);
  V sa, sb;
  load_bf16_pairs(reinterpret_cast<const uint16_t*>(w + Weights::scales), sa, sb);
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
    add_scaled(a[r], b[r], sa, sb, x.scales[(row + r) * x.groups + g], low[r], high[r]);
}

// A group's weights as unsigned bytes [group / 4][32 columns][4]: INT8 lies so already.
inline const uint8_t* unpacked_group(Int8, const uint8_t* w, uint8_t*) { return w; }
inline const uint8_t* unpacked_group(Int4, const uint8_t* w, uint8_t* unpacked) {
  for (int i = 0; i < Int4::loads; i++)
    for (int half = 0; half < 128; half += 64) {
      const I nibbles = iload(w + i * 128 + half);
      prefetch(w + i * 128 + half + kAhead);
      istore(unpacked + i * 256 + half, Int4::unpack(nibbles, 0));
      istore(unpacked + i * 256 + 128 + half, Int4::unpack(nibbles, 1));
    }
  return unpacked;
}

// The same as integer_group, from unpacked weights and to totals [R][32] in memory.
template <class Weights, int R>
inline void unpacked_rows(int rows, const uint8_t* w, V sa, V sb, const Rows& x, long row, long g,
                          float (*totals)[kPanel]) {
  if constexpr (R >= 1) {
    if (rows < R) return unpacked_rows<Weights, R - 1>(rows, w, sa, sb, x, row, g, totals);
    const int8_t* q = x.quantised + row * x.ld + g * Weights::group;
    I a[R], b[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) a[r] = b[r] = iset1(x.offsets[(row + r) * x.groups + g]);
#pragma GCC unroll 16
    for (int i = 0; i < Weights::group / 4; i++) {
      const I wa = iload(w + i * 128), wb = iload(w + i * 128 + 64);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const int32_t xr = load_quad(q + r * x.ld + 4 * i);
        a[r] = dot4(a[r], wa, xr);
        b[r] = dot4(b[r], wb, xr);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      V low = load(totals[r]), high = load(totals[r] + 16);
      add_scaled(a[r], b[r], sa, sb, x.scales[(row + r) * x.groups + g], low, high);
      store(totals[r], low);
      store(totals[r] + 16, high);
    }
  }
}

constexpr long kTotalRows = 64;   // whose totals stay in the first cache

// Four bits and several blocks of few rows: each weight is unpacked once for all of them.
template <class Weights>
void unpacked_panel(const Matrix& m, long panel, const Rows& x, long row, long rows,
                    const Output& out) {
  alignas(64) float totals[kTotalRows][kPanel];
  alignas(64) uint8_t unpacked[kPanel * Weights::group];
  for (long r = 0; r < rows; r++) {
    store(totals[r], zero());
    store(totals[r] + 16, zero());
  }
  const long block = block_rows(rows, kIntegerRows), groups = m.k / Weights::group;
  const uint8_t* w = m.data + panel * m.panel_bytes;
  for (long g = 0; g < groups; g++, w += Weights::bytes) {
    const uint8_t* weights = unpacked_group(Weights(), w, unpacked);
    V sa, sb;
    load_bf16_pairs(reinterpret_cast<const uint16_t*>(w + Weights::scales), sa, sb);
    for (long r = 0; r < rows; r += block)
      unpacked_rows<Weights, kIntegerRows>(static_cast<int>(rows - r < block ? rows - r : block),
                                           weights, sa, sb, x, row + r, g, totals + r);
  }
  for (long r = 0; r < rows; r++)
    finish(out, row + r, panel, load(totals[r]), load(totals[r] + 16));
}

template <class Weights, int R, int P>
void integer_block(const Matrix& m, long panel, const Rows& x, long row, const Output& out) {
  V low[P][R], high[P][R];
#pragma GCC unroll 2
  for (int p = 0; p < P; p++)
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) low[p][r] = high[p][r] = zero();
  const uint8_t* w = m.data + panel * m.panel_bytes;
  // A second block finds its weights near, and fetches the latter half of the next panel's. Four bits
  // take longer to multiply than to fetch.
  const uint8_t* ahead =
      Weights::quads == 1 && row > 0 ? w + m.panel_bytes + m.panel_bytes / 2 : nullptr;
  const long groups = m.k / Weights::group;
  for (long g = 0; g < groups; g++, w += Weights::bytes) {
#pragma GCC unroll 2
    for (int p = 0; p < P; p++)
      integer_group<Weights, R>(w + p * m.panel_bytes, x, row, g, ahead, low[p], high[p]);
    if (ahead) ahead += Weights::bytes / 2;
  }
#pragma GCC unroll 2
  for (int p = 0; p < P; p++)
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) finish(out, row + r, panel + p, low[p][r], high[p][r]);
}

template <class Weights, int R, int P>
void integer_rows(int rows, const Matrix& m, long panel, const Rows& x, long row,
                  const Output& out) {
  if constexpr (R >= 1) {
    if (rows == R) return integer_block<Weights, R, P>(m, panel, x, row, out);
    integer_rows<Weights, R - 1, P>(rows, m, panel, x, row, out);
  }
}

template <class Weights>
void integer_matmul(const Matrix& m, const Rows& x, long rows, long begin, long end,
                    const Output& out) {
  long panel = begin;
  if (rows <= kPairedIntegerRows)
    for (; panel + 2 <= end; panel += 2)
      integer_rows<Weights, kPairedIntegerRows, 2>(static_cast<int>(rows), m, panel, x, 0, out);
  if (Weights::quads > 1 && kIntegerRows < 8 && rows > kIntegerRows) {
    const long part = block_rows(rows, kTotalRows);
    for (; panel < end; panel++)
      for (long row = 0; row < rows; row += part)
        unpacked_panel<Weights>(m, panel, x, row, rows - row < part ? rows - row : part, out);
    return;
  }
  const long block = block_rows(rows, kIntegerRows);
  for (; panel < end; panel++)
    for (long row = 0; row < rows; row += block) {
      const int count = static_cast<int>(rows - row < block ? rows - row : block);
      integer_rows<Weights, kIntegerRows, 1>(count, m, panel, x, row, out);
    }
}

// x = scale * values + rounding, per group; offset = minus the sum of the group's values times the
// zero points of the bytes they meet: 128, or 136 of INT4's whole bytes, in every second quad.
// Sixteen groups at a time, so that their scales are divided out together.
[[maybe_unused]] void quantise_row(const float* x, long k, int group, int8_t* values,
                                   float* scales, int32_t* offsets) {
  alignas(64) static const int32_t second_quads[16] = {0, 0, 0, 0, -1, -1, -1, -1,
                                                       0, 0, 0, 0, -1, -1, -1, -1};
  const I whole_bytes = group == Int4::group ? iload(second_quads) : iset1(0);
  for (long left = k / group; left > 0; left -= 16, scales += 16, offsets += 16) {
    const int count = left < 16 ? static_cast<int>(left) : 16;
    alignas(64) float largest[16] = {}, inverse[16], scale[16];
    for (int g = 0; g < count; g++) {
      V most = abs(load(x + g * group));
      for (int i = 16; i < group; i += 16) most = max(most, abs(load(x + g * group + i)));
      largest[g] = max_lanes(most);
    }
    store(inverse, set1(127.0f) / load(largest));
    store(scale, load(largest) / set1(127.0f));
    for (int g = 0; g < count; g++, x += group, values += group) {
      const V factor = set1(largest[g] > 0.0f ? inverse[g] : 0.0f);
      I sum = iset1(0);
      for (int i = 0; i < group; i += 16) {
        const I rounded = to_int(load(x + i) * factor);
        store_int8(values + i, rounded);
        sum = sum + rounded;
      }
      scales[g] = scale[g];
      offsets[g] = -sum_lanes(shift_left<7>(sum) + shift_left<3>(sum & whole_bytes));
    }
  }
}

[[maybe_unused]] void quantise_rows(const Rounding& r) {
  for (long row = 0; row < r.rows; row++)
    quantise_row(r.x + row * r.ld, r.k, r.group, r.values + row * r.ld, r.scales + row * r.groups,
                 r.offsets + row * r.groups);
}

}  // namespace
