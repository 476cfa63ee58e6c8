// What came after one token, two, or a line's beginning: the native twin of
// atlasd.draft.{recycle,successors,lines}.
#include <algorithm>

#include "text.h"

namespace atlasd::text {

namespace {

constexpr int kPairBits = 19;
constexpr int kRejected = 8;  // rows behind a rejection that are learned from
constexpr int kUsual = 16;
constexpr uint64_t kMultiplier = 0x9E3779B1ull;
constexpr uint64_t kApart = 0x85EBCA6Bull;

int32_t count_bucket(uint8_t count) {
  int32_t bits = 0;
  while (count >> bits) bits++;
  return std::min(7, bits);
}

struct PairSlot {
  uint32_t slot;
  uint16_t tag;
};

PairSlot pair_slot(uint64_t one, int32_t two) {
  const uint64_t mixed = ((one * kMultiplier + uint64_t(two)) * kMultiplier) & 0xFFFFFFFFull;
  return {uint32_t(mixed >> (32 - kPairBits)),
          uint16_t(((mixed ^ uint64_t(two)) & 0x1FFF) | 0x2000)};
}

// Of the line so far, and at a line's start of the lines before.
int line_slots(const Line& line, int32_t last, PairSlot* slots) {
  slots[0] = pair_slot(uint64_t(line.first), last);
  if (!line.fresh) return 1;
  slots[1] = pair_slot(uint64_t(line.first) + uint64_t(line.before + 2) * kApart, last);
  return 2;
}

void vote(const Followed& at, int32_t kinds, std::vector<Vote>& votes) {
  const int32_t count = count_bucket(at.count);
  if (at.latest >= 0)
    votes.push_back({at.latest, kinds + 2 * count + (at.latest == at.usual), 1.0});
  if (at.usual >= 0 && at.usual != at.latest)
    votes.push_back({at.usual, kinds + kUsual + count, 1.0});
}

// Of what came, the token that leads: others count against it.
void lead(Followed& at, int32_t token) {
  if (at.usual == token) {
    if (at.count < 255) at.count++;
  } else if (at.count == 0) {
    at.usual = token;
    at.count = 1;
  } else {
    at.count--;
  }
}

void note(Followed& at, int32_t token) {
  at.latest = token;
  lead(at, token);
}

// Takes over a slot that held another context.
bool claim(Followed& at, uint16_t tag) {
  if (at.tag == tag) return false;
  at.tag = tag;
  at.count = 0;
  return true;
}

// The latest of each context. Slots lie anywhere: they are asked for before they are needed.
void remember(const std::vector<Successor>& seen, Followed* table) {
  constexpr size_t kFetchAhead = 12;
  for (size_t at = 0; at < seen.size(); at++) {
    if (at + kFetchAhead < seen.size()) __builtin_prefetch(table + seen[at + kFetchAhead].slot, 1);
    const Successor& one = seen[at];
    Followed& slot = table[one.slot];
    if (claim(slot, one.tag)) slot.usual = -1;
    slot.latest = one.token;
  }
}

}  // namespace

void Text::successors(int32_t one, int32_t two, const Line& line, std::vector<Vote>& votes) const {
  const PairSlot at = pair_slot(uint64_t(one), two);
  const Followed& pair = arrays.pair[at.slot];
  if (pair.tag == at.tag) vote(pair, 0, votes);
  vote(arrays.single[two], kTableKinds, votes);
  if (!arrays.ends_line) return;
  PairSlot slots[2];
  const int count = line_slots(line, two, slots);
  for (int i = 0; i < count; i++) {
    const Followed& known = arrays.line[slots[i].slot];
    if (known.tag == slots[i].tag) vote(known, (2 + i) * kTableKinds, votes);
  }
}

void Text::push(Line& line, int32_t token) const {
  if (line.fresh) {
    line.before = line.first;
    line.first = token;
  }
  line.fresh = arrays.ends_line && arrays.ends_line[token];
}

void Text::note_pair(int32_t one, int32_t two, int32_t token) {
  note(arrays.single[two], token);
  const PairSlot at = pair_slot(uint64_t(one), two);
  claim(arrays.pair[at.slot], at.tag);
  note(arrays.pair[at.slot], token);
}

void Text::note_line(const Line& line, int32_t last, int32_t token) {
  PairSlot slots[2];
  const int count = line_slots(line, last, slots);
  for (int i = 0; i < count; i++) {
    claim(arrays.line[slots[i].slot], slots[i].tag);
    note(arrays.line[slots[i].slot], token);
  }
}

void Text::read(Stream& stream, const int32_t* tokens, int32_t count) {
  stream.tokens.assign(tokens, tokens + count);
  stream.prefix.push_back(0);
  for (int32_t at = std::max(0, count - kOrder[kOrders - 1]); at < count; at++)
    stream.prefix.push_back(extend_hash(stream.prefix.back(), tokens[at]));
  const bool learn = stream.learn && count > 2;
  pairs_.clear();
  lines_.clear();
  for (int32_t at = 0; at < count; at++) {
    if (learn && at) {
      arrays.single[tokens[at - 1]].latest = tokens[at];
      if (at > 1) {
        const PairSlot pair = pair_slot(uint64_t(tokens[at - 2]), tokens[at - 1]);
        pairs_.push_back({pair.slot, pair.tag, tokens[at]});
      }
      if (arrays.ends_line) {
        PairSlot slots[2];
        const int found = line_slots(stream.line, tokens[at - 1], slots);
        for (int i = 0; i < found; i++)
          lines_.push_back({slots[i].slot, slots[i].tag, tokens[at]});
      }
    }
    push(stream.line, tokens[at]);
  }
  remember(pairs_, arrays.pair);
  remember(lines_, arrays.line);
}

Stream* Text::fresh_stream() {
  if (spare_.empty()) return new Stream();
  Stream* stream = spare_.back().release();
  spare_.pop_back();
  stream->clear();
  return stream;
}

void Stream::clear() {
  tokens.clear();
  prefix.clear();
  tail_piece = -1;
  tail_limit = 0;
  line = Line();
  offset = Offset();
  pointers.clear();
  offered.clear();
  cast.clear();
  applied.clear();
  open.clear();
  assembly.clear();
}

void Text::recycle_rows(const int32_t* after, const int32_t* best, int32_t rows,
                        const int32_t* tokens, int32_t count) {
  for (int32_t at = 1; at < std::min(count, rows); at++) {
    if (best[at] == tokens[at]) continue;
    const PairSlot slot = pair_slot(after[at - 1], after[at]);
    Followed& pair = arrays.pair[slot.slot];
    for (int twice = 0; twice < 2; twice++) {  // one against the vote of what was drawn
      if (pair.tag == slot.tag) lead(pair, best[at]);
      lead(arrays.single[after[at]], best[at]);
    }
  }
  for (int32_t at = count; at < std::min(rows, count + kRejected); at++) {
    arrays.single[after[at]].latest = best[at];
    if (at < 1) continue;
    const PairSlot slot = pair_slot(after[at - 1], after[at]);
    Followed& pair = arrays.pair[slot.slot];
    if (pair.tag != slot.tag && !pair.count) {
      pair.tag = slot.tag;
      pair.usual = -1;
    }
    if (pair.tag == slot.tag) pair.latest = best[at];
  }
}

}  // namespace atlasd::text
