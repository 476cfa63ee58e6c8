// bf16 weights in twelve bits, without loss. A trained matrix' exponents fall into few values: those
// of a panel of 32 columns are moved, all by the same power of two, so that most lie in a window of
// sixteen; four bits then say which. What a row's sums were moved by is taken back at their end.
//
// A panel is a stream of groups: eight k of 32 columns. A group all of whose weights lie in the
// window takes 384 bytes, two sides of 16 columns each; a side is three vectors X, Y, Z of 16 lanes,
// one lane a column. Each lane holds two weights whole, in its halves (k ascending from the low
// one): sign, four spare bits, exponent, mantissa, which is a float's upper half but for the spare
// bits. The spare bits of the three hold the last two weights: X their exponents, Y their signs and
// lower mantissas, Z their upper mantissas.
//
// Any other group ("plain") takes 512 bytes, moved too, in the layout of a bf16 panel. Exponents
// that cannot be moved without loss make the whole panel plain and unmoved.
#pragma once
#include <cstdint>

#include "kernels.h"

namespace atlasd {

class Pool;

// A matrix begins with one of these for each panel; offsets count from there.
struct TwelvePanel {
  int64_t groups;    // where the stream lies, in bytes, a multiple of 64
  int32_t plain;     // where the numbers of its plain groups lie, in int32; the panel's end follows
  int32_t moved;     // exponents by this much
};

constexpr int kTwelveGroup = 8;         // k of a group
constexpr long kTwelveSide = 192;       // bytes of 16 columns
constexpr long kTwelveBytes = 2 * kTwelveSide;
constexpr long kPlainBytes = 512;       // the same weights in 16 bits
constexpr int kTwelveWindow = 112;      // the lowest exponent in four bits, once moved

// Writes a bf16 matrix (padded k) to `out`, which has the room it takes now; returns the bytes
// written, or 0 if little would be gained. Kernels read one byte behind them.
long shorten(Pool& pool, const uint8_t* bf16, long panels, long k, uint8_t* out);

// As unpack_column.
void unpack_twelve(const uint8_t* data, long column, long count, float* out);

}  // namespace atlasd
