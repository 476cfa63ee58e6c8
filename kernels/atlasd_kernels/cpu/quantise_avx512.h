// quantise_rows (matmul_integer.h), and its bits, as AVX-512 does it best: of four chunks of 64
// numbers at a time the largest numbers are found together, and so are the sums.
#pragma once

namespace {

constexpr int kChunk = 64;   // numbers: a group of INT8, two of INT4

// Four chunks, a vector each: quarters [chunk 0, 1, 2, 3], what a quarter of its lanes joins to.
template <class Join>
inline __m512 join_chunks(const __m512* v, Join join) {
  const __m512 ab = join(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
  const __m512 cd = join(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
  const __m512d x = _mm512_castps_pd(ab), y = _mm512_castps_pd(cd);
  return join(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}

// What a group's lanes join to: of four groups of 64, in the lower half, or of eight groups of 32,
// which have half a vector each.
template <int group, class Join>
inline __m256 join_groups(const __m512* chunks, Join join) {
  const __m512 quarters = join_chunks(chunks, join);
  const __m512 halves = join(quarters, _mm512_shuffle_f32x4(quarters, quarters, 0xB1));
  if (group == kChunk)
    return _mm512_castps512_ps256(join(halves, _mm512_shuffle_f32x4(halves, halves, 0x4E)));
  const __m128 first = _mm512_castps512_ps128(halves), second = _mm512_extractf32x4_ps(halves, 2);
  return _mm256_set_m128(_mm_unpackhi_ps(first, second), _mm_unpacklo_ps(first, second));
}

inline __m512 larger(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
inline __m512 sum_of(__m512 a, __m512 b) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}

// Four chunks, wherever they lie in their rows; behind the last one, that one again.
template <int group>
void quantise_chunks(const Rounding& r) {
  constexpr int each = kChunk / group;
  // packing goes by quarters
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  // zero points of the bytes that numbers meet
  const __m512i zero_points =
      _mm512_set1_epi64(static_cast<int64_t>(group == Int8::group ? 0x8080808080808080
                                                                  : 0x8888888880808080));
  const __m256 full = _mm256_set1_ps(127.0f);
  long row = 0, column = 0;
  for (long left = r.rows * (r.k / kChunk); left > 0; left -= 4) {
    long at[4], place[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
      const bool there = c < left;
      at[c] = there ? row * r.ld + column : at[c - 1];
      place[c] = there ? row * r.groups + column / group : place[c - 1];
      column += kChunk;
      if (column == r.k) column = 0, row++;
    }
    __m512 most[4], sums[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
      const float* p = r.x + at[c];
      const V a = max(abs(load(p)), abs(load(p + 16)));
      const V b = max(abs(load(p + 32)), abs(load(p + 48)));
      most[c] = group == kChunk ? larger(a.v, b.v)
                                : larger(_mm512_shuffle_f32x4(a.v, b.v, 0x44),
                                         _mm512_shuffle_f32x4(a.v, b.v, 0xEE));
    }
    const __m256 largest = join_groups<group>(most, larger);
    const __mmask8 some = _mm256_cmp_ps_mask(largest, _mm256_setzero_ps(), _CMP_GT_OQ);
    alignas(32) float inverse[8], scales[8];
    _mm256_store_ps(inverse, _mm256_maskz_div_ps(some, full, largest));
    _mm256_store_ps(scales, _mm256_div_ps(largest, full));
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
      const float* p = r.x + at[c];
      const V first = set1(inverse[c * each]), second = set1(inverse[c * each + each - 1]);
      const I a = to_int(load(p) * first), b = to_int(load(p + 16) * first);
      const I d = to_int(load(p + 32) * second), e = to_int(load(p + 48) * second);
      const __m512i packed = _mm512_packs_epi16(_mm512_packs_epi32(a.v, b.v),
                                                _mm512_packs_epi32(d.v, e.v));
      const __m512i bytes = _mm512_permutexvar_epi32(order, packed);
      _mm512_storeu_si512(r.values + at[c], bytes);
      sums[c] = _mm512_castsi512_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), zero_points, bytes));
    }
    alignas(32) int32_t offsets[8];
    const __m256i total = _mm256_castps_si256(join_groups<group>(sums, sum_of));
    _mm256_store_si256(reinterpret_cast<__m256i*>(offsets),
                       _mm256_sub_epi32(_mm256_setzero_si256(), total));
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
      __builtin_memcpy(r.scales + place[c], scales + c * each, each * sizeof(float));
      __builtin_memcpy(r.offsets + place[c], offsets + c * each, each * sizeof(int32_t));
    }
  }
}

void quantise_by_chunks(const Rounding& r) {
  r.group == Int8::group ? quantise_chunks<Int8::group>(r) : quantise_chunks<Int4::group>(r);
}

}  // namespace
