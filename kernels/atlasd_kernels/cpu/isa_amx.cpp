// AVX-512 with the matmuls in AMX tiles, and the check that these compute what they should.
#include "vec_avx512.h"

#include "kernels.h"
#include "vector_math.h"
// order matters: each uses what stands above
#include "finish.h"
#include "matmul_float.h"
#include "matmul_integer.h"
#include "tiles.h"
#include "matmul_tiles.h"

#include <cmath>
#include <vector>

namespace atlasd {

extern const Kernels kernels_avx512;

namespace {

// Below, integer rows go through VNNI: the bits are the same, and a tile would be nearly empty.
constexpr long kTileRows = 4;

void matmul(const Matrix& m, const Rows& x, long rows, long begin, long end, const Output& out) {
  if (m.format == Format::bf16) return bf16_tiles(m, x, rows, begin, end, out);
  if (rows >= kTileRows && m.format == Format::int8)
    return integer_tiles<Int8>(m, x, rows, begin, end, out);
  if (rows >= kTileRows && m.format == Format::int4)
    return integer_tiles<Int4>(m, x, rows, begin, end, out);
  kernels_avx512.matmul(m, x, rows, begin, end, out);
}

// Rounds to the nearest bf16, ties to even; a row lies in one piece.
float round_row(const float* x, long k, long, uint16_t* out) {
  for (long i = 0; i < k; i += 16) {
    const __m512i bits = _mm512_castps_si512(_mm512_loadu_ps(x + i));
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    const __m256i half = _mm512_cvtepi32_epi16(_mm512_srli_epi32(sum, 16));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), half);
  }
  return 1.0f;
}

constexpr Kernels make() {
  Kernels kernels = kernels_avx512;
  kernels.name = "amx";
  kernels.matmul = matmul;
  kernels.kept = kernels.rounded = Format::bf16;
  kernels.round = round_row;
  return kernels;
}

// A small product: 64 columns, 128 deep, up to 33 rows of numbers that look random.
struct Trial {
  static constexpr long columns = 64, k = 128, most = 33;
  std::vector<uint8_t> weights;
  std::vector<float> values;
  std::vector<uint16_t> halves;
  std::vector<int8_t> quantised;
  std::vector<float> scales;
  std::vector<int32_t> offsets;
  uint32_t state = 12345;

  uint32_t next() { return state = state * 1664525u + 1013904223u, state >> 8; }

  explicit Trial()
      : weights(columns * k * 2), values(most * k), halves(most * k), quantised(most * k),
        scales(most * 4, 0.01f), offsets(most * 4) {
    for (float& x : values) x = static_cast<float>(next() % 2048) / 512.0f - 2.0f;
    for (long r = 0; r < most; r++) round_row(values.data() + r * k, k, 4, halves.data() + r * k);
    for (int8_t& q : quantised) q = static_cast<int8_t>(next() % 255 - 127);
    for (int32_t& o : offsets) o = static_cast<int32_t>(next() % 20000) - 10000;
    // bf16 numbers between 0.5 and 2 with either sign, which are fine as bytes and scales too
    for (long i = 0; i < columns * k; i++) {
      const uint16_t w = static_cast<uint16_t>(0x3F00 + next() % 0x100 + (next() & 1) * 0x8000);
      memcpy(&weights[2 * i], &w, 2);
    }
  }

  Matrix matrix(Format f, long panel_bytes) const {
    return {f, weights.data(), columns / kPanel, k, panel_bytes};
  }
  Rows rows(long first, long groups) const {
    return {values.data() + first * k, k, quantised.data() + first * k,
            scales.data() + first * groups, offsets.data() + first * groups, groups,
            halves.data() + first * k};
  }
};

// Every row alone and among others, against `wanted` [most, columns] within `tolerance`.
bool rows_agree(const Trial& trial, const Matrix& m, long groups, const float* wanted,
                float tolerance, void (*multiply)(const Matrix&, const Rows&, long, long, long,
                                                  const Output&)) {
  std::vector<float> alone(Trial::columns), together(Trial::most * Trial::columns);
  for (const long count : {long{5}, long{16}, long{29}, Trial::most}) {
    const Output all{together.data(), Trial::columns, Finish::store, nullptr};
    multiply(m, trial.rows(0, groups), count, 0, m.panels, all);
    for (long r = 0; r < count; r++) {
      const Output one{alone.data(), Trial::columns, Finish::store, nullptr};
      multiply(m, trial.rows(r, groups), 1, 0, m.panels, one);
      const float* row = together.data() + r * Trial::columns;
      if (memcmp(alone.data(), row, Trial::columns * 4)) return false;
      for (long c = 0; c < Trial::columns; c++)
        if (!(std::fabs(row[c] - wanted[r * Trial::columns + c]) <= tolerance)) return false;
    }
  }
  return true;
}

}  // namespace

const Kernels& kernels_amx() {
  static const Kernels kernels = make();
  return kernels;
}

// Whether tiles give AVX-512's results: integers to the bit, bf16 to rounding, and each row the
// same bits alone and among others.
bool tiles_agree() {
  const Trial trial;
  std::vector<float> wanted(Trial::most * Trial::columns);
  const Output out{wanted.data(), Trial::columns, Finish::store, nullptr};

  const Matrix half = trial.matrix(Format::bf16, Trial::k * kPanel * 2);
  Trial rounded = trial;
  for (size_t i = 0; i < rounded.values.size(); i++) {
    const uint32_t bits = uint32_t{trial.halves[i]} << 16;
    memcpy(&rounded.values[i], &bits, 4);
  }
  kernels_avx512.matmul(half, rounded.rows(0, 0), Trial::most, 0, half.panels, out);
  if (!rows_agree(trial, half, 0, wanted.data(), 1e-3f, bf16_tiles)) return false;

  const Matrix bytes = trial.matrix(Format::int8, Trial::k / Int8::group * Int8::bytes);
  kernels_avx512.matmul(bytes, trial.rows(0, 2), Trial::most, 0, bytes.panels, out);
  if (!rows_agree(trial, bytes, 2, wanted.data(), 0.0f, integer_tiles<Int8>)) return false;

  const Matrix nibbles = trial.matrix(Format::int4, Trial::k / Int4::group * Int4::bytes);
  kernels_avx512.matmul(nibbles, trial.rows(0, 4), Trial::most, 0, nibbles.panels, out);
  return rows_agree(trial, nibbles, 4, wanted.data(), 0.0f, integer_tiles<Int4>);
}

}  // namespace atlasd
