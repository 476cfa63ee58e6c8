#include "vec_avx2.h"

#include "isa.h"

namespace atlasd {
extern const Kernels kernels_avx2 = make_kernels("avx2");
}
