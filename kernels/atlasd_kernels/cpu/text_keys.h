// By which keys text is found: n-grams of a few orders, hashed, and the slots they belong to.
// See atlasd.draft.ngrams, which computes the same.
#pragma once

#include <cstdint>

namespace atlasd::text {

constexpr int kOrders = 4;
constexpr int kOrder[kOrders] = {3, 6, 12, 24};

constexpr uint64_t kSpread = 0x9E3779B97F4A7C15ull;
constexpr uint64_t kBase = 0xD1342543DE82EF95ull;
constexpr uint64_t kMix = 0xBF58476D1CE4E5B9ull;

constexpr uint64_t power(uint64_t base, int exponent) {
  uint64_t value = 1;
  for (int i = 0; i < exponent; i++) value *= base;
  return value;
}

constexpr uint64_t kPower[kOrders] = {power(kBase, 3), power(kBase, 6), power(kBase, 12),
                                      power(kBase, 24)};

// The hash of a prefix that is one token longer.
inline uint64_t extend_hash(uint64_t value, int32_t token) {
  return value * kBase + (uint64_t(token) + 1) * kSpread;
}

// The key of the last tokens of a text; `hash[-n]` is that of all but its last n tokens.
inline uint32_t key_of(const uint64_t* hash, int order_index) {
  uint64_t value = hash[0] - hash[-kOrder[order_index]] * kPower[order_index];
  value = (value ^ (value >> 29)) * kMix;
  return uint32_t(value >> 32);
}

// `mask` has the number of slots in its upper half: slots that are not there yet are still part of
// those they will be split from.
inline uint32_t slot_of(uint32_t key, int64_t mask) {
  const uint32_t slots = uint32_t(mask >> 32), low = uint32_t(mask);
  const uint32_t slot = key & low;
  return slot < slots ? slot : slot & (low >> 1);
}

}  // namespace atlasd::text
