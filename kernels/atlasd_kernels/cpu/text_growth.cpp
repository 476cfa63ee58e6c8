// Making text findable: a whole piece at once, and verified tokens one by one.
#include <algorithm>

#include "text.h"

namespace atlasd::text {

int32_t Text::append(Stream& stream, const int32_t* tokens, int32_t count) {
  const int32_t piece = stream.tail_piece;
  if (piece < 0) return 0;
  // The tail's run was reserved for it: Python says where it stops.
  int32_t done = 0;
  for (; done < count; done++) {
    const int32_t position = arrays.piece_stop[piece];
    if (position >= stream.tail_limit) break;
    arrays.tokens[position] = tokens[done];
    arrays.piece_stop[piece] = position + 1;
    stream.tokens.push_back(tokens[done]);
    stream.prefix.push_back(extend_hash(stream.prefix.back(), tokens[done]));
    const int32_t known = int32_t(stream.prefix.size()) - 1;
    const uint64_t* hash = &stream.prefix.back();
    for (int index = 0; index < kOrders && known >= kOrder[index]; index++) {
      int32_t& head = arrays.heads[index][slot_of(key_of(hash, index), arrays.masks[index])];
      if (head == position) continue;  // a re-used place that is the newest keeps its chain
      arrays.links[index][position] = head;
      head = position;
    }
  }
  return done;
}

void Text::insert(const int32_t* tokens, int32_t count, int32_t first, int32_t skip) {
  constexpr int32_t kFetchAhead = 24;  // heads lie anywhere: ask for them before they are needed
  scratch_hash_.resize(count + 1);
  scratch_hash_[0] = 0;
  for (int32_t i = 0; i < count; i++)
    scratch_hash_[i + 1] = extend_hash(scratch_hash_[i], tokens[i]);
  slots_.resize(count);
  for (int index = 0; index < kOrders; index++) {
    const int32_t begin = std::max(skip, kOrder[index] - 1);
    int32_t* heads = arrays.heads[index];
    int32_t* links = arrays.links[index];
    for (int32_t i = begin; i < count; i++)
      slots_[i] = slot_of(key_of(&scratch_hash_[i + 1], index), arrays.masks[index]);
    for (int32_t i = begin; i < count; i++) {
      if (i + kFetchAhead < count) __builtin_prefetch(heads + slots_[i + kFetchAhead], 1);
      const int32_t position = first + i;
      int32_t& head = heads[slots_[i]];
      if (head == position) continue;  // a re-used place that is the newest keeps its chain
      links[position] = head;
      head = position;
    }
  }
}

}  // namespace atlasd::text
