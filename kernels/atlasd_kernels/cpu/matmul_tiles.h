// Matmuls in AMX tiles, for any number of rows: a tile's rows are computed apart from each other,
// so a row's bits are the same in every place and beside every neighbour.
//
// bf16: activations are rounded to bf16; per output the tile's own order, k ascending in steps of
// 32. Integers: the same exact sums and the same scaling as in matmul_integer.h, hence the same
// bits.
#pragma once

namespace {

// Rows in tiles of one size, so that the shapes are loaded once: the last one starts earlier
// where they do not fit, and its first rows, computed twice, are not handed out twice.
struct RowTiles {
  long rows;
  int count, size;
  explicit RowTiles(long n)
      : rows(n), count(static_cast<int>((n + 15) / 16)),
        size(static_cast<int>((n + count - 1) / count)) {}
  long begin(int tile) const { return tile * size + size <= rows ? tile * size : rows - size; }
  int repeated(int tile) const { return static_cast<int>(tile * size - begin(tile)); }
};

// Registers 0 to 3 hold sums, 4 and 5 activations, 6 and 7 weights of 16 columns each.
struct TileUse {
  TileUse(int rows, int activation_bytes) {
    TileShapes shapes;
    for (int t = 0; t < 8; t++) {
      shapes.rows[t] = static_cast<uint8_t>(t < 6 ? rows : activation_bytes / 4);
      shapes.row_bytes[t] = static_cast<uint16_t>(t == 4 || t == 5 ? activation_bytes : 64);
    }
    tile_shapes(&shapes);
  }
  ~TileUse() { tile_release(); }   // or the system would save tiles at every switch of threads
};

constexpr long kTileDepth = 32;                          // k of a bf16 tile
constexpr long kTileBytes = kPanel * kTileDepth * 2;     // of a panel, per tile
constexpr long kPairBytes = kPanel * 4;                  // between rows of a weight tile

using Sums = float[16][16];

inline void finish_tile(const RowTiles& tiles, int tile, long panel, const Sums& low,
                        const Sums& high, const Output& out) {
  for (int r = tiles.repeated(tile); r < tiles.size; r++)
    finish(out, tiles.begin(tile) + r, panel, load(low[r]), load(high[r]));
}

// One tile of rows over two panels, or over the last one alone.
inline void bf16_row_tile(const Matrix& m, const uint16_t* x, long ld, const RowTiles& tiles,
                          int tile, long panel, bool pair, const Output& out) {
  alignas(64) Sums sums[4];
  const uint8_t* first = m.data + panel * m.panel_bytes;
  const uint8_t* second = first + m.panel_bytes;
  const uint16_t* a = x + tiles.begin(tile) * ld;
  tile_zero(0);
  tile_zero(1);
  tile_zero(2);
  tile_zero(3);
  for (long k = 0; k < m.k; k += kTileDepth, first += kTileBytes, second += kTileBytes) {
    tile_load(4, a + k, ld * 2);
    tile_load(6, first, kPairBytes);
    tile_bf16(0, 4, 6);
    tile_load(7, first + 64, kPairBytes);
    tile_bf16(1, 4, 7);
    if (!pair) continue;
    tile_load(6, second, kPairBytes);
    tile_bf16(2, 4, 6);
    tile_load(7, second + 64, kPairBytes);
    tile_bf16(3, 4, 7);
  }
  tile_store(0, sums[0], 64);
  tile_store(1, sums[1], 64);
  finish_tile(tiles, tile, panel, sums[0], sums[1], out);
  if (!pair) return;
  tile_store(2, sums[2], 64);
  tile_store(3, sums[3], 64);
  finish_tile(tiles, tile, panel + 1, sums[2], sums[3], out);
}

// Two tiles of rows over one panel: each load of weights meets both.
inline void bf16_row_tiles(const Matrix& m, const uint16_t* x, long ld, const RowTiles& tiles,
                           int tile, long panel, const Output& out) {
  alignas(64) Sums sums[4];
  const uint8_t* w = m.data + panel * m.panel_bytes;
  const uint16_t* a = x + tiles.begin(tile) * ld;
  const uint16_t* b = x + tiles.begin(tile + 1) * ld;
  tile_zero(0);
  tile_zero(1);
  tile_zero(2);
  tile_zero(3);
  for (long k = 0; k < m.k; k += kTileDepth, w += kTileBytes) {
    tile_load(6, w, kPairBytes);
    tile_load(7, w + 64, kPairBytes);
    tile_load(4, a + k, ld * 2);
    tile_bf16(0, 4, 6);
    tile_bf16(1, 4, 7);
    tile_load(5, b + k, ld * 2);
    tile_bf16(2, 5, 6);
    tile_bf16(3, 5, 7);
  }
  tile_store(0, sums[0], 64);
  tile_store(1, sums[1], 64);
  tile_store(2, sums[2], 64);
  tile_store(3, sums[3], 64);
  finish_tile(tiles, tile, panel, sums[0], sums[1], out);
  finish_tile(tiles, tile + 1, panel, sums[2], sums[3], out);
}

void bf16_tiles(const Matrix& m, const Rows& x, long rows, long begin, long end,
                const Output& out) {
  const RowTiles tiles(rows);
  const TileUse use(tiles.size, 64);
  for (long panel = begin; panel < end;) {
    const bool pair = tiles.count == 1 && panel + 2 <= end;
    int tile = 0;
    for (; tile + 2 <= tiles.count; tile += 2)
      bf16_row_tiles(m, x.halves, x.ld, tiles, tile, panel, out);
    if (tile < tiles.count) bf16_row_tile(m, x.halves, x.ld, tiles, tile, panel, pair, out);
    panel += pair ? 2 : 1;
  }
}

// Scales a tile's sums of one group and adds them to its rows.
inline void add_group(const Rows& x, long row, int count, long g, V sa, V sb,
                      const int32_t (*sums)[16][16], float (*totals)[32]) {
  for (int r = 0; r < count; r++) {
    const long at = (row + r) * x.groups + g;
    const I offset = iset1(x.offsets[at]);
    V low = load(totals[r]), high = load(totals[r] + 16);
    add_scaled(iload(sums[0][r]) + offset, iload(sums[1][r]) + offset, sa, sb, x.scales[at], low,
               high);
    store(totals[r], low);
    store(totals[r] + 16, high);
  }
}

// One or two tiles of rows over one panel.
template <class Weights>
void integer_row_tiles(const Matrix& m, const Rows& x, const RowTiles& tiles, int tile, bool two,
                       long panel, const Output& out) {
  alignas(64) int32_t sums[4][16][16];
  alignas(64) float totals[2][16][32] = {};
  alignas(64) uint8_t unpacked[kPanel * Weights::group];
  const uint8_t* w = m.data + panel * m.panel_bytes;
  const long row = tiles.begin(tile), other = two ? tiles.begin(tile + 1) : row;
  const long groups = m.k / Weights::group;
  for (long g = 0; g < groups; g++, w += Weights::bytes) {
    const uint8_t* weights = unpacked_group(Weights(), w, unpacked);
    tile_zero(0);
    tile_zero(1);
    tile_load(6, weights, kPairBytes);
    tile_load(7, weights + 64, kPairBytes);
    tile_load(4, x.quantised + row * x.ld + g * Weights::group, x.ld);
    tile_signed_unsigned(0, 4, 6);
    tile_signed_unsigned(1, 4, 7);
    tile_store(0, sums[0], 64);
    tile_store(1, sums[1], 64);
    if (two) {
      tile_zero(2);
      tile_zero(3);
      tile_load(5, x.quantised + other * x.ld + g * Weights::group, x.ld);
      tile_signed_unsigned(2, 5, 6);
      tile_signed_unsigned(3, 5, 7);
      tile_store(2, sums[2], 64);
      tile_store(3, sums[3], 64);
    }
    V sa, sb;
    load_bf16_pairs(reinterpret_cast<const uint16_t*>(w + Weights::scales), sa, sb);
    add_group(x, row, tiles.size, g, sa, sb, sums, totals[0]);
    if (two) add_group(x, other, tiles.size, g, sa, sb, sums + 2, totals[1]);
  }
  for (int t = 0; t < (two ? 2 : 1); t++)
    for (int r = tiles.repeated(tile + t); r < tiles.size; r++)
      finish(out, tiles.begin(tile + t) + r, panel, load(totals[t][r]),
             load(totals[t][r] + 16));
}

template <class Weights>
void integer_tiles(const Matrix& m, const Rows& x, long rows, long begin, long end,
                   const Output& out) {
  const RowTiles tiles(rows);
  const TileUse use(tiles.size, Weights::group);
  for (long panel = begin; panel < end; panel++)
    for (int tile = 0; tile < tiles.count; tile += 2)
      integer_row_tiles<Weights>(m, x, tiles, tile, tile + 2 <= tiles.count, panel, out);
}

}  // namespace
