#include "vec_avx512.h"

#include "isa.h"
#include "matmul_twelve.h"
#include "quantise_avx512.h"

namespace atlasd {
namespace {

void matmul(const Matrix& m, const Rows& x, long rows, long begin, long end, const Output& out) {
  if (m.format == Format::twelve) return twelve_matmul(m, x, rows, begin, end, out);
  matmul_any(m, x, rows, begin, end, out);
}

constexpr Kernels make() {
  Kernels kernels = make_kernels("avx512");
  kernels.matmul = matmul;
  kernels.quantise = quantise_by_chunks;
  kernels.kept = Format::twelve;
  return kernels;
}

}  // namespace

extern const Kernels kernels_avx512 = make();

}  // namespace atlasd
