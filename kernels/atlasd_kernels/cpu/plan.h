// One step's drafts in one call: the native twin of atlasd.draft.{controller,cut}, for streams
// that are drafted by the text drafter and at most one that costs time to ask.
#pragma once

#include "text.h"

namespace atlasd::text {

// What a stream asks of a plan.
struct Question {
  Stream* stream;
  int32_t number;  // of the stream, for the record
  int32_t limit;   // tokens of a draft at most
  // Of the paid drafter: accepted tokens that asking it brings, and what its time is worth in
  // accepted tokens. brought < 0: there is none; infinite: it is asked first, whatever it brings.
  double brought, worth;
};

// Step costs and what follows from them, as atlasd.draft.cut.CostTable has them.
struct Prices {
  const double* milliseconds;  // [room + 1] of a step with so many drafted rows
  int32_t room;
  int32_t others;  // streams that take it too and have no question
  double least_reach, worth_asking;
};

// What became of a draft, for whoever proposed it.
struct Settled {
  int32_t credits;
  int32_t segment[kContinuations + 1], credit[kContinuations + 1];
};

constexpr int kMostStreams = 64;
constexpr int kMostRows = 256;

// What a plan came to, read by Python where it lies.
struct Outcome {
  const uint8_t* record;  // see atlasd.draft.packed
  int32_t record_bytes;
  int32_t rows;                     // drafted tokens of all streams; while one waits, of its chain
  int32_t lookahead[kMostStreams];  // by stream
  double foreseen[kMostStreams];    // expected accepted tokens; while one waits, its reach first
  int32_t tokens[kMostRows];        // one stream's behind the other's
  // Of each token: 0 recycle, 1 positions, 1 + n the paid drafter under its n-th name.
  uint8_t origin[kMostRows];
};

class Planner {
 public:
  explicit Planner(Text& text) : text_(text) {}

  // Drafts for up to kMostStreams streams, in `outcome`. Returns -1 when they are cut, else the index of a stream that wants
  // the paid drafter's proposal: answer with `offer`, then `plan` with `resume` true.
  int32_t plan(const Question* questions, int32_t count, const Prices& prices, bool resume);
  // The paid drafter's tokens behind the chain of a stream; none: it has nothing to say.
  void offer(Stream& stream, int32_t source, const int32_t* tokens, const double* confidence,
             int32_t count);
  // Learns from verified tokens. The first `drafted` tokens of the last plan went to the target,
  // `accepted` were right. `best`: the target's first choices at its rows, or null.
  // Returns how many tokens the stream's tail had room for: where that is not all, Python appends
  // the rest and calls `learn`.
  int32_t settle(Stream& stream, const int32_t* tokens, int32_t count, int32_t drafted,
                 int32_t accepted, const int32_t* best, int32_t rows, Settled& out);
  void learn(Stream& stream, const int32_t* tokens, int32_t count, const int32_t* best,
             int32_t rows);

  Text& text() { return text_; }

  Outcome outcome{};

 private:
  bool assemble(const Question& question, const Prices& prices, bool resumed);
  void take_best(Assembly& assembly);
  void cut(const Question* questions, int32_t count, const Prices& prices);
  void write_record(const Question* questions, int32_t count);

  struct Compared {
    int32_t rows;
    double expected, milliseconds;
  };
  Text& text_;
  int32_t at_ = 0;
  Drafted drafted_;
  std::vector<Compared> compared_;
  std::vector<std::pair<double, int32_t>> ordered_;
  std::vector<int32_t> after_;
  std::vector<uint8_t> record_;
};

}  // namespace atlasd::text
