// Which instruction sets this processor and its operating system offer.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "kernels.h"

#if defined(ATLASD_NEON) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#if defined(ATLASD_FP16) || defined(ATLASD_AVXVNNI)
#include <cpuid.h>
#endif
#if defined(ATLASD_AMX) && defined(__linux__)
#include <csetjmp>
#include <csignal>
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace atlasd {

extern const Kernels kernels_portable;
#ifdef ATLASD_X86
extern const Kernels kernels_avx512;
extern const Kernels kernels_avx2;
#endif
#ifdef ATLASD_AVXVNNI
extern const Kernels kernels_avxvnni;
#endif
#ifdef ATLASD_NEON
extern const Kernels kernels_neon;
#endif
#ifdef ATLASD_FP16
const Kernels& kernels_fp16();
#endif
#ifdef ATLASD_AMX
const Kernels& kernels_amx();
bool tiles_agree();
#endif

namespace {

#ifdef ATLASD_FP16
// AVX512-FP16, and the products of bit matrices that its weights are decoded with; compilers know
// the first by name only of late. The registers are those of AVX-512.
bool fp16_offered() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kGfni = 1u << 8, kFp16 = 1u << 23;
  return (c & kGfni) != 0 && (d & kFp16) != 0;
}
#endif

#ifdef ATLASD_NEON
// The dot products of bytes that ARMv8.2 may have; Apple's processors all do.
bool dot_products_offered() {
#ifdef __linux__
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return true;
#endif
}
#endif

#ifdef ATLASD_AVXVNNI
// Byte products in the registers of AVX2; compilers know it by name only of late.
bool avxvnni_offered() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4) != 0;
}
#endif

#if defined(ATLASD_AMX) && defined(__linux__)
#ifdef ATLASD_EMULATE_TILES
bool tiles_offered() { return true; }
#else
// The processor has AMX for bf16 and bytes, the system saves its registers, and lets us use them.
bool tiles_offered() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;
  if ((d & (kBf16 | kTile | kInt8)) != (kBf16 | kTile | kInt8)) return false;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr unsigned kTileState = 3u << 17;
  if ((low & kTileState) != kTileState) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;   // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

sigjmp_buf tiles_refused;
void refuse_tiles(int) { siglongjmp(tiles_refused, 1); }

// Other programs' builds have crashed on machines that claim to have AMX: so a first try is
// caught, and what it computes is compared.
const char* tiles_fault() {
  struct sigaction caught = {}, before = {};
  caught.sa_handler = refuse_tiles;
  sigaction(SIGILL, &caught, &before);
  const char* fault = nullptr;
  if (sigsetjmp(tiles_refused, 1)) fault = "AMX is announced but its instructions are refused";
  else if (!tiles_agree()) fault = "AMX computes something else than AVX-512 here";
  sigaction(SIGILL, &before, nullptr);
  return fault;
}
#endif

#if defined(ATLASD_AMX) && defined(__linux__)
// Tiles, with attention in fp16 where the processor has that, too.
const Kernels& kernels_tiles() {
  static const Kernels kernels = [] {
    Kernels made = kernels_amx();
#ifdef ATLASD_FP16
    if (fp16_offered()) {
      const Kernels& fp16 = kernels_fp16();
      made.cache = fp16.cache;
      made.attend = fp16.attend;
      made.queries = fp16.queries;
      made.cached = fp16.cached;
    }
#endif
    return made;
  }();
  return kernels;
}
#endif

struct Available {
  const Kernels* list[7] = {};
  const char* note = nullptr;
  Available() {
    int n = 0;
#ifdef ATLASD_X86
    __builtin_cpu_init();   // also looks at what the operating system saves (xgetbv)
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vnni");
#if defined(ATLASD_AMX) && defined(__linux__)
    if (avx512 && tiles_offered()) {
      note = tiles_fault();
      if (!note) list[n++] = &kernels_tiles();
    }
#endif
#ifdef ATLASD_FP16
    if (avx512 && fp16_offered()) list[n++] = &kernels_fp16();
#endif
    if (avx512) list[n++] = &kernels_avx512;
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#ifdef ATLASD_AVXVNNI
    if (avx2 && avxvnni_offered()) list[n++] = &kernels_avxvnni;
#endif
    if (avx2) list[n++] = &kernels_avx2;
#endif
#ifdef ATLASD_NEON
    if (dot_products_offered()) list[n++] = &kernels_neon;
#endif
    list[n] = &kernels_portable;
    start_from(getenv("ATLASD_ISA"));
  }

  // Leaves out what is better than this set: to see here what another processor would do.
  void start_from(const char* name) {
    if (!name || !*name) return;
    int first = 0;
    while (list[first] && strcmp(list[first]->name, name)) first++;
    if (!list[first]) {
      note = "ATLASD_ISA names no instruction set that this processor offers";
      return;
    }
    std::copy(std::begin(list) + first, std::end(list) - 1, std::begin(list));
    std::fill(std::end(list) - 1 - first, std::end(list), nullptr);
  }
};

const Available& available() {
  static const Available found;
  return found;
}

}  // namespace

const Kernels* const* available_kernels() { return available().list; }

const char* kernels_note() { return available().note; }

const Kernels* find_kernels(const char* name) {
  const Kernels* const* list = available_kernels();
  if (!name) return list[0];
  for (; *list; list++)
    if (!strcmp((*list)->name, name)) return *list;
  return nullptr;
}

}  // namespace atlasd
