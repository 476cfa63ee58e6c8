// The draft that votes make, and learning from what came.
#include <algorithm>
#include <cmath>

#include "text.h"

namespace atlasd::text {

namespace {

constexpr double kDoubt = 3.0;  // what a rule has to prove
constexpr int kRelookups = 3;
// Tokens whose votes are learned from, as many as the Python twin drafts at a time.
constexpr int kLearned = 16;

constexpr int kLengthEdges[] = {1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64};
constexpr int kDepthEdges[] = {1, 2, 3, 5, 9, 17, 33};

template <size_t N>
int32_t reached(const int (&edges)[N], int32_t count) {
  int32_t n = 0;
  while (n < int32_t(N) && count >= edges[n]) n++;
  return n;
}

}  // namespace

int32_t length_bucket(int32_t length) {
  struct Buckets {
    uint8_t of[kMaxMatch + 1];
    Buckets() {
      for (int32_t n = 0; n <= kMaxMatch; n++) of[n] = uint8_t(reached(kLengthEdges, n));
    }
  };
  static const Buckets buckets;
  return buckets.of[std::clamp(length, 0, kMaxMatch)];
}

void Text::context_after(const Stream& stream, const int32_t* after, int32_t count,
                         Context& context) {
  const size_t tail = std::min(stream.tokens.size(), size_t(kMaxMatch));
  scratch_tokens_.assign(stream.tokens.end() - tail, stream.tokens.end());
  const size_t known = std::min(stream.prefix.size(), size_t(kOrder[kOrders - 1] + 1));
  scratch_hash_.assign(stream.prefix.end() - known, stream.prefix.end());
  for (int32_t i = 0; i < count; i++) {
    scratch_tokens_.push_back(after[i]);
    scratch_hash_.push_back(extend_hash(scratch_hash_.back(), after[i]));
  }
  context.end = scratch_tokens_.data() + scratch_tokens_.size();
  context.length = int32_t(std::min(scratch_tokens_.size(), size_t(kMaxMatch)));
  context.hash = &scratch_hash_.back();
  context.known = int32_t(scratch_hash_.size()) - 1;
}

void Text::propose(Stream& stream, const int32_t* after, int32_t after_count, int32_t limit,
                   double least, Drafted& out) {
  out.count = 0;
  out.segment = -1;
  limit = std::min(limit, int32_t(kMaxDraft));
  const auto last = [&](int32_t back) {  // the token so far behind the end
    return back <= after_count ? after[after_count - back]
                               : stream.tokens[stream.tokens.size() + after_count - back];
  };
  if (stream.tokens.size() + after_count < 2) return;
  int32_t one = last(2), two = last(1);
  const int32_t previous = two;
  Context context;
  context_after(stream, after, after_count, context);
  std::vector<Place>& found = after_count ? more_ : stream.offered;
  static const std::vector<Pointer> none;
  places(stream, context, after_count ? none : stream.pointers, limit, found);
  std::vector<const Place*>& alive = alive_;
  alive.clear();
  for (const Place& place : found) alive.push_back(&place);
  std::vector<const Rule*>& applied = rules_applied_;  // parallel to alive, before the choice
  rewritten_.clear();
  std::vector<Vote>& votes = votes_;
  std::vector<Backed>& behind = behind_;
  std::vector<int32_t>& path = path_;
  path.assign(after, after + after_count);
  Line line = stream.line;
  for (int32_t i = 0; i < after_count; i++) push(line, after[i]);
  if (!after_count) stream.cast.clear();
  int32_t diverged = 0, lookups = 0, since = 0;
  double reach = 1.0, sure = 1.0;
  while (out.count < limit) {
    const int32_t depth = out.count;
    votes.clear();
    applied.clear();
    for (const Place* place : alive) {
      const Rule* rule = nullptr;
      if (since < place->count) {
        const int32_t kind = kVoteKinds + length_bucket(place->match + since) * 64 + place->kind;
        rule = rules.at(place->tokens + since, place->count - since);
        double share = 1.0;
        if (rule) {
          const double held = rule->right / (rule->right + rule->wrong + kDoubt);
          share -= held;
          votes.push_back({rule->after[0], kind, held, place->rank, place->age});
        }
        votes.push_back({place->tokens[since], kind, share, place->rank, place->age});
      }
      applied.push_back(rule);
    }
    successors(one, two, line, votes);
    if (depth == 0 && !after_count) {
      stream.applied.clear();
      for (const Rule* rule : applied)
        if (rule && std::none_of(stream.applied.begin(), stream.applied.end(),
                                 [&](const Applied& a) { return a.rule == rule->id; }))
          stream.applied.push_back({rule->id, rule->before[0]});
    }
    if (votes.empty()) break;
    const double total = masses.weigh(votes.data(), votes.data() + votes.size(), behind);
    const auto best =
        std::max_element(behind.begin(), behind.end(),
                         [](const Backed& a, const Backed& b) { return a.weight < b.weight; });
    const int32_t token = best->token;
    const double probability = best->weight / total;
    if (!after_count && depth < kLearned) stream.cast.add(token, votes);
    reach *= probability;
    if (reach < least && depth > 0) break;
    const Place* lead = nullptr;
    int32_t agree = 0;
    if (!alive.empty()) {
      const size_t before = alive.size();
      size_t kept = 0;
      for (size_t i = 0; i < before; i++) {
        const Place* place = alive[i];
        if (since >= place->count) continue;
        if (place->tokens[since] == token)
          alive[kept++] = place;
        else if (applied[i] && applied[i]->after[0] == token)
          alive[kept++] = &rewrite(*place, since, *applied[i]);
      }
      alive.resize(kept);
      diverged += alive.size() < before;
      agree = int32_t(alive.size());
      for (const Place* place : alive)
        if (!lead || place->match > lead->match) lead = place;
    }
    const int32_t logit =
        int32_t(3.0 * std::log(probability / (1.0 - probability + 1e-4)) + 12.5);
    const int32_t level = std::clamp(logit, 0, 31);
    int32_t match = 0, kind = 0, age = 0;
    if (lead) {
      match = length_bucket(lead->match + since);
      kind = lead->kind;
      age = lead->age;
      if (depth == 0) out.segment = lead->segment;
    }
    uint8_t* features = out.features[depth];
    features[0] = level + 32 * (lead != nullptr);
    features[1] = match * 16 + std::min(agree, 3) * 4 + std::min(int32_t(behind.size()) - 1, 3);
    features[2] = kind * 4 + std::min(diverged, 3);
    features[3] = reached(kDepthEdges, depth) * 16 + level / 2;
    features[4] = age;
    out.tokens[depth] = token;
    out.from_place[depth] = lead != nullptr;
    out.probability[depth] = confidence.probability(stream, two, token, features);
    out.count++;
    sure *= out.probability[depth];
    if (sure < least) break;
    path.push_back(token);
    push(line, token);
    one = two;
    two = token;
    since++;
    if (alive.empty() && lookups < kRelookups && reach > 2 * least) {
      lookups++;
      context_after(stream, path.data(), int32_t(path.size()), context);
      places(stream, context, none, limit - out.count, more_);
      for (const Place& place : more_) alive.push_back(&place);
      since = 0;
    }
  }
  if (out.count && !after_count) {
    Proposal& proposal = stream.open.emplace_back();
    proposal.previous = previous;
    proposal.drafted = out;
  }
}

// The place with what the rule says from there on.
const Place& Text::rewrite(const Place& place, int32_t since, const Rule& rule) {
  constexpr int32_t kMost = kMaxDraft + 8;
  Place& copy = rewritten_.emplace_back(place);
  int32_t count = since;
  for (int32_t i = 0; i < rule.new_count && count < kMost; i++) copy.tokens[count++] = rule.after[i];
  for (int32_t i = since + rule.old_count; i < place.count && count < kMost; i++)
    copy.tokens[count++] = place.tokens[i];
  copy.count = count;
  return copy;
}

bool Text::settle(Stream& stream, Proposal& proposal, const int32_t* tokens, int32_t count) {
  const Drafted& drafted = proposal.drafted;
  bool wrong = false;
  int32_t at = proposal.at;
  for (int32_t i = 0; i < count && at < drafted.count; i++, at++)
    if (drafted.tokens[at] != tokens[i]) {
      wrong = true;
      break;
    }
  proposal.at = at;
  const int32_t first = proposal.learned;
  if (at + wrong > first) {
    if (first == 0) {
      counters.first++;
      counters.first_right += at > 0;
    }
    counters.proposed += at + wrong - first;
    counters.foreseen += at - first;
    for (int32_t i = first; i < at + wrong; i++)
      confidence.learn(stream, i ? drafted.tokens[i - 1] : proposal.previous, drafted.tokens[i],
                       drafted.features[i], i < at);
    proposal.learned = at;
  }
  return !wrong && at < drafted.count;
}

void Text::observe(Stream& stream, const int32_t* tokens, int32_t count) {
  if (!stream.learn) {
    stream.cast.clear();
    stream.open.clear();
  }
  Cast& cast = stream.cast;
  for (int32_t i = 0; i < std::min(count, int32_t(cast.chosen.size())); i++) {
    masses.learn(cast.begin(i), cast.end(i), tokens[i]);
    if (cast.chosen[i] != tokens[i]) break;
  }
  if (!cast.chosen.empty() && count)
    for (const Applied& one : stream.applied) rules.learn(one.rule, one.first, tokens[0]);
  cast.clear();
  stream.applied.clear();
  // Of those still right the oldest stays open, so that long lookaheads are scored too.
  bool kept = false;
  for (Proposal& proposal : stream.open)
    if (settle(stream, proposal, tokens, count) && !kept) {
      if (&proposal != &stream.open.front()) stream.open.front() = proposal;
      kept = true;
    }
  stream.open.resize(kept);
  follow(stream, tokens, count);
  stream.offered.clear();
  const int32_t size = int32_t(stream.tokens.size());
  for (int32_t at = size - count; at < size; at++) {
    const int32_t token = stream.tokens[at];
    if (stream.learn && at > 1) note_pair(stream.tokens[at - 2], stream.tokens[at - 1], token);
    if (stream.learn && at && arrays.ends_line)
      note_line(stream.line, stream.tokens[at - 1], token);
    push(stream.line, token);
  }
}

}  // namespace atlasd::text
