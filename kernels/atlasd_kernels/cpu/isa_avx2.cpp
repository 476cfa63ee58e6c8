#include "narrow.h"

namespace atlasd {
extern const Kernels kernels_avx2 = narrow_kernels("avx2");
}
