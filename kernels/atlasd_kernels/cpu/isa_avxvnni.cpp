// AVX2 with the integer products of AVX-VNNI, which most processors without AVX-512 have since 2021.
#include "narrow.h"

#include "matmul_sixteen.h"

namespace atlasd {
namespace {

void matmul(const Matrix& m, const Rows& x, long rows, long begin, long end, const Output& out) {
  if (m.format == Format::sixteen) return narrow_matmul<Sixteen>(m, x, rows, begin, end, out);
  narrow_any(m, x, rows, begin, end, out);
}

constexpr Kernels make() {
  Kernels kernels = narrow_kernels("avxvnni");
  kernels.matmul = matmul;
  kernels.kept = Format::sixteen;
  kernels.sixteen = sixteen_row;
  return kernels;
}

}  // namespace

extern const Kernels kernels_avxvnni = make();

}  // namespace atlasd
