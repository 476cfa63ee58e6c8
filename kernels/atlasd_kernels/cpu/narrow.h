// All kernels of an instruction set with sixteen registers of 256 bits.
#pragma once
#include "vec_avx2.h"

#include "isa.h"
#include "matmul_narrow.h"

namespace {

void narrow_any(const Matrix& m, const Rows& x, long rows, long begin, long end,
                const Output& out) {
  if (rows > kPairedIntegerRows) {   // those have more chains of sums in matmul_integer.h
    if (m.format == Format::int8) return narrow_matmul<Int8>(m, x, rows, begin, end, out);
    if (m.format == Format::int4) return narrow_matmul<Int4>(m, x, rows, begin, end, out);
  }
  matmul_any(m, x, rows, begin, end, out);
}

constexpr Kernels narrow_kernels(const char* name) {
  Kernels kernels = make_kernels(name);
  kernels.matmul = narrow_any;
  return kernels;
}

}  // namespace
