// Packing Hugging Face's [columns, k] matrices into panels of 32 columns.
//
// fp32: [k][32]. bf16: [k / 2][32][2], as AMX tiles want it. int8 and int4: per group of k the
// bytes [group / 4][32][4] (see matmul_integer.h), then the 32 scales as bf16 pairs.
#pragma once
#include <cstdint>

#include "kernels.h"
#include "memory.h"

namespace atlasd {

enum class Source : int { fp32 = 0, bf16 = 1, fp16 = 2 };

constexpr long padded(long n, long to) { return (n + to - 1) / to * to; }

constexpr long kGroupPadding = 64;   // k is padded to it in every format

long panel_bytes(Format format, long k);

// Packs `rows` source rows; row i becomes column `start + i`, or with `paired` gate/up panels
// column (i / 16) * 32 + i % 16 + start. Sources of one matrix may be packed one after another,
// if each begins at a multiple of 16 or the format is float. `data` starts out zeroed.
struct Packing {
  Format format;
  Source source;
  const void* values;
  long rows, k;
  uint8_t* data;
  long start;
  int32_t paired;
};
void pack_rows(const Packing& packing, long begin, long end);

// One column of a packed matrix as floats: the embedding of a token from a tied head.
void unpack_column(Format format, const uint8_t* data, long k, long column, long count,
                   float* out);

// Columns of a matrix as one of their own, in this format; `memory` holds it.
Matrix gather_columns(const Matrix& from, const int32_t* columns, long count, Format format,
                      Memory& memory);

// Moves one column between packed matrices of the same format and k.
void copy_column(Format format, const uint8_t* from, long from_column, uint8_t* to,
                 long to_column, long k);

void widen(Source source, const void* values, long offset, long count, float* out);

// Of cached files; fast rather than strong.
uint64_t checksum(const uint8_t* data, long bytes);

}  // namespace atlasd
