// All kernels of one instruction set; a file per set includes its vectors, then this.
#pragma once
#include "kernels.h"
#include "vector_math.h"

// order matters: each uses what stands above
#include "finish.h"
#include "matmul_float.h"
#include "matmul_integer.h"
#include "row_kernels.h"
#include "attention.h"
#include "sampling_kernels.h"
#include "pack_kernels.h"

namespace {

void matmul_any(const Matrix& m, const Rows& x, long rows, long begin, long end,
                const Output& out) {
  switch (m.format) {
    case Format::fp32: return float_matmul<Fp32>(m, x, rows, begin, end, out);
    case Format::bf16: return float_matmul<Bf16>(m, x, rows, begin, end, out);
    case Format::int8: return integer_matmul<Int8>(m, x, rows, begin, end, out);
    case Format::int4: return integer_matmul<Int4>(m, x, rows, begin, end, out);
    case Format::twelve:
    case Format::fp16:
    case Format::sixteen: return;   // sets that keep these have matmuls of their own
  }
}

void attend_all(const Attention& a) {
  a.numbers == Numbers::fp32 ? attend_queries<float>(a) : attend_queries<CachedBf16>(a);
}

constexpr Kernels make_kernels(const char* name) {
  return {name,       matmul_any, quantise_rows, rms_norm_row,    rope_head, cache_row,
          kQueries,   attend_all, choose_row,   choose_among_row, has_nan_row,
          log_sum_exp_row, top_k_row, quantise_group};
}

}  // namespace
