// AMX tile operations, as few as matmul_tiles.h needs: eight registers of up to 16 rows of 64 bytes.
//
// With ATLASD_EMULATE_TILES the same code runs on a scalar model of them, written from the
// operation sections of Intel's manual (TILELOADD, TDPBF16PS, TDPBSUD), for machines without AMX.
#pragma once
#include <cstdint>
#include <cstring>

namespace {

// What LDTILECFG reads: palette 1, then per register bytes a row and rows.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileShapes) == 64, "the processor reads 64 bytes");

}  // namespace

#ifndef ATLASD_EMULATE_TILES
#include <immintrin.h>

// Register numbers become part of the instruction's text: macros, not functions. What is read from
// memory is said here: GCC 12's own intrinsics name eight bytes of the shapes, and none of what a
// tile is loaded from, so that it may drop or move the stores before them.
#define tile_shapes(shapes) asm volatile("ldtilecfg %0" : : "m"(*(shapes)))
#define tile_release() _tile_release()
#define tile_zero(t) _tile_zero(t)
#define tile_load(t, base, stride)                        \
  asm volatile("tileloadd (%0,%1,1), %%tmm" #t            \
               :                                          \
               : "r"(base), "r"(static_cast<long>(stride)) \
               : "memory")
#define tile_store(t, base, stride) _tile_stored(t, base, stride)
#define tile_bf16(c, a, b) _tile_dpbf16ps(c, a, b)
#define tile_signed_unsigned(c, a, b) _tile_dpbsud(c, a, b)

#else
#include <cmath>
#include <cstdlib>

namespace {

struct EmulatedTiles {
  TileShapes shapes;
  uint8_t data[8][16][64] = {};
};
thread_local EmulatedTiles emulated;

// For the test of the check at load: a processor that multiplies wrongly.
inline bool emulate_fault() {
  static const bool fault = getenv("ATLASD_EMULATE_FAULT") != nullptr;
  return fault;
}

inline void require_tiles(bool condition) {
  if (!condition) abort();   // the processor raises #UD
}

inline bool all_zero(const void* p, int count) {
  for (int i = 0; i < count; i++)
    if (static_cast<const uint8_t*>(p)[i]) return false;
  return true;
}

// A register has rows and columns or neither; what palette 1 does not have is zero.
inline void tile_shapes(const TileShapes* shapes) {
  emulated = {};
  emulated.shapes = *shapes;
  require_tiles(shapes->palette == 1 && all_zero(shapes->reserved, sizeof shapes->reserved));
  require_tiles(all_zero(shapes->row_bytes + 8, 16) && all_zero(shapes->rows + 8, 8));
  for (int t = 0; t < 8; t++) {
    require_tiles(shapes->rows[t] <= 16 && shapes->row_bytes[t] <= 64);
    require_tiles((shapes->rows[t] == 0) == (shapes->row_bytes[t] == 0));
  }
}
inline void tile_release() {
  emulated = {};
  emulated.shapes.palette = 0;
}
inline void require_shape(int t) {
  require_tiles(emulated.shapes.palette == 1 && emulated.shapes.rows[t]);
}
inline void tile_zero(int t) {
  require_shape(t);
  memset(emulated.data[t], 0, sizeof emulated.data[t]);
}

inline void tile_load(int t, const void* base, long stride) {
  tile_zero(t);
  for (int r = 0; r < emulated.shapes.rows[t]; r++)
    memcpy(emulated.data[t][r], static_cast<const uint8_t*>(base) + r * stride,
           emulated.shapes.row_bytes[t]);
}
inline void tile_store(int t, void* base, long stride) {
  require_shape(t);
  for (int r = 0; r < emulated.shapes.rows[t]; r++)
    memcpy(static_cast<uint8_t*>(base) + r * stride, emulated.data[t][r],
           emulated.shapes.row_bytes[t]);
}

inline void check_product(int c, int a, int b) {
  const TileShapes& s = emulated.shapes;
  require_tiles(s.palette == 1 && c != a && c != b && a != b);
  require_tiles(s.rows[c] && s.rows[c] == s.rows[a] && s.row_bytes[c] == s.row_bytes[b]);
  require_tiles(s.row_bytes[a] == 4 * s.rows[b] && s.row_bytes[b] % 4 == 0);
}

// Denormals count as zero and become zero.
inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
inline float widened(const uint8_t* p) {
  uint16_t half;
  memcpy(&half, p, 2);
  const uint32_t bits = uint32_t{half} << 16;
  float x;
  memcpy(&x, &bits, 4);
  return flushed(x);
}

// Per output two chains of fused multiply-adds over the even and the odd elements, from zero;
// their sum is added to what is there.
inline void tile_bf16(int c, int a, int b) {
  check_product(c, a, b);
  const TileShapes& s = emulated.shapes;
  const int columns = s.row_bytes[c] / 4, depth = s.row_bytes[a] / 4;
  for (int m = 0; m < s.rows[c]; m++) {
    float sums[2][16] = {};
    for (int k = 0; k < depth; k++)
      for (int odd = 0; odd < 2; odd++) {
        const float x = widened(&emulated.data[a][m][4 * k + 2 * odd]);
        for (int n = 0; n < columns; n++)
          sums[odd][n] = flushed(__builtin_fmaf(
              x, widened(&emulated.data[b][k][4 * n + 2 * odd]), sums[odd][n]));
      }
    for (int n = 0; n < columns; n++) {
      float total;
      memcpy(&total, &emulated.data[c][m][4 * n], 4);
      total = flushed(total + flushed(sums[0][n] + sums[1][n]));
      if (emulate_fault() && m == 3) total += 1.0f;
      memcpy(&emulated.data[c][m][4 * n], &total, 4);
    }
  }
}

// Signed bytes of a times unsigned bytes of b, summed as 32-bit integers.
inline void tile_signed_unsigned(int c, int a, int b) {
  check_product(c, a, b);
  const TileShapes& s = emulated.shapes;
  for (int m = 0; m < s.rows[c]; m++)
    for (int n = 0; n < s.row_bytes[c] / 4; n++) {
      int32_t total;
      memcpy(&total, &emulated.data[c][m][4 * n], 4);
      for (int i = 0; i < s.row_bytes[a]; i++)
        total += static_cast<int8_t>(emulated.data[a][m][i]) *
                 emulated.data[b][i / 4][4 * n + i % 4];
      memcpy(&emulated.data[c][m][4 * n], &total, 4);
    }
}

}  // namespace
#endif
