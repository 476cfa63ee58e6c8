#include "vec_portable.h"

#include "isa.h"

namespace atlasd {
extern const Kernels kernels_portable = make_kernels("portable");
}
