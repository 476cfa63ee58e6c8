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

void vote(const int32_t* latest, const int32_t* usual, const uint8_t* counts, int64_t context,
          int32_t kinds, std::vector<Vote>& votes) {
  const int32_t newest = latest[context], most = usual[context];
  const int32_t count = count_bucket(counts[context]);
  if (newest >= 0) votes.push_back({newest, kinds + 2 * count + (newest == most), 1.0});
  if (most >= 0 && most != newest) votes.push_back({most, kinds + kUsual + count, 1.0});
}

// Of what came, the token that leads: others count against it.
void lead(int32_t* usual, uint8_t* count, int64_t context, int32_t token) {
  if (usual[context] == token) {
    if (count[context] < 255) count[context]++;
  } else if (count[context] == 0) {
    usual[context] = token;
    count[context] = 1;
  } else {
    count[context]--;
  }
}

void note(int32_t* latest, int32_t* usual, uint8_t* count, int64_t context, int32_t token) {
  latest[context] = token;
  lead(usual, count, context, token);
}

// Takes over a slot that held another context.
bool claim(uint16_t* tags, uint8_t* counts, PairSlot at) {
  if (tags[at.slot] == at.tag) return false;
  tags[at.slot] = at.tag;
  counts[at.slot] = 0;
  return true;
}

// The latest of each context. Slots lie anywhere: they are asked for before they are needed.
void remember(const std::vector<Successor>& seen, uint16_t* tags, uint8_t* counts, int32_t* usual,
              int32_t* latest) {
  constexpr size_t kFetchAhead = 12;
  for (size_t at = 0; at < seen.size(); at++) {
    if (at + kFetchAhead < seen.size()) {
      const uint32_t ahead = seen[at + kFetchAhead].slot;
      __builtin_prefetch(tags + ahead, 1);
      __builtin_prefetch(latest + ahead, 1);
      __builtin_prefetch(usual + ahead, 1);
      __builtin_prefetch(counts + ahead, 1);
    }
    const Successor& one = seen[at];
    if (claim(tags, counts, {one.slot, one.tag})) usual[one.slot] = -1;
    latest[one.slot] = one.token;
  }
}

}  // namespace

void Text::successors(int32_t one, int32_t two, const Line& line, std::vector<Vote>& votes) const {
  const PairSlot at = pair_slot(uint64_t(one), two);
  if (arrays.pair_tag[at.slot] == at.tag)
    vote(arrays.pair_latest, arrays.pair_usual, arrays.pair_count, at.slot, 0, votes);
  vote(arrays.single_latest, arrays.single_usual, arrays.single_count, two, kTableKinds, votes);
  if (!arrays.ends_line) return;
  PairSlot slots[2];
  const int count = line_slots(line, two, slots);
  for (int i = 0; i < count; i++)
    if (arrays.line_tag[slots[i].slot] == slots[i].tag)
      vote(arrays.line_latest, arrays.line_usual, arrays.line_count, slots[i].slot,
           (2 + i) * kTableKinds, votes);
}

void Text::push(Line& line, int32_t token) const {
  if (line.fresh) {
    line.before = line.first;
    line.first = token;
  }
  line.fresh = arrays.ends_line && arrays.ends_line[token];
}

void Text::note_pair(int32_t one, int32_t two, int32_t token) {
  note(arrays.single_latest, arrays.single_usual, arrays.single_count, two, token);
  const PairSlot at = pair_slot(uint64_t(one), two);
  claim(arrays.pair_tag, arrays.pair_count, at);
  note(arrays.pair_latest, arrays.pair_usual, arrays.pair_count, at.slot, token);
}

void Text::note_line(const Line& line, int32_t last, int32_t token) {
  PairSlot slots[2];
  const int count = line_slots(line, last, slots);
  for (int i = 0; i < count; i++) {
    claim(arrays.line_tag, arrays.line_count, slots[i]);
    note(arrays.line_latest, arrays.line_usual, arrays.line_count, slots[i].slot, token);
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
      arrays.single_latest[tokens[at - 1]] = tokens[at];
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
  remember(pairs_, arrays.pair_tag, arrays.pair_count, arrays.pair_usual, arrays.pair_latest);
  remember(lines_, arrays.line_tag, arrays.line_count, arrays.line_usual, arrays.line_latest);
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
    const PairSlot pair = pair_slot(after[at - 1], after[at]);
    for (int twice = 0; twice < 2; twice++) {  // one against the vote of what was drawn
      if (arrays.pair_tag[pair.slot] == pair.tag)
        lead(arrays.pair_usual, arrays.pair_count, pair.slot, best[at]);
      lead(arrays.single_usual, arrays.single_count, after[at], best[at]);
    }
  }
  for (int32_t at = count; at < std::min(rows, count + kRejected); at++) {
    arrays.single_latest[after[at]] = best[at];
    if (at < 1) continue;
    const PairSlot pair = pair_slot(after[at - 1], after[at]);
    if (arrays.pair_tag[pair.slot] != pair.tag && !arrays.pair_count[pair.slot]) {
      arrays.pair_tag[pair.slot] = pair.tag;
      arrays.pair_usual[pair.slot] = -1;
    }
    if (arrays.pair_tag[pair.slot] == pair.tag) arrays.pair_latest[pair.slot] = best[at];
  }
}

}  // namespace atlasd::text
