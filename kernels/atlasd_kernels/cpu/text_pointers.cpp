// Pointers into the text that a stream rewrites: they go along with what is verified, and find their
// place again behind each change.
#include <algorithm>

#include "text.h"

namespace atlasd::text {

namespace {

constexpr int kNear = 8;
constexpr int kAgain = 2;
constexpr int kMaxGap = 32;
constexpr int kLeastRun = 6;  // to be followed over a mismatch
constexpr int kGivenUp = 2;   // run below which a pointer is dropped
constexpr size_t kPointers = 3;

int32_t agreement(const int32_t* source, int32_t source_count, const int32_t* tokens,
                  int32_t count) {
  const int32_t most = std::min(source_count, count);
  int32_t n = 0;
  while (n < most && source[n] == tokens[n]) n++;
  return n;
}

}  // namespace

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

}  // namespace atlasd::text
