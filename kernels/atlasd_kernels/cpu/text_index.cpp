// Looking up the places whose text ends like a stream, and reading on from there.
#include <algorithm>

#include "text.h"

namespace atlasd::text {

namespace {

constexpr uint64_t kSpread = 0x9E3779B97F4A7C15ull;
constexpr uint64_t kBase = 0xD1342543DE82EF95ull;
constexpr uint64_t kMix = 0xBF58476D1CE4E5B9ull;
constexpr int kWalk = 24;
constexpr size_t kCandidates = 6;
constexpr size_t kEnough = 3;
constexpr int kWindow = 8;
constexpr int kLeastRun = 6;   // to be followed over a mismatch
constexpr int kGivenUp = 2;    // run below which a lost pointer is dropped
constexpr size_t kPointers = 3;

constexpr uint64_t power(uint64_t base, int exponent) {
  uint64_t value = 1;
  for (int i = 0; i < exponent; i++) value *= base;
  return value;
}

constexpr uint64_t kPower[kOrders] = {power(kBase, 3), power(kBase, 6), power(kBase, 12),
                                      power(kBase, 24)};

int32_t agreement(const int32_t* source, int32_t source_count, const int32_t* tokens,
                  int32_t count) {
  const int32_t most = std::min(source_count, count);
  int32_t n = 0;
  while (n < most && source[n] == tokens[n]) n++;
  return n;
}

}  // namespace

uint64_t extend_hash(uint64_t value, int32_t token) {
  return value * kBase + (uint64_t(token) + 1) * kSpread;
}

uint32_t key_of(const uint64_t* hash, int order_index) {
  uint64_t value = hash[0] - hash[-kOrder[order_index]] * kPower[order_index];
  value = (value ^ (value >> 29)) * kMix;
  return uint32_t(value >> 32);
}

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
  for (int index = kOrders - 1; index >= 0; index--) {
    if (kOrder[index] > longest) continue;
    int32_t position = arrays.heads[index][key_of(context.hash, index) & arrays.masks[index]];
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
  uint32_t open = (1u << pointers.size()) - 1;
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
  for (size_t p = 0; p < pointers.size(); p++) {
    if (!(open >> p & 1)) continue;
    const Pointer& pointer = pointers[p];
    const int32_t piece = piece_at(pointer.position);
    if (piece < 0 || arrays.piece_segment[piece] != pointer.segment) continue;
    Place place;
    place.count = continuation(piece, pointer.position, limit, place.tokens);
    if (!place.count) continue;
    const bool lost = pointer.synced < 3;
    place.match = lost ? pointer.run : pointer.synced;
    place.kind = base_kind(pointer.segment) + 2 + 16 * lost;
    place.segment = pointer.segment;
    place.piece = piece;
    place.position = pointer.position;
    out.push_back(place);
  }
}

bool Text::move(Pointer& pointer, const int32_t* tokens, int32_t count) const {
  const int32_t piece = piece_at(pointer.position);
  if (piece < 0 || arrays.piece_segment[piece] != pointer.segment) return false;
  std::vector<int32_t> source(count + kWindow);
  source.resize(continuation(piece, pointer.position, count + kWindow, source.data()));
  const int32_t size = int32_t(source.size());
  int32_t at = 0;
  for (int32_t i = 0; i < count; i++) {
    if (at < size && source[at] == tokens[i]) {
      at++;
      pointer.synced++;
      pointer.run++;
      continue;
    }
    pointer.run /= 2;
    // Something was left out or ends here: go on behind the next place that reads so; else as if
    // one token was replaced, by one or by several.
    const int32_t from = std::min(at, size), to = std::min(at + kWindow, size);
    const auto hit = std::find(source.begin() + from, source.begin() + to, tokens[i]);
    if (hit != source.begin() + to) {
      at = int32_t(hit - source.begin()) + 1;
      pointer.synced = 1;
    } else {
      at += pointer.synced > 0;
      pointer.synced = 0;
    }
  }
  if (pointer.run < kGivenUp && pointer.synced < 3) return false;
  pointer.run = std::min(pointer.run, int32_t(kMaxMatch));
  pointer.synced = std::min(pointer.synced, int32_t(kMaxMatch));
  pointer.position = advance(piece, pointer.position, std::min(at, size));
  return pointer.position >= 0;
}

void Text::follow(Stream& stream, const int32_t* tokens, int32_t count) const {
  std::vector<Pointer> pointers;
  auto stands = [&](int32_t position) {
    return std::any_of(pointers.begin(), pointers.end(),
                       [&](const Pointer& p) { return p.position == position; });
  };
  for (Pointer pointer : stream.pointers)
    if (move(pointer, tokens, count) && !stands(pointer.position)) pointers.push_back(pointer);
  for (const Place& place : stream.offered) {
    const int32_t agreed = agreement(place.tokens, place.count, tokens, count);
    if (agreed && place.match + agreed >= kLeastRun && place.kind < 16) {
      Pointer pointer{place.segment, place.position, place.match, place.match};
      if (move(pointer, tokens, count) && !stands(pointer.position)) pointers.push_back(pointer);
    }
  }
  if (pointers.size() > kPointers) {
    std::stable_sort(pointers.begin(), pointers.end(),
                     [](const Pointer& a, const Pointer& b) { return a.run > b.run; });
    pointers.resize(kPointers);
  }
  stream.pointers = pointers;
}

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
      int32_t& head = arrays.heads[index][key_of(hash, index) & arrays.masks[index]];
      if (head == position) continue;  // a re-used place that is the newest keeps its chain
      arrays.links[index][position] = head;
      head = position;
    }
  }
  return done;
}

}  // namespace atlasd::text
