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
constexpr int kWindow = 48;
constexpr int kNear = 8;
constexpr int kAgain = 2;
constexpr int kMaxGap = 32;
constexpr size_t kRules = 64;
constexpr int kLeastRun = 6;   // to be followed over a mismatch
constexpr int kGivenUp = 2;    // run below which a pointer is dropped
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

// `mask` has the number of slots in its upper half: slots that are not there yet are still part of
// those they will be split from.
static inline uint32_t slot_of(uint32_t key, int64_t mask) {
  const uint32_t slots = uint32_t(mask >> 32), low = uint32_t(mask);
  const uint32_t slot = key & low;
  return slot < slots ? slot : slot & (low >> 1);
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
    int32_t position = arrays.heads[index][slot_of(key_of(context.hash, index), arrays.masks[index])];
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
}

void Rules::note(const int32_t* before, int32_t old_count, const int32_t* after,
                 int32_t new_count) {
  if (old_count < 1 || old_count > kRuleTokens || new_count < 1 || new_count > kRuleTokens) return;
  clock_++;
  Rule& rule = by_first_[before[0]];
  if (!rule.id || rule.old_count != old_count || rule.new_count != new_count ||
      !std::equal(before, before + old_count, rule.before) ||
      !std::equal(after, after + new_count, rule.after)) {
    rule = Rule{};
    rule.id = clock_;
    rule.old_count = old_count;
    rule.new_count = new_count;
    std::copy_n(before, old_count, rule.before);
    std::copy_n(after, new_count, rule.after);
  }
  rule.noted = clock_;
  if (by_first_.size() > kRules)
    by_first_.erase(std::min_element(
        by_first_.begin(), by_first_.end(),
        [](const auto& a, const auto& b) { return a.second.noted < b.second.noted; }));
}

const Rule* Rules::at(const int32_t* tokens, int32_t count) const {
  if (by_first_.empty()) return nullptr;
  const auto hit = by_first_.find(tokens[0]);
  if (hit == by_first_.end() || hit->second.old_count > count ||
      !std::equal(tokens, tokens + hit->second.old_count, hit->second.before))
    return nullptr;
  return &hit->second;
}

void Rules::learn(int64_t id, int32_t first, int32_t token) {
  const auto hit = by_first_.find(first);
  if (hit == by_first_.end() || hit->second.id != id) return;
  Rule& rule = hit->second;
  if (token != rule.before[0] && token != rule.after[0]) return;
  const bool held = token == rule.after[0];
  rule.right = std::max(0.01, 0.9 * rule.right + held);
  rule.wrong = 0.9 * rule.wrong + !held;
}

bool Text::move(Pointer& pointer, const int32_t* tokens, int32_t count, Rules* noted) const {
  const int32_t piece = piece_at(pointer.position);
  if (piece < 0 || arrays.piece_segment[piece] != pointer.segment) return false;
  const int32_t wanted = pointer.skipped + count + kWindow;
  std::vector<int32_t> source(wanted);
  const int32_t size = continuation(piece, pointer.position, wanted, source.data());
  const int32_t* text = source.data();
  std::vector<int32_t>& gap = pointer.gap;
  int32_t base = 0, at = pointer.skipped;
  for (int32_t i = 0; i < count; i++) {
    const int32_t token = tokens[i];
    if (at < size && text[at] == token) {
      at++;
      pointer.synced++;
      pointer.run++;
      if (!gap.empty()) {
        if (pointer.synced >= kAgain) {
          if (noted)
            noted->note(text + base, at - pointer.synced - base, gap.data(),
                        int32_t(gap.size()) + 1 - pointer.synced);
          gap.clear();
          base = at;
        } else {
          gap.push_back(token);
        }
      } else {
        base = at;
      }
      continue;
    }
    if (gap.empty()) pointer.run /= 2;
    gap.push_back(token);
    pointer.synced = 0;
    if (gap.size() >= 2) {
      const int32_t* end = text + std::min(base + kWindow, size);
      const int32_t* hit = std::search(text + base, end, &gap.back() - 1, &gap.back() + 1);
      if (hit < end) {
        pointer.synced = 2;
        if (noted)
          noted->note(text + base, int32_t(hit - text) - base, gap.data(),
                      int32_t(gap.size()) - 2);
        gap.clear();
        base = at = int32_t(hit - text) + 2;
        continue;
      }
    }
    const int32_t* end = text + std::min(base + kNear, size);
    const int32_t* hit = std::find(text + base, end, token);
    if (hit < end) {
      at = int32_t(hit - text) + 1;
      pointer.synced = 1;
    } else {
      at = base + 1;
    }
  }
  if (pointer.run < kGivenUp || int32_t(gap.size()) > kMaxGap) return false;
  pointer.run = std::min(pointer.run, int32_t(kMaxMatch));
  pointer.synced = std::min(pointer.synced, int32_t(kMaxMatch));
  pointer.skipped = gap.empty() ? 0 : std::min(at, size) - base;
  pointer.position = advance(piece, pointer.position, base);
  return pointer.position >= 0;
}

void Text::follow(Stream& stream, const int32_t* tokens, int32_t count) {
  Rules* noted = stream.learn ? &rules : nullptr;
  std::vector<Pointer> pointers;
  auto stands = [&](int32_t position) {
    return std::any_of(pointers.begin(), pointers.end(),
                       [&](const Pointer& p) { return p.position == position; });
  };
  for (Pointer pointer : stream.pointers)
    if (move(pointer, tokens, count, noted) && !stands(pointer.position))
      pointers.push_back(pointer);
  for (const Place& place : stream.offered) {
    if (place.kind >= 16) continue;
    const int32_t agreed = agreement(place.tokens, place.count, tokens, count);
    if (agreed && place.match + agreed >= kLeastRun) {
      Pointer pointer{place.segment, place.position, place.match, place.match, 0, {}};
      if (move(pointer, tokens, count, noted) && !stands(pointer.position))
        pointers.push_back(pointer);
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
      int32_t& head = arrays.heads[index][slot_of(key_of(hash, index), arrays.masks[index])];
      if (head == position) continue;  // a re-used place that is the newest keeps its chain
      arrays.links[index][position] = head;
      head = position;
    }
  }
  return done;
}

void Text::insert(const int32_t* tokens, int32_t count, int32_t first, int32_t skip) {
  constexpr int32_t kFetchAhead = 24;   // heads lie anywhere: ask for them before they are needed
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
