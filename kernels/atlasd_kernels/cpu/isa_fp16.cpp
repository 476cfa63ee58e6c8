// AVX-512 with bf16 weights multiplied as fp16 numbers, and with attention over an fp16 cache, where
// the processor has AVX512-FP16.
#include "vec_avx512.h"

#include "kernels.h"
#include "vector_math.h"

// order matters: each uses what stands above
#include "finish.h"
#include "matmul_float.h"
#include "matmul_integer.h"
#include "matmul_fp16.h"
#include "attention_fp16.h"

namespace atlasd {

extern const Kernels kernels_avx512;

namespace {

constexpr long kRaisedRows = 3;

void matmul(const Matrix& m, const Rows& x, long rows, long begin, long end, const Output& out) {
  if (m.format == Format::fp16) return fp16_matmul(m, x, rows, begin, end, out);
  // With GFNI, which is there with FP16; fewer rows are bound by reading the weights.
  if (m.format == Format::int4 && rows >= kRaisedRows)
    return integer_matmul<Int4>(m, x, rows, begin, end, out);
  kernels_avx512.matmul(m, x, rows, begin, end, out);
}

void cache(const float* k, const float* v, int dim, int place, Numbers numbers, void* keys,
           void* value) {
  if (numbers == Numbers::fp16) return half_cache_row(k, v, dim, place, keys, value);
  kernels_avx512.cache(k, v, dim, place, numbers, keys, value);
}

void attend(const Attention& a) {
  if (a.numbers == Numbers::fp16) return half_attend(a);
  kernels_avx512.attend(a);
}

}  // namespace

const Kernels& kernels_fp16() {
  static const Kernels kernels = [] {
    Kernels made = kernels_avx512;
    made.name = "avx512fp16";
    made.matmul = matmul;
    made.cache = cache;
    made.attend = attend;
    made.queries = kHalfQueries;
    made.cached = Numbers::fp16;
    made.kept = made.rounded = Format::fp16;
    made.round = fp16_row;
    made.round_block = kFp16Rows;
    return made;
  }();
  return kernels;
}

}  // namespace atlasd
