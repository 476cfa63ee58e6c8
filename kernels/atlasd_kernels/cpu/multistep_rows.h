// The rows of one step of a few streams: what is fed, and what the target chooses there.
#pragma once
#include <algorithm>

#include "multistep.h"

namespace atlasd {

class StepRows {
 public:
  explicit StepRows(const Steps& s)
      : s_(s), kernels_(*find_kernels(nullptr)), ld_(s.decoder->logits_ld()) {}

  void clear() { count_ = 0; }
  int32_t count() const { return count_; }

  // A stream's known token and its draft, behind the rows so far. `origin`: of the draft's tokens.
  void put(const StreamSteps& stream, int32_t drafted, const int32_t* draft, const uint8_t* origin) {
    rows(stream) = {count_, 1 + drafted, 0};
    fed_[count_] = stream.token;
    std::copy_n(draft, drafted, fed_ + count_ + 1);
    std::copy_n(origin, drafted, origin_ + count_ + 1);
    for (int32_t r = 0; r <= drafted; r++) {
      slots_[count_ + r] = stream.slot;
      positions_[count_ + r] = stream.fed + r;
      wanted_[count_ + r] = count_ + r;
    }
    count_ += 1 + drafted;
  }

  // Null, or what is wrong with the rows.
  const char* forward() {
    const RowBatch batch{fed_, slots_, positions_, count_};
    if (const char* problem = s_.decoder->check(batch, wanted_, count_)) return problem;
    s_.decoder->forward(batch, wanted_, count_, s_.logits);
    return nullptr;
  }

  const uint8_t* origin(const StreamSteps& stream) const { return origin_ + rows(stream).begin + 1; }
  const float* states(const StreamSteps& stream) const {
    return s_.states + long{rows(stream).begin} * s_.hidden;
  }

  // The target's tokens up to the first that differs from the draft, cut at the output's end.
  void choose(StreamSteps& stream, TakenShare& step) {
    Rows& mine = rows(stream);
    int32_t* chosen = stream.tokens + stream.count;
    int32_t count = 0;
    for (bool agrees = true; agrees && count < mine.count; count++) {
      if (kernels_.has_nan(s_.logits + (mine.begin + count) * ld_, s_.vocab)) {
        stream.end = StepsEnd::damaged;
        return;
      }
      chosen[count] = choose_at(stream, count, stream.noise.temperature);
      agrees = count < step.drafted && chosen[count] == fed_[mine.begin + count + 1];
    }
    mine.agreed = count;
    step.verified = std::min(count, stream.left);
    if (count >= stream.left) stream.end = StepsEnd::length;
    const int32_t *stops = stream.stops, *stops_end = stops + stream.stop_count;
    for (int32_t i = 0; i < step.verified; i++) {
      if (std::find(stops, stops_end, chosen[i]) == stops_end) continue;
      step.verified = i + 1;
      stream.end = StepsEnd::stop;
    }
    step.accepted = std::min(count - 1, step.verified);
  }

  // The target's first choices at all rows go to `best`, where they are news: where the verified
  // tokens do not tell them. How many there are.
  int32_t first_choices(StreamSteps& stream, const TakenShare& step) const {
    const Rows& mine = rows(stream);
    const bool rejected = mine.count > step.verified && step.verified > step.accepted;
    const bool samples = stream.noise.temperature > 0.0f;
    if (!rejected && (!samples || mine.count < 2)) return 0;
    for (int32_t r = 0; r < mine.count; r++)
      stream.best[r] = !samples && r < mine.agreed ? stream.tokens[stream.count + r]
                                                   : choose_at(stream, r, 0.0f);
    return mine.count;
  }

 private:
  struct Rows {
    int32_t begin;   // among all
    int32_t count;   // the known token's and those of the draft
    int32_t agreed;  // tokens of the target up to the first that differs from the draft
  };

  Rows& rows(const StreamSteps& stream) { return rows_[&stream - s_.streams]; }
  const Rows& rows(const StreamSteps& stream) const { return rows_[&stream - s_.streams]; }

  int32_t choose_at(const StreamSteps& stream, int32_t row, float temperature) const {
    Noise noise = stream.noise;
    noise.temperature = temperature;
    noise.output_index += static_cast<uint32_t>(row);
    return kernels_.choose(s_.logits + (rows(stream).begin + row) * ld_, s_.vocab, noise);
  }

  const Steps& s_;
  const Kernels& kernels_;
  const long ld_;
  int32_t count_ = 0;
  Rows rows_[kMostTogether];
  int32_t fed_[kMostStepRows], slots_[kMostStepRows], positions_[kMostStepRows];
  int32_t wanted_[kMostStepRows];
  uint8_t origin_[kMostStepRows];
};

}  // namespace atlasd
