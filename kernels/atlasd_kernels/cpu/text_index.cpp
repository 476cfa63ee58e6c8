// Looking up the places whose text ends like a stream, and reading on from there.
#include <algorithm>

#include "text.h"

namespace atlasd::text {

namespace {

constexpr int kWalk = 24;
constexpr size_t kCandidates = 6;
constexpr size_t kEnough = 3;

int32_t bit_length(int32_t value) {
  int32_t bits = 0;
  while (value >> bits) bits++;
  return bits;
}

}  // namespace

int32_t Text::piece_at(int32_t position) const {
  for (int32_t p = arrays.run_piece[arrays.run_of[position]]; p >= 0; p = arrays.piece_sibling[p])
    if (arrays.piece_start[p] <= position && position < arrays.piece_stop[p]) return p;
  return -1;
}

bool Text::match_at(int32_t position, const Context& context, int32_t& length,
                    int32_t& piece) const {
  piece = piece_at(position);
  if (piece < 0) return false;
  if (arrays.piece_next[piece] < 0 && position + 1 == arrays.piece_stop[piece]) return false;
  const int32_t before = position + 1 - arrays.run_start[arrays.run_of[position]];
  const int32_t most = std::min(std::min(context.length, before), int32_t(kMaxMatch));
  length = 0;
  while (length < most && arrays.tokens[position - length] == context.end[-1 - length]) length++;
  return true;
}

void Text::find(const Context& context, std::vector<Place>& out) const {
  const int32_t longest = std::min(context.length, context.known);
  const int32_t last = context.end[-1];
  // Whatever is looked at lies anywhere in memory: all orders' newest places are fetched at once.
  const int32_t* heads[kOrders];
  for (int index = 0; index < kOrders && kOrder[index] <= longest; index++) {
    heads[index] = arrays.heads[index] + slot_of(key_of(context.hash, index), arrays.masks[index]);
    __builtin_prefetch(heads[index]);
  }
  for (int index = 0; index < kOrders && kOrder[index] <= longest; index++) {
    if (*heads[index] < 0) continue;
    __builtin_prefetch(arrays.tokens + *heads[index]);
    __builtin_prefetch(arrays.run_of + *heads[index]);
    __builtin_prefetch(arrays.links[index] + *heads[index]);
  }
  for (int index = kOrders - 1; index >= 0; index--) {
    if (kOrder[index] > longest) continue;
    int32_t position = *heads[index];
    if (position < 0) continue;
    for (int step = 0; step < kWalk; step++) {
      if (arrays.tokens[position] == last) {
        int32_t length, piece;
        const bool known =
            std::any_of(out.begin(), out.end(), [&](auto& p) { return p.position == position; });
        if (!known && match_at(position, context, length, piece) && length >= kOrder[index]) {
          Place& place = out.emplace_back();
          place.match = length;
          place.piece = piece;
          place.position = position;
          place.segment = arrays.piece_segment[piece];
          if (out.size() == kCandidates) return;
        }
      }
      const int32_t older = arrays.links[index][position];
      if (older < 0 || (older >= position && step > 2)) break;
      position = older;
    }
    if (out.size() >= kEnough) break;
  }
}

int32_t Text::continuation(int32_t piece, int32_t position, int32_t limit, int32_t* out) const {
  int32_t count = 0, from = position + 1;
  while (piece >= 0 && count < limit) {
    const int32_t size = std::min(arrays.piece_stop[piece] - from, limit - count);
    for (int32_t i = 0; i < size; i++) out[count + i] = arrays.tokens[from + i];
    count += std::max(size, 0);
    piece = arrays.piece_next[piece];
    if (piece >= 0) from = arrays.piece_start[piece];
  }
  return count;
}

int32_t Text::advance(int32_t piece, int32_t position, int32_t count) const {
  while (piece >= 0) {
    const int32_t room = arrays.piece_stop[piece] - 1 - position;
    if (count <= room) return position + count;
    count -= room + 1;
    piece = arrays.piece_next[piece];
    if (piece < 0) return -1;
    position = arrays.piece_start[piece];
  }
  return -1;
}

void Text::places(const Stream& stream, const Context& context,
                  const std::vector<Pointer>& pointers, int32_t limit,
                  std::vector<Place>& out) const {
  out.clear();
  find(context, out);
  uint32_t open = 0;  // pointers in step that no place was found for
  for (size_t p = 0; p < pointers.size(); p++) open |= uint32_t(pointers[p].gap.empty()) << p;
  auto base_kind = [&](int32_t segment) {
    return arrays.segment_kind[segment] * 4 +
           (arrays.segment_repository[segment] == stream.repository);
  };
  size_t kept = 0;
  for (size_t i = 0; i < out.size(); i++) {
    Place& place = out[i];
    place.count = continuation(place.piece, place.position, limit, place.tokens);
    if (!place.count) continue;
    place.kind = base_kind(place.segment);
    for (size_t p = 0; p < pointers.size(); p++)
      if ((open >> p & 1) && pointers[p].position == place.position) {
        place.kind += 2;
        open &= ~(1u << p);
      }
    if (kept != i) out[kept] = place;
    kept++;
  }
  out.resize(kept);
  std::vector<int32_t> source;
  for (size_t p = 0; p < pointers.size(); p++) {
    const Pointer& pointer = pointers[p];
    if (pointer.gap.empty() && !(open >> p & 1)) continue;
    const int32_t piece = piece_at(pointer.position);
    if (piece < 0 || arrays.piece_segment[piece] != pointer.segment) continue;
    Place place;
    place.segment = pointer.segment;
    place.piece = piece;
    place.position = pointer.position;
    const int32_t sort = arrays.segment_kind[pointer.segment] * 4;
    if (pointer.gap.empty()) {
      place.count = continuation(piece, pointer.position, limit, place.tokens);
      place.match = pointer.synced;
      place.kind = base_kind(pointer.segment) + 2;
      if (place.count) out.push_back(place);
      continue;
    }
    source.resize(limit + kWindow);
    source.resize(continuation(piece, pointer.position, limit + kWindow, source.data()));
    place.match = pointer.run;
    auto offer = [&](int32_t from, int32_t kind) {
      place.count = std::min(limit, int32_t(source.size()) - from);
      if (place.count <= 0) return;
      std::copy_n(source.begin() + from, place.count, place.tokens);
      place.kind = kind;
      out.push_back(place);
    };
    const int32_t lost = sort + 16 + 32 * (pointer.gap.size() == 1);
    offer(pointer.skipped, lost + 2 * (pointer.synced > 0));
    if (!pointer.synced) offer(0, lost + 1);
  }
  for (size_t i = 0; i < out.size(); i++) {
    out[i].rank = out[i].kind & 16 ? kLost : std::min(int32_t(i), kLost - 1);
    out[i].age = std::min(bit_length(clock - arrays.segment_updated[out[i].segment]), kAges - 1);
  }
}

}  // namespace atlasd::text
