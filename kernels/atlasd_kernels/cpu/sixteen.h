// bf16 weights as integers of 13 bits in sixteen: for processors without AVX-512, which add up products
// of two pairs of such integers where they multiply and add one float.
//
// A group is 64 k of a column, in units of one power of two: the largest weight takes twelve bits
// beside its sign. bf16 has eight, so all down to a sixteenth of it are whole; smaller ones are
// rounded. A panel's group is [32 pairs of k][32 columns][2], then 32 units as bf16 pairs.
//
// Activations are rounded to fourteen bits with their signs, also by groups. The sum of 64 products
// then fits 32 bits, whatever they are: it is exact.
#pragma once
#include <cstdint>

#include "kernels.h"

namespace atlasd {

class Pool;

constexpr long kSixteenGroup = 64;
constexpr long kSixteenScales = kPanel * kSixteenGroup * 2;        // where the units lie
constexpr long kSixteenBytes = kSixteenScales + kPanel * 2;        // of a group
constexpr int kWeightBits = 12;                                    // beside the sign
constexpr int kActivationLevels = 8191;

static_assert(int64_t{kSixteenGroup} * ((1 << kWeightBits) - 1) * kActivationLevels <= INT32_MAX);

constexpr long sixteen_panel_bytes(long k) { return k / kSixteenGroup * kSixteenBytes; }

// Writes a bf16 matrix (padded k) to `out`; false if rounding takes more than 2^-10 of some column's
// size (root of the sum of squares), about what bf16 took of it, or some weights are no numbers.
bool shorten_sixteen(Pool& pool, const uint8_t* bf16, long panels, long k, uint8_t* out);

}  // namespace atlasd
