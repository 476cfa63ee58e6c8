// Drafting from text that was seen: the native twin of atlasd.draft.{positions,mixture,confidence}.
// Same arithmetic in the same order, so that drafts do not depend on which of the two runs.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "text_keys.h"

namespace atlasd::text {

constexpr int kMaxMatch = 64;
constexpr int kWindow = 48;  // of a rewritten text: so far ahead its continuation is looked for
constexpr int kFeatures = 5;
constexpr int kMaxDraft = 64;
constexpr int kContinuations = 3;  // of a chain, by another proposal
constexpr int kVoteKinds = 96;
constexpr int kTableKinds = 24;  // votes of a table: latest or usual, by count
constexpr int kLost = 9, kAges = 16;  // see atlasd.draft.masses

// What came after a context; in one place, since tables lie far from any cache.
struct Followed {
  int32_t latest, usual;  // -1: none
  uint16_t tag;           // whose it is, where contexts share slots
  uint8_t count;          // votes for the usual one
};

// Arrays that Python owns; handed over again whenever one of them is replaced.
struct Arrays {
  int32_t* tokens;
  int32_t* run_of;
  int32_t* links[kOrders];
  int32_t* heads[kOrders];
  int64_t masks[kOrders];
  int32_t* run_start;
  int32_t* run_piece;  // first piece that lies in the run
  int32_t* piece_start;
  int32_t* piece_stop;
  int32_t* piece_next;     // in reading order
  int32_t* piece_sibling;  // next piece of the same run
  int32_t* piece_segment;
  int32_t* segment_kind;
  int32_t* segment_repository;
  int32_t* segment_updated;
  Followed* single;
  Followed* pair;
  Followed* line;
  const uint8_t* ends_line;  // by token; null: not known
};

struct Place {
  int32_t match;
  int32_t kind;
  int32_t segment;
  int32_t piece;
  int32_t position;
  int32_t count;
  int32_t rank, age;  // see atlasd.draft.masses
  int32_t tokens[kMaxDraft + 8];
};

// See atlasd.draft.edit.
struct Pointer {
  int32_t segment, position, synced, run;
  int32_t skipped = 0;
  std::vector<int32_t> gap;
};

constexpr int kRuleTokens = 4;

struct Rule {
  int32_t old_count, new_count;
  int32_t before[kRuleTokens], after[kRuleTokens];
  double right = 1.0, wrong = 0.0;
  int64_t id = 0, noted = 0;
};

// Whether a token may be among some: false where it is none of them.
class FirstTokens {
 public:
  void add(int32_t token) { bits_[token >> 6 & 7] |= uint64_t{1} << (token & 63); }
  bool may_have(int32_t token) const { return bits_[token >> 6 & 7] >> (token & 63) & 1; }
  void clear() { *this = FirstTokens(); }

 private:
  uint64_t bits_[8] = {};
};

class Rules {
 public:
  void note(const int32_t* before, int32_t old_count, const int32_t* after, int32_t new_count);
  const Rule* at(const int32_t* tokens, int32_t count) const;
  void learn(int64_t id, int32_t first, int32_t token);
  void clear() {
    by_first_.clear();
    first_.clear();
  }

 private:
  std::unordered_map<int32_t, Rule> by_first_;
  FirstTokens first_;  // nearly every token looked up begins no rule
  int64_t clock_ = 0;
};

// See atlasd.draft.lines: where a text stands in its lines.
struct Line {
  int32_t first = -1, before = -1;
  bool fresh = true;
};

// What came after a context, by the context's slot and tag.
struct Successor {
  uint32_t slot;
  uint16_t tag;
  int32_t token;
};

// See atlasd.draft.masses.
struct Vote {
  int32_t token, kind;
  double share;
  int32_t rank = -1, age = 0;  // of the place that votes; -1: a table
  int32_t backed = 0, company = 0;
  double weight = 0.0;
};

// A token that is voted for: by how many, and what stands behind it.
struct Backed {
  int32_t token, places, tables;
  double weight;
};

class Masses {
 public:
  Masses();
  // Gives each vote its company and its weight; `tokens` are those they are for. Returns what stands
  // behind all of them and none.
  double weigh(Vote* begin, Vote* end, std::vector<Backed>& tokens) const;
  // `token` came; these votes were cast.
  void learn(Vote* begin, Vote* end, int32_t token);
  std::vector<double> value, seen;

 private:
  void move(int32_t number, double gradient, double least, double most);
  std::vector<Backed> backed_;
};

// A draft's tokens, each with the votes it was chosen by.
struct Cast {
  std::vector<int32_t> chosen, ends;
  std::vector<Vote> votes;
  Vote* begin(int32_t at) { return votes.data() + (at ? ends[at - 1] : 0); }
  Vote* end(int32_t at) { return votes.data() + ends[at]; }
  void add(int32_t token, const std::vector<Vote>& all) {
    votes.insert(votes.end(), all.begin(), all.end());
    chosen.push_back(token);
    ends.push_back(int32_t(votes.size()));
  }
  void clear() {
    chosen.clear();
    ends.clear();
    votes.clear();
  }
};

struct Applied {
  int64_t rule;
  int32_t first;
};

struct Offset {
  double value = 0.0, information = 4.0, trend = 0.0, cap = 60.0;
  void learn(double error, double curvature);
};

// What a draft is made of; filled by propose, read by Python.
struct Drafted {
  int32_t count;
  int32_t segment;  // to be credited, or -1
  int32_t tokens[kMaxDraft];
  double probability[kMaxDraft];
  uint8_t from_place[kMaxDraft];  // 1: positions leads, 0: recycle
  uint8_t features[kMaxDraft][kFeatures];
};

struct Proposal {
  int32_t previous = 0, at = 0, learned = 0;
  Drafted drafted;
};

// A draft under assembly, and what was considered for it: see plan.h.
struct Assembly {
  struct Candidate {
    int32_t source, taken, begin, count, segment;
  };
  std::vector<int32_t> tokens;
  std::vector<double> confidence, reach;
  std::vector<uint8_t> origin;  // of each token: 0 recycle, 1 positions, 2 + n the n-th paid source
  std::vector<Candidate> candidates;  // those taken, in their order, make up the tokens
  std::vector<int32_t> considered;    // tokens of all candidates
  std::vector<double> considered_confidence;
  int32_t asked = 0;
  int32_t best = -1;  // candidate that leads in this round
  double best_expected = 0.0;
  void clear();
};

struct Stream {
  std::vector<int32_t> tokens;   // the end of prompt and output
  std::vector<uint64_t> prefix;  // hashes of each prefix of the tokens since begin
  int32_t repository, language_offset, repository_offset;
  int32_t tail_piece = -1, tail_limit = 0;  // where verified tokens are written, and up to where
  bool learn = true;  // false: nothing outlives the stream
  Line line;
  Offset offset;
  std::vector<Pointer> pointers;
  std::vector<Place> offered;
  Cast cast;
  std::vector<Applied> applied;
  std::vector<Proposal> open;
  Assembly assembly;
  std::vector<int32_t> fed_last;  // the rows of its last step, if their first choices are learned
  void clear();
};

struct Counters {
  int64_t proposed, foreseen, first, first_right;
};

class Confidence {
 public:
  Confidence();
  double probability(const Stream& stream, int32_t previous, int32_t token,
                     const uint8_t* features) const;
  void learn(Stream& stream, int32_t previous, int32_t token, const uint8_t* features, bool held);
  std::vector<double> weights, information;
  Offset bias;
  std::vector<Offset> offsets;
};

class Text {
 public:
  Arrays arrays{};
  int32_t clock = 0;
  Masses masses;
  Confidence confidence;
  Counters counters{};
  Rules rules;

  void propose(Stream& stream, const int32_t* after, int32_t after_count, int32_t limit,
               double least, Drafted& out);
  // Writes verified tokens behind the stream's tail; returns how many there was room for.
  int32_t append(Stream& stream, const int32_t* tokens, int32_t count);
  int32_t room(const Stream& stream) const {
    const int32_t piece = stream.tail_piece;
    return piece < 0 ? 0 : stream.tail_limit - arrays.piece_stop[piece];
  }
  // Makes the text at arena places [first, first + count) findable from its `skip`th token on;
  // what stands before that is its context.
  void insert(const int32_t* tokens, int32_t count, int32_t first, int32_t skip);
  // A stream of which nothing is known, and one that is over: what it had allocated is used again.
  Stream* fresh_stream();
  void spare_stream(Stream* stream) { spare_.emplace_back(stream); }
  // Begins a stream behind the end of its prompt, and recycles the successors in that if the stream
  // may be learned from: as Recycle.begin.
  void read(Stream& stream, const int32_t* tokens, int32_t count);
  // Learns from verified tokens; they are appended by then.
  void observe(Stream& stream, const int32_t* tokens, int32_t count);
  // The target's first choices `best` at `rows` rows that fed `after`; `tokens` were verified.
  void recycle_rows(const int32_t* after, const int32_t* best, int32_t rows,
                    const int32_t* tokens, int32_t count);

 private:
  struct Context {
    const int32_t* end;  // one past the newest token
    int32_t length;
    const uint64_t* hash;  // of the whole; hash[-n] of all but the last n tokens
    int32_t known;
  };
  int32_t piece_at(int32_t position) const;
  bool match_at(int32_t position, const Context& context, int32_t& length, int32_t& piece) const;
  void find(const Context& context, std::vector<Place>& out) const;
  int32_t continuation(int32_t piece, int32_t position, int32_t limit, int32_t* out) const;
  int32_t advance(int32_t piece, int32_t position, int32_t count) const;
  void places(const Stream& stream, const Context& context, const std::vector<Pointer>& pointers,
              int32_t limit, std::vector<Place>& out) const;
  bool move(Pointer& pointer, const int32_t* tokens, int32_t count, Rules* noted) const;
  void follow(Stream& stream, const int32_t* tokens, int32_t count);
  void successors(int32_t one, int32_t two, const Line& line, std::vector<Vote>& votes) const;
  void push(Line& line, int32_t token) const;
  void note_pair(int32_t one, int32_t two, int32_t token);
  void note_line(const Line& line, int32_t last, int32_t token);
  const Place& rewrite(const Place& place, int32_t since, const Rule& rule);
  bool settle(Stream& stream, Proposal& proposal, const int32_t* tokens, int32_t count);
  void context_after(const Stream& stream, const int32_t* after, int32_t count, Context& context);

  // Kept between calls, which are too short for allocating.
  std::vector<const Place*> alive_;
  std::vector<const Rule*> rules_applied_;
  std::vector<Vote> votes_;
  std::vector<Backed> behind_;
  std::vector<int32_t> path_;
  std::vector<int32_t> scratch_tokens_;
  std::vector<uint64_t> scratch_hash_;
  std::vector<uint32_t> slots_;
  std::vector<Successor> pairs_, lines_;
  std::vector<std::unique_ptr<Stream>> spare_;
  std::vector<Place> more_;
  std::deque<Place> rewritten_;
};

int32_t length_bucket(int32_t length);

}  // namespace atlasd::text
