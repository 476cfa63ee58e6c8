#include "vec_avx512.h"

#include "isa.h"

namespace atlasd {
extern const Kernels kernels_avx512 = make_kernels("avx512");
}
