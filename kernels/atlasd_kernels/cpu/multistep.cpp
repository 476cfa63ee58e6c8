#include "multistep.h"

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

// Milliseconds since another moment: the processor's where that is less than the clock's.
struct Moment {
  double wall, processor;

  static Moment now() {
    using std::chrono::duration;
    timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    const duration<double, std::milli> wall = std::chrono::steady_clock::now().time_since_epoch();
    return {wall.count(), double(used.tv_sec) * 1e3 + double(used.tv_nsec) * 1e-6};
  }

  double until(const Moment& later) const {
    return std::min(later.wall - wall, later.processor - processor);
  }
};

bool damaged(const float* logits, long n) {
  uint32_t found = 0;
  for (long i = 0; i < n; i++) {
    uint32_t bits;
    std::memcpy(&bits, logits + i, 4);
    found |= (bits & 0x7FFFFFFFu) > 0x7F800000u;
  }
  return found != 0;
}

class Taking {
 public:
  explicit Taking(Steps& s) : s_(s), kernels_(*find_kernels(nullptr)), ld_(s.decoder->logits_ld()) {}

  // Null, or what is wrong with a step's rows.
  const char* all() {
    const Moment began = Moment::now();
    Moment last = began;
    double known_ms = 0.0;
    clear();
    while (s_.taken < s_.steps && s_.end == StepsEnd::none && !s_.unwritten) {
      if (s_.taken && (last.wall - began.wall > s_.budget_ms || (s_.interrupt && *s_.interrupt))) {
        s_.end = StepsEnd::time;
        break;
      }
      if (s_.planner && s_.taken == s_.planned && (s_.accepted[0] || s_.accepted[1])) break;
      const bool plans = s_.planner && s_.taken < s_.planned;
      TakenStep& step = s_.each[s_.taken];
      step = {};
      const Moment start = last;
      if (plans && !plan(step)) break;
      const Moment planned = Moment::now();
      step.rows = 1 + step.drafted;
      if (const char* problem = forward(step.rows)) return problem;
      const Moment forwarded = Moment::now();
      step.forward_ms = planned.until(forwarded);
      const int32_t count = choose(step);
      if (s_.end == StepsEnd::damaged) break;
      const Moment chosen = Moment::now();
      if (plans) learn(step, count);
      go_on(step);
      s_.taken++;
      last = Moment::now();
      step.planning_ms = plans ? start.until(planned) + chosen.until(last) : 0.0;
      known_ms += step.forward_ms + step.planning_ms;
      if (!plans) s_.plain_ms += step.forward_ms;
    }
    s_.records = records().data();
    s_.others_ms = std::max(0.0, began.until(last) - known_ms);
    return nullptr;
  }

 private:
  void clear() {
    s_.taken = s_.count = s_.unwritten = s_.best_count = s_.credits = 0;
    s_.end = StepsEnd::none;
    s_.plain_ms = 0.0;
    for (int i = 0; i < 2; i++) s_.drafted[i] = s_.decided[i] = s_.accepted[i] = 0;
    records().clear();
  }

  // False where the paid drafter is wanted first, whom Python asks.
  bool plan(TakenStep& step) {
    Planner& planner = *s_.planner;
    s_.question->limit = std::min(s_.room, s_.left - 1);
    planner.text().clock = s_.clock;
    if (planner.plan(s_.question, 1, *s_.prices, false) >= 0) {
      s_.end = StepsEnd::ask;
      return false;
    }
    const text::Outcome& plan = planner.outcome;
    step.drafted = plan.lookahead[0];
    step.foreseen = plan.foreseen[0];
    step.record_bytes = plan.record_bytes;
    records().insert(records().end(), plan.record, plan.record + plan.record_bytes);
    std::copy_n(plan.tokens, step.drafted, fed_ + 1);
    std::copy_n(plan.origin, step.drafted, origin_);
    return true;
  }

  const char* forward(int32_t rows) {
    fed_[0] = s_.token;
    for (int32_t r = 0; r < rows; r++) {
      slots_[r] = s_.slot;
      positions_[r] = s_.fed + r;
      wanted_[r] = r;
    }
    const RowBatch batch{fed_, slots_, positions_, rows};
    if (const char* problem = s_.decoder->check(batch, wanted_, rows)) return problem;
    s_.decoder->forward(batch, wanted_, rows, s_.logits);
    return nullptr;
  }

  int32_t choose_at(int32_t row, float temperature) const {
    Noise noise = s_.noise;
    noise.temperature = temperature;
    noise.output_index += static_cast<uint32_t>(row);
    return kernels_.choose(s_.logits + row * ld_, s_.vocab, noise);
  }

  // The target's tokens up to the first that differs from the draft, cut at the output's end; how
  // many there were before the cut.
  int32_t choose(TakenStep& step) {
    int32_t* chosen = s_.tokens + s_.count;
    int32_t count = 0;
    for (bool agrees = true; agrees && count < step.rows; count++) {
      if (damaged(s_.logits + count * ld_, s_.vocab)) {
        s_.end = StepsEnd::damaged;
        return 0;
      }
      chosen[count] = choose_at(count, s_.noise.temperature);
      agrees = count < step.drafted && chosen[count] == fed_[count + 1];
    }
    step.verified = std::min(count, s_.left);
    if (count >= s_.left) s_.end = StepsEnd::length;
    for (int32_t i = 0; i < step.verified; i++) {
      if (std::find(s_.stops, s_.stops + s_.stop_count, chosen[i]) == s_.stops + s_.stop_count)
        continue;
      step.verified = i + 1;
      s_.end = StepsEnd::stop;
    }
    step.accepted = std::min(count - 1, step.verified);
    return count;
  }

  // The target's first choices at all rows are news where the verified tokens do not tell them.
  bool first_choices(const TakenStep& step, int32_t count) {
    const bool rejected = step.rows > step.verified && step.verified > step.accepted;
    const bool samples = s_.noise.temperature > 0.0f;
    if (!rejected && (!samples || step.rows < 2)) return false;
    for (int32_t r = 0; r < step.rows; r++)
      s_.best[r] = !samples && r < count ? s_.tokens[s_.count + r] : choose_at(r, 0.0f);
    return true;
  }

  void learn(const TakenStep& step, int32_t count) {
    const int32_t decided =
        s_.end == StepsEnd::none ? step.drafted : std::min(step.drafted, step.verified);
    for (int32_t i = 0; i < step.drafted; i++) {
      s_.drafted[origin_[i]]++;
      s_.decided[origin_[i]] += i < decided;
      s_.accepted[origin_[i]] += i < step.accepted;
    }
    const bool told = first_choices(step, count);
    s_.best_count = told ? step.rows : 0;
    text::Settled settled;
    const int32_t written = s_.planner->settle(
        *s_.question->stream, s_.tokens + s_.count, step.verified, step.drafted, step.accepted,
        told ? s_.best : nullptr, s_.best_count, settled);
    s_.unwritten = step.verified - written;
    std::copy_n(settled.segment, settled.credits, s_.segment + s_.credits);
    std::copy_n(settled.credit, settled.credits, s_.credit + s_.credits);
    s_.credits += settled.credits;
  }

  void go_on(const TakenStep& step) {
    for (int32_t i = 0; s_.states && i < step.verified; i++) {
      const int32_t index = s_.length + s_.count + i, at = index % s_.chose_room;
      std::copy_n(s_.states + long{i} * s_.hidden, s_.hidden, s_.chose + long{at} * s_.hidden);
      s_.chose_index[at] = index;
    }
    s_.count += step.verified;
    s_.left -= step.verified - (s_.end == StepsEnd::stop);
    s_.fed += 1 + step.accepted;
    s_.token = s_.tokens[s_.count - 1];
    s_.noise.output_index += static_cast<uint32_t>(step.verified);
  }

  // Kept from call to call: their bytes are read before the next one.
  static std::vector<uint8_t>& records() {
    thread_local std::vector<uint8_t> kept;
    return kept;
  }

  Steps& s_;
  const Kernels& kernels_;
  const long ld_;
  int32_t fed_[64], slots_[64], positions_[64], wanted_[64];
  uint8_t origin_[64];
};

}  // namespace

}  // namespace atlasd

// Raised whenever a struct here changes.
ATLASD_API int32_t atlasd_steps_version() { return 2; }

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
