// Which instruction sets this processor and its operating system offer.
#include <cstring>

#include "kernels.h"

namespace atlasd {

extern const Kernels kernels_portable;
#ifdef ATLASD_X86
extern const Kernels kernels_avx512;
extern const Kernels kernels_avx2;
#endif

namespace {

struct Available {
  const Kernels* list[4] = {};
  Available() {
    int n = 0;
#ifdef ATLASD_X86
    __builtin_cpu_init();   // also looks at what the operating system saves (xgetbv)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni"))
      list[n++] = &kernels_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
      list[n++] = &kernels_avx2;
#endif
    list[n] = &kernels_portable;
  }
};

}  // namespace

const Kernels* const* available_kernels() {
  static const Available available;
  return available.list;
}

const Kernels* find_kernels(const char* name) {
  const Kernels* const* list = available_kernels();
  if (!name) return list[0];
  for (; *list; list++)
    if (!strcmp((*list)->name, name)) return *list;
  return nullptr;
}

}  // namespace atlasd
