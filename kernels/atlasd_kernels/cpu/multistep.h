// Several decoding steps of a few streams in one call: plan, forward, choose, accept, learn, and again
// (multi-step scheduling, as vLLM has it, with drafting inside). Whatever a step needs beside the
// target's rows it finds warm here, where Python finds caches that the rows have emptied.
#pragma once
#include "decoder.h"
#include "plan.h"

namespace atlasd {

constexpr int kMostSteps = 32;
constexpr int kMostStops = 16;
constexpr int kMostTogether = 16;   // streams
constexpr int kMostStepRows = 64;

// Why a stream's output or a call ended; `none`: the output goes on, or as many steps were taken as
// were asked for.
enum class StepsEnd : int32_t { none, stop, length, ask, damaged, time };

// Mirrored by ctypes in multistep.py, like all of this: keep both in step.

// A step of all streams.
struct TakenStep {
  int32_t rows;
  int32_t record_bytes;   // of its plan, see atlasd.draft.packed; 0: it was plain
  double planning_ms, forward_ms;   // planning with learning; both as engine/clock.py measures
};

// One stream's share of it.
struct TakenShare {
  int32_t planned;        // 0: it rested
  int32_t drafted, accepted;
  int32_t verified;       // tokens, a stop token included
  double foreseen;        // accepted tokens that were expected, of those before the output's end
};

struct StreamSteps {
  // What is asked for.
  const text::Question* question;   // null: nothing is drafted
  float* chose;                 // [chose_room, hidden]: the state that chose a token, at the token's
  int64_t* chose_index;         // index in the stream modulo the room; and that index
  Noise noise;                  // of the next token
  int32_t slot, fed;            // positions [0, fed) are in the slot
  int32_t token;                // the one behind them
  int32_t length, chose_room;   // index of the next token in the stream
  int32_t left;                 // tokens that the output may still come to
  int32_t room;                 // drafted rows of a step at most
  int32_t wait;                 // steps for which it rests; and so many that were left
  int32_t pause;                // the same behind a step that was planned and brought nothing
  int32_t stop_count, stops[kMostStops];
  // What was done.
  StepsEnd end;                 // of its output: stop, length, damaged or none
  int32_t count;                // of `tokens`, which are verified
  int32_t told;                 // of them the first, which the drafters know
  int32_t unwritten;            // the last of these that the stream's tail had no room for
  int32_t best_count;           // target's first choices in the last step, if they are to be learned
  int32_t credits;
  int32_t drafted[2], decided[2], accepted[2];   // by source: recycle, positions
  TakenShare each[kMostSteps];
  int32_t tokens[kMostSteps * kMostStepRows];
  int32_t best[kMostStepRows];
  int32_t segment[kMostSteps * (text::kContinuations + 1)];
  int32_t credit[kMostSteps * (text::kContinuations + 1)];
};

struct Steps {
  // What is asked for.
  Decoder* decoder;
  StreamSteps* streams;
  text::Planner* planner;       // null: nothing is drafted
  const text::Prices* prices;
  float* logits;                // [rows, logits_ld()], for the longest step
  const float* states;          // where the decoder keeps its rows' states; null: it does not
  const volatile int32_t* interrupt;   // not zero: end after the present step; null: never
  double budget_ms;             // no step begins later
  int32_t count;                // of streams, kMostTogether at most
  int32_t clock;                // of the position index
  int32_t vocab, hidden;
  int32_t steps;                // to be taken at most
  // What was done.
  int32_t taken;
  StepsEnd end;                 // ask, time or none; a stream's own end ends the call too
  int32_t wanting;              // of the streams that do not rest then, the one for which the paid
                                // drafter is wanted
  double plain_ms;              // of the rows of plain steps
  double others_ms;             // what was neither planning nor rows
  TakenStep each[kMostSteps];
  const uint8_t* records;
};

}  // namespace atlasd
