// Where a tile of queries reads keys or values from, and what it fetches meanwhile of what comes next.
#pragma once

namespace {

// N vectors of 16 floats at a time, kVectors at most. This one: floats as the first tile, or what goes
// before it, has left them.
struct Near {
  static constexpr int kVectors = kFloatVectors;
  const float* from;

  template <int N>
  ATLASD_INLINE void load(long at, V* out) const {
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) out[v] = ::load(from + at + 16 * v);
  }
  template <int N>
  ATLASD_INLINE void fetch(long) const {}
};

// An fp32 cache.
struct Floats : Near {
  const uint8_t* ahead;

  template <int N>
  ATLASD_INLINE void fetch(long at) const {
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) prefetch(ahead + 4 * at + 64 * v);
  }
};

// A number of a bf16 cache, which lie in pairs (i, i + 16) of 32, as weights do; a single 16 lies as
// it is.
struct CachedBf16 {
  uint16_t bits;

  template <int N>
  static ATLASD_INLINE void load(const CachedBf16* from, V* out) {
    const uint16_t* bits = &from->bits;
    if (N == 1) out[0] = load_bf16(bits);
#pragma GCC unroll 2
    for (int v = 0; v + 1 < N; v += 2) load_bf16_pairs(bits + 16 * v, out[v], out[v + 1]);
  }
};

// A cache of such numbers.
template <class T>
struct Halves {
  static constexpr int kVectors = kBlock / 16;
  const T* from;
  const uint8_t* ahead;

  template <int N>
  ATLASD_INLINE void load(long at, V* out) const {
    T::template load<N>(from + at, out);
  }
  template <int N>
  ATLASD_INLINE void fetch(long at) const {
    prefetch(ahead + 2 * at);
    if (N == 4) prefetch(ahead + 2 * at + 64);
  }
};

// The same for the first of several tiles, which leaves the floats for the others.
template <class T>
struct Widened : Halves<T> {
  float* wide;

  template <int N>
  ATLASD_INLINE void load(long at, V* out) const {
    Halves<T>::template load<N>(at, out);
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) store(wide + at + 16 * v, out[v]);
  }
};

}  // namespace
