#include "vec_neon.h"

#include "isa.h"

namespace atlasd {
extern const Kernels kernels_neon = make_kernels("neon");
}
