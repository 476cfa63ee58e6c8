// bf16 weights as fp16 numbers in twelve bits: for AVX512-FP16, which multiplies and adds 32 of them
// at a time, twice as many as floats.
//
// A column's weights are moved by one power of two, so that the largest lies in [1, 2). What is left
// of an exponent takes four bits: down to 2^-14 every weight is whole. Smaller ones are denormals,
// rounded to multiples of 2^-21; that happens to one weight in some thousands.
//
// A panel is 32 floats, what each column's sums are moved back by, and a stream of groups: four k of
// 32 columns, three vectors X, Y, Z of 32 numbers. A number is a weight whole (sign, exponent,
// mantissa where fp16 has them) and four spare bits: 14, and 2 to 0. Those hold the fourth k:
//
//   X: its bits 15, 5, 4, 3     Y: 10, 9, 8, and 6 of the neighbour     Z: 13, 12, 11, and 7 of it
//
// where neighbours are columns 2n and 2n + 1; so that two rotations, two selections and a product of
// bit matrices put it together (matmul_fp16.h).
#pragma once
#include <cstdint>

#include "kernels.h"

namespace atlasd {

class Pool;

constexpr long kFp16Group = 4;       // k of a group
constexpr long kFp16Bytes = 192;     // of a group
constexpr long kFp16Header = 128;
constexpr uint16_t kFp16Whole = 0xBFF8;   // a number's bits that are its own weight

constexpr long fp16_panel_bytes(long k) { return kFp16Header + k / kFp16Group * kFp16Bytes; }

// Writes a bf16 matrix (padded k) to `out`, all zeros; false, and nothing written, if more than one
// in 64 of a column's weights would be rounded, or some are no numbers.
bool shorten_fp16(Pool& pool, const uint8_t* bf16, long panels, long k, uint8_t* out);

// The same for one panel.
bool shorten_fp16_panel(const uint8_t* bf16, long k, uint8_t* out);

// As unpack_column.
void unpack_fp16(const uint8_t* data, long k, long column, long count, float* out);

}  // namespace atlasd
