// exp, log and SiLU over sixteen lanes: the same operations in the same order everywhere.
#pragma once

namespace {

// Relative error about 1e-7; arguments below -87 give about 1e-38, never a denormal.
inline V exp(V x) {
  x = min(max(x, set1(-87.0f)), set1(88.0f));
  const I n = to_int(x * set1(1.44269504f));
  const V nf = to_float(n);
  V r = fma(nf, set1(-0.693359375f), x);
  r = fma(nf, set1(2.12194440e-4f), r);
  V p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = fma(p, r * r, r + set1(1.0f));
  return p * from_bits(shift_left<23>(n + iset1(127)));
}

// Natural logarithm of positive normal numbers.
inline V log(V x) {
  // mantissa in [sqrt(1/2), sqrt(2)), so that log(1 + f) needs few terms
  const I shifted = bits(x) - iset1(0x3F3504F3);
  const I exponent = shift_right<23>(shifted + iset1(128 << 23)) - iset1(128);
  const V m = from_bits(bits(x) - shift_left<23>(exponent));
  const V f = m - set1(1.0f);
  V p = set1(7.0376836292e-2f);
  p = fma(p, f, set1(-1.1514610310e-1f));
  p = fma(p, f, set1(1.1676998740e-1f));
  p = fma(p, f, set1(-1.2420140846e-1f));
  p = fma(p, f, set1(1.4249322787e-1f));
  p = fma(p, f, set1(-1.6668057665e-1f));
  p = fma(p, f, set1(2.0000714765e-1f));
  p = fma(p, f, set1(-2.4999993993e-1f));
  p = fma(p, f, set1(3.3333331174e-1f));
  const V square = f * f;
  p = p * f * square;
  p = fma(square, set1(-0.5f), p);
  const V e = to_float(exponent);
  p = fma(e, set1(-2.12194440e-4f), p);
  return fma(e, set1(0.693359375f), f + p);
}

inline V silu(V x) { return x / (set1(1.0f) + exp(set1(0.0f) - x)); }

}  // namespace
