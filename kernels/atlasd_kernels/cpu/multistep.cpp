#include "multistep_rows.h"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <string>

#define ATLASD_API extern "C" __attribute__((visibility("default")))

namespace atlasd {

namespace {

using text::Planner;

// Both in milliseconds. The processor's time costs a call of the system.
double clock_ms() {
  using std::chrono::duration;
  const duration<double, std::milli> now = std::chrono::steady_clock::now().time_since_epoch();
  return now.count();
}

double processor_ms() {
  timespec used;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return double(used.tv_sec) * 1e3 + double(used.tv_nsec) * 1e-6;
}

class Taking {
 public:
  explicit Taking(Steps& s) : s_(s), rows_(s) {}

  // Null, or what is wrong with the first step's rows. Where a later one fails, the call ends before
  // it, and the next meets it first.
  const char* all() {
    // Planning takes as long as waking does: threads that fell asleep in it would be paid for twice.
    const Pool::Series series(s_.decoder->pool());
    const double began = clock_ms();
    double last = began, processor = processor_ms(), others_ms = 0.0;
    clear();
    while (s_.taken < s_.steps && !over_) {
      if (s_.taken && (last - began > s_.budget_ms || (s_.interrupt && *s_.interrupt))) {
        s_.end = StepsEnd::time;
        break;
      }
      TakenStep& step = s_.each[s_.taken];
      step = {};
      const double start = last;
      if (!plan(step)) break;
      const bool plans = step.record_bytes > 0;
      const double planned = clock_ms();
      if (const char* problem = rows_.forward()) {
        if (!s_.taken) return problem;
        drop(step);
        break;
      }
      const double forwarded = clock_ms();
      for (int32_t i = 0; i < s_.count; i++) rows_.choose(s_.streams[i], share(s_.streams[i]));
      const double chosen = clock_ms();
      for (int32_t i = 0; i < s_.count; i++) go_on(s_.streams[i]);
      s_.taken++;
      last = clock_ms();
      // What others took of the processor meanwhile is not the step's.
      const double used_until = processor_ms();
      const double own = std::clamp((used_until - processor) / std::max(last - start, 1e-6), 0.0, 1.0);
      processor = used_until;
      step.forward_ms = own * (forwarded - planned);
      step.planning_ms = plans ? own * (planned - start + last - chosen) : 0.0;
      others_ms += own * (last - start) - step.forward_ms - step.planning_ms;
      if (!plans) s_.plain_ms += step.forward_ms;
    }
    s_.records = records().data();
    s_.others_ms = std::max(0.0, others_ms);
    return nullptr;
  }

 private:
  TakenShare& share(StreamSteps& stream) const { return stream.each[s_.taken]; }

  void clear() {
    s_.taken = 0;
    s_.wanting = -1;
    s_.end = StepsEnd::none;
    s_.plain_ms = 0.0;
    for (int32_t i = 0; i < s_.count; i++) {
      StreamSteps& one = s_.streams[i];
      one.count = one.told = one.unwritten = one.best_count = one.credits = 0;
      one.end = StepsEnd::none;
      for (int source = 0; source < 2; source++)
        one.drafted[source] = one.decided[source] = one.accepted[source] = 0;
    }
    records().clear();
  }

  // Puts the streams' tokens and drafts into rows; false where the paid drafter is wanted first, whom
  // Python asks, or a tail has no room.
  bool plan(TakenStep& step) {
    asking_ = 0;
    for (int32_t i = 0; i < s_.count; i++) {
      StreamSteps& one = s_.streams[i];
      TakenShare& mine = share(one) = {};
      mine.planned = one.question && !one.wait;
      if (!mine.planned) continue;
      if (!catch_up(one)) return false;
      text::Question& question = questions_[asking_++] = *one.question;
      question.limit = std::min(one.room, one.left - 1);
    }
    if (asking_ && !ask_planner(step)) return false;
    const text::Outcome* plan = asking_ ? &s_.planner->outcome : nullptr;
    int32_t drafted = 0, question = 0;
    rows_.clear();
    for (int32_t i = 0; i < s_.count; i++) {
      StreamSteps& one = s_.streams[i];
      TakenShare& mine = share(one);
      if (mine.planned) {
        mine.drafted = plan->lookahead[question++];
        rows_.put(one, mine.drafted, plan->tokens + drafted, plan->origin + drafted);
        drafted += mine.drafted;
      } else {
        one.wait -= one.wait > 0;
        rows_.put(one, 0, nullptr, nullptr);
      }
    }
    step.rows = rows_.count();
    return true;
  }

  // Tells the drafters of tokens that were decoded while the stream rested; false where its tail has
  // no room for them.
  bool catch_up(StreamSteps& stream) {
    const int32_t untold = stream.count - stream.told;
    if (!untold) return true;
    text::Stream& text = *stream.question->stream;
    if (s_.planner->text().room(text) < untold) return false;
    text::Settled settled;
    s_.planner->settle(text, stream.tokens + stream.told, untold, 0, 0, nullptr, 0, settled);
    stream.told = stream.count;
    return true;
  }

  bool ask_planner(TakenStep& step) {
    Planner& planner = *s_.planner;
    text::Prices prices = *s_.prices;
    prices.others = s_.count - asking_;
    planner.text().clock = s_.clock;
    s_.wanting = planner.plan(questions_, asking_, prices, false);
    if (s_.wanting >= 0) {
      s_.end = StepsEnd::ask;
      return false;
    }
    const text::Outcome& plan = planner.outcome;
    step.record_bytes = plan.record_bytes;
    records().insert(records().end(), plan.record, plan.record + plan.record_bytes);
    return true;
  }

  void drop(const TakenStep& step) { records().resize(records().size() - step.record_bytes); }

  void learn(StreamSteps& stream) {
    TakenShare& step = share(stream);
    const uint8_t* origin = rows_.origin(stream);
    const auto& reach = stream.question->stream->assembly.reach;
    // What lies behind the output's end nobody has judged.
    const int32_t decided =
        stream.end == StepsEnd::none ? step.drafted : std::min(step.drafted, step.verified);
    for (int32_t i = 0; i < step.drafted; i++) {
      stream.drafted[origin[i]]++;
      stream.decided[origin[i]] += i < decided;
      stream.accepted[origin[i]] += i < step.accepted;
      if (i < decided) step.foreseen += reach[i];
    }
    if (!step.accepted) stream.wait = stream.pause;
    stream.best_count = rows_.first_choices(stream, step);
    text::Settled settled;
    const int32_t written = s_.planner->settle(
        *stream.question->stream, stream.tokens + stream.count, step.verified, step.drafted,
        step.accepted, stream.best_count ? stream.best : nullptr, stream.best_count, settled);
    stream.unwritten = step.verified - written;
    stream.told = stream.count + step.verified;
    std::copy_n(settled.segment, settled.credits, stream.segment + stream.credits);
    std::copy_n(settled.credit, settled.credits, stream.credit + stream.credits);
    stream.credits += settled.credits;
  }

  void go_on(StreamSteps& stream) {
    over_ |= stream.end != StepsEnd::none;
    if (stream.end == StepsEnd::damaged) return;
    if (share(stream).planned) learn(stream);
    over_ |= stream.unwritten > 0;
    const TakenShare& step = share(stream);
    if (stream.chose) keep_states(stream, step.verified);
    stream.count += step.verified;
    stream.left -= step.verified - (stream.end == StepsEnd::stop);
    stream.fed += 1 + step.accepted;
    stream.token = stream.tokens[stream.count - 1];
    stream.noise.output_index += static_cast<uint32_t>(step.verified);
  }

  void keep_states(StreamSteps& stream, int32_t verified) {
    const float* states = rows_.states(stream);
    for (int32_t i = 0; i < verified; i++) {
      const int32_t index = stream.length + stream.count + i, at = index % stream.chose_room;
      std::copy_n(states + long{i} * s_.hidden, s_.hidden, stream.chose + long{at} * s_.hidden);
      stream.chose_index[at] = index;
    }
  }

  // Kept from call to call: their bytes are read before the next one.
  static std::vector<uint8_t>& records() {
    thread_local std::vector<uint8_t> kept;
    return kept;
  }

  Steps& s_;
  StepRows rows_;
  bool over_ = false;   // some output has ended, or its tail has no room
  int32_t asking_ = 0;
  text::Question questions_[kMostTogether];
};

}  // namespace

}  // namespace atlasd

// Null, or what went wrong, valid until the thread's next call.
ATLASD_API const char* atlasd_take_steps(atlasd::Steps* steps) {
  thread_local std::string problem;
  try {
    return atlasd::Taking(*steps).all();
  } catch (const std::exception& e) {
    problem = e.what();
    return problem.c_str();
  }
}
