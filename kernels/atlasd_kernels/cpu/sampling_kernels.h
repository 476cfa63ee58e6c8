// Choosing a token from one row of logits; n need not be a multiple of 16.
#pragma once

namespace {

constexpr float kLowest = -__builtin_inff();

// The last vector of a row, filled up with -inf.
inline V load_tail(const float* p, long count) {
  alignas(64) float lane[16];
  for (int i = 0; i < 16; i++) lane[i] = i < count ? p[i] : kLowest;
  return load(lane);
}

inline V load_part(const float* p, long i, long n) {
  return i + 16 <= n ? load(p + i) : load_tail(p + i, n - i);
}

inline float largest(const float* logits, long n) {
  V most[4] = {set1(kLowest), set1(kLowest), set1(kLowest), set1(kLowest)};
  long i = 0;
  for (; i + 64 <= n; i += 64)
    for (int j = 0; j < 4; j++) most[j] = max(most[j], load(logits + i + 16 * j));
  for (; i < n; i += 16) most[0] = max(most[0], load_part(logits, i, n));
  return max_lanes(max(max(most[0], most[1]), max(most[2], most[3])));
}

bool has_nan_row(const float* logits, long n) {
  bool found = false;
  for (long i = 0; i < n; i += 32) {
    const V second = i + 16 < n ? load_part(logits, i + 16, n) : set1(kLowest);
    found |= any_nan(load_part(logits, i, n), second);
  }
  return found;
}

int32_t argmax_row(const float* logits, long n) {
  const float most = largest(logits, n);
  long i = 0;
  while (i < n && !any_equal(load_part(logits, i, n), set1(most))) i += 16;
  for (; i < n; i++)
    if (logits[i] == most) return static_cast<int32_t>(i);
  return 0;   // only if there are NaNs
}

float log_sum_exp_row(const float* logits, long n) {
  const float most = largest(logits, n);
  V sums[2] = {zero(), zero()};
  for (long i = 0; i < n; i += 16) {
    const V x = load_part(logits, i, n) - set1(most);
    const V e = exp(x);
    sums[(i / 16) % 2] = sums[(i / 16) % 2] + e;
  }
  return most + __builtin_logf(sum_lanes(sums[0] + sums[1]));
}

// Philox4x32-10: counters (block, output_index, choice, 0) for sixteen blocks of four tokens.
inline void philox(I block, const Noise& noise, I word[4]) {
  word[0] = block;
  word[1] = iset1(static_cast<int32_t>(noise.output_index));
  word[2] = iset1(static_cast<int32_t>(noise.choice));
  word[3] = iset1(0);
  uint32_t key0 = static_cast<uint32_t>(noise.seed);
  uint32_t key1 = static_cast<uint32_t>(noise.seed >> 32);
  for (int round = 0; round < 10; round++) {
    I high0, low0, high1, low1;
    multiply_wide(word[0], iset1(static_cast<int32_t>(0xD2511F53u)), high0, low0);
    multiply_wide(word[2], iset1(static_cast<int32_t>(0xCD9E8D57u)), high1, low1);
    word[0] = high1 ^ word[1] ^ iset1(static_cast<int32_t>(key0));
    word[1] = low1;
    word[2] = high0 ^ word[3] ^ iset1(static_cast<int32_t>(key1));
    word[3] = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

inline V uniform(I random) {
  return fma(to_float(shift_right<9>(random)), set1(0x1p-23f), set1(0x1p-24f));
}

inline V gumbel(V u) { return set1(0.0f) - log(set1(0.0f) - log(u)); }

// Whether noise made of u may lift a logit above `bound`: it is more than g only where
// -log(u) < exp(-g), and -log(u) is at least 1 - u. Rounding loses far less than the margin.
inline bool may_win(V scaled, V u, float bound) {
  const V most = exp(scaled - set1(bound - 0.01f));
  return any_greater(most, set1(1.0f) - u);
}

// Noise lies between -2.82 and 16.64 (u between 2^-24 and 1 - 2^-24): a token so far below the
// largest logit cannot win, and needs none.
constexpr float kNoiseRange = 20.0f;
constexpr float kLeastNoise = -2.83f;

int32_t sample_row(const float* logits, long n, const Noise& noise) {
  const V inverse = set1(1.0f / noise.temperature);
  alignas(64) int32_t counter[16];
  alignas(64) float random[4][16], ordered[64], lane[16];
  float best = kLowest;
  int32_t token = 0;
  // scaled as the tokens below are, so that the bar and they round alike
  store(lane, set1(largest(logits, n)) * inverse);
  const V bar = set1(lane[0] - kNoiseRange);
  float bound = lane[0] + kLeastNoise;   // which the winner reaches
  for (long i = 0; i < n; i += 64) {
    bool worth = false;
    V scaled[4];
    for (int j = 0; j < 4; j++) {
      scaled[j] = i + 16 * j < n ? load_part(logits, i + 16 * j, n) * inverse : set1(kLowest);
      worth |= any_greater(scaled[j], bar);
    }
    if (!worth) continue;
    for (int j = 0; j < 16; j++) counter[j] = static_cast<int32_t>(i / 4) + j;
    I word[4];
    philox(iload(counter), noise, word);
    const V u[4] = {uniform(word[0]), uniform(word[1]), uniform(word[2]), uniform(word[3])};
    // all 64 at once, since their noise still lies in another order
    const V most = max(max(scaled[0], scaled[1]), max(scaled[2], scaled[3]));
    if (!may_win(set1(max_lanes(most)), max(max(u[0], u[1]), max(u[2], u[3])), bound)) continue;
    for (int j = 0; j < 4; j++) store(random[j], u[j]);
    for (int j = 0; j < 64; j++) ordered[j] = random[j % 4][j / 4];
    for (int j = 0; j < 4; j++) {
      const V noisy = scaled[j] + gumbel(load(ordered + 16 * j));
      if (!any_greater(noisy, set1(best))) continue;
      store(lane, noisy);
      for (int k = 0; k < 16; k++)
        if (lane[k] > best) {
          best = lane[k];
          token = static_cast<int32_t>(i + 16 * j + k);
        }
      bound = best > bound ? best : bound;
    }
  }
  return token;
}

int32_t choose_row(const float* logits, long n, const Noise& noise) {
  return noise.temperature > 0.0f ? sample_row(logits, n, noise) : argmax_row(logits, n);
}

// The noise word of every token by itself, where sample_row makes those of four neighbours at once.
int32_t sample_among(const float* logits, const int32_t* ids, long n, const Noise& noise) {
  const V inverse = set1(1.0f / noise.temperature);
  alignas(64) int32_t tail[16] = {};
  alignas(64) float lane[16];
  store(lane, set1(largest(logits, n)) * inverse);
  const V bar = set1(lane[0] - kNoiseRange);
  float best = kLowest, bound = lane[0] + kLeastNoise;
  long place = 0;
  for (long i = 0; i < n; i += 16) {
    const V scaled = load_part(logits, i, n) * inverse;
    if (!any_greater(scaled, bar)) continue;
    if (i + 16 > n) __builtin_memcpy(tail, ids + i, (n - i) * 4);
    const I id = iload(i + 16 > n ? tail : ids + i);
    I word[4], random = iset1(0);
    philox(shift_right<2>(id), noise, word);
    for (int j = 0; j < 4; j++) {
      // all ones where the token is the block's j-th: only nothing less one is negative
      const I other = (id & iset1(3)) ^ iset1(j);
      const I chosen = iset1(0) - shift_right<31>(other - iset1(1));
      random = random | (word[j] & chosen);
    }
    const V u = uniform(random);
    if (!may_win(scaled, u, bound)) continue;
    const V noisy = scaled + gumbel(u);
    if (!any_greater(noisy, set1(best))) continue;
    store(lane, noisy);
    for (int k = 0; k < 16; k++)
      if (lane[k] > best) {
        best = lane[k];
        place = i + k;
      }
    bound = best > bound ? best : bound;
  }
  return static_cast<int32_t>(place);
}

int32_t choose_among_row(const float* logits, const int32_t* ids, long n, const Noise& noise) {
  return noise.temperature > 0.0f ? sample_among(logits, ids, n, noise) : argmax_row(logits, n);
}

// Insertion into a sorted list of k; a vector without a candidate is skipped at once.
void top_k_row(const float* logits, long n, int k, int32_t* ids, float* values) {
  for (int j = 0; j < k; j++) {
    ids[j] = -1;
    values[j] = kLowest;
  }
  for (long i = 0; i < n; i += 16) {
    if (ids[k - 1] >= 0 && !any_greater(load_part(logits, i, n), set1(values[k - 1]))) continue;
    for (long c = i; c < n && c < i + 16; c++) {
      if (ids[k - 1] >= 0 && !(logits[c] > values[k - 1])) continue;
      int place = k - 1;
      while (place > 0 && (ids[place - 1] < 0 || logits[c] > values[place - 1])) {
        ids[place] = ids[place - 1];
        values[place] = values[place - 1];
        place--;
      }
      ids[place] = static_cast<int32_t>(c);
      values[place] = logits[c];
    }
  }
}

}  // namespace
