// Assembling chains, cutting them by cost, and telling who was right.
#include "plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace atlasd::text {

void Assembly::clear() {
  tokens.clear();
  confidence.clear();
  reach.clear();
  origin.clear();
  candidates.clear();
  considered.clear();
  considered_confidence.clear();
  asked = 0;
  best = -1;
  best_expected = 0.0;
}

namespace {

// Puts a candidate beside the others; it leads if it is expected to bring more than they.
void consider(Assembly& assembly, int32_t source, int32_t segment, const int32_t* tokens,
              const double* confidence, int32_t count) {
  const int32_t begin = int32_t(assembly.considered.size());
  assembly.considered.insert(assembly.considered.end(), tokens, tokens + count);
  assembly.considered_confidence.insert(assembly.considered_confidence.end(), confidence,
                                        confidence + count);
  assembly.candidates.push_back({source, 0, begin, count, segment});
  double expected = 0.0, product = 1.0;
  for (int32_t i = 0; i < count; i++) {
    product *= confidence[i];
    expected += product;
  }
  if (assembly.best < 0 || expected > assembly.best_expected) {
    assembly.best = int32_t(assembly.candidates.size()) - 1;
    assembly.best_expected = expected;
  }
}

// Tokens that an ask which brings `brought` on average adds to a chain that is expected to bring
// `known`: the better of the two is taken, and what an ask brings is spread like an exponential.
double added(double brought, double known) {
  if (brought <= 0.0 || std::isinf(brought)) return brought;
  return brought * std::exp(-known / brought);
}

template <class T>
void put(std::vector<uint8_t>& out, const T* values, size_t count) {
  const size_t size = out.size();
  out.resize(size + count * sizeof(T));
  if (count) std::memcpy(out.data() + size, values, count * sizeof(T));
}

}  // namespace

int32_t Planner::plan(const Question* questions, int32_t count, const Prices& prices,
                      bool resume) {
  if (!resume) at_ = 0;
  for (; at_ < count; at_++) {
    const bool resumed = resume;
    resume = false;
    if (assemble(questions[at_], prices, resumed)) continue;
    const Assembly& chain = questions[at_].stream->assembly;
    outcome.rows = int32_t(std::min(chain.tokens.size(), size_t(kMostRows)));
    std::copy_n(chain.tokens.begin(), outcome.rows, outcome.tokens);
    outcome.foreseen[0] = chain.reach.empty() ? 1.0 : chain.reach.back();
    return at_;
  }
  cut(questions, count, prices);
  write_record(questions, count);
  return -1;
}

// The best chain for a stream; false where the paid drafter is wanted first.
bool Planner::assemble(const Question& question, const Prices& prices, bool resumed) {
  Stream& stream = *question.stream;
  Assembly& chain = stream.assembly;
  if (!resumed) chain.clear();
  if (question.limit <= 0 || stream.tokens.empty()) return true;
  while (resumed || (chain.asked <= kContinuations &&
                     int32_t(chain.tokens.size()) < question.limit)) {
    if (!resumed) {
      chain.best = -1;
      chain.best_expected = 0.0;
      // A copy: proposing behind a chain must not read what it grows.
      after_.assign(chain.tokens.begin(), chain.tokens.end());
      text_.propose(stream, after_.data(), int32_t(after_.size()),
                    question.limit - int32_t(after_.size()), prices.least_reach, drafted_);
      if (drafted_.count)
        consider(chain, 0, drafted_.segment, drafted_.tokens, drafted_.probability,
                 drafted_.count);
      const double reach = chain.reach.empty() ? 1.0 : chain.reach.back();
      if (reach * added(question.brought, chain.best_expected) > question.worth) return false;
    }
    resumed = false;
    if (chain.best < 0) break;
    take_best(chain);
    if (chain.reach.back() < prices.worth_asking) break;
    chain.asked++;
  }
  return true;
}

void Planner::take_best(Assembly& chain) {
  Assembly::Candidate& best = chain.candidates[chain.best];
  best.taken = 1;
  double reach = chain.reach.empty() ? 1.0 : chain.reach.back();
  for (int32_t i = 0; i < best.count; i++) {
    const double confidence = chain.considered_confidence[best.begin + i];
    reach *= confidence;
    chain.reach.push_back(reach);
    chain.confidence.push_back(confidence);
    chain.tokens.push_back(chain.considered[best.begin + i]);
    chain.origin.push_back(best.source ? uint8_t(1 + best.source) : drafted_.from_place[i]);
  }
}

void Planner::offer(Stream& stream, int32_t source, const int32_t* tokens,
                    const double* confidence, int32_t count) {
  if (count > 0) consider(stream.assembly, source, -1, tokens, confidence, count);
}

void Planner::cut(const Question* questions, int32_t count, const Prices& prices) {
  std::fill_n(outcome.lookahead, count, 0);
  std::fill_n(outcome.foreseen, count, 0.0);
  ordered_.clear();
  for (int32_t i = 0; i < count; i++)
    for (double reach : questions[i].stream->assembly.reach) ordered_.emplace_back(reach, i);
  if (count > 1)
    std::stable_sort(ordered_.begin(), ordered_.end(),
                     [](const auto& a, const auto& b) { return a > b; });
  double expected = count + prices.others, best_rate = expected / prices.milliseconds[0];
  int32_t best = 0, taken = 0;
  Compared plain{0, expected, prices.milliseconds[0]}, winner = plain;
  for (const auto& [reach, stream] : ordered_) {
    if (taken == std::min(prices.room, int32_t(kMostRows))) break;
    expected += reach;
    taken++;
    const double rate = expected / prices.milliseconds[taken];
    if (rate > best_rate) {
      best_rate = rate;
      best = taken;
      winner = {taken, expected, prices.milliseconds[taken]};
    }
  }
  for (int32_t i = 0; i < best; i++) {
    outcome.lookahead[ordered_[i].second]++;
    outcome.foreseen[ordered_[i].second] += ordered_[i].first;
  }
  outcome.rows = 0;
  for (int32_t i = 0; i < count; i++) {
    const Assembly& chain = questions[i].stream->assembly;
    std::copy_n(chain.tokens.begin(), outcome.lookahead[i], outcome.tokens + outcome.rows);
    std::copy_n(chain.origin.begin(), outcome.lookahead[i], outcome.origin + outcome.rows);
    outcome.rows += outcome.lookahead[i];
  }
  compared_.assign(1, plain);
  if (best) compared_.push_back(winner);
  if (taken > best) compared_.push_back({taken, expected, prices.milliseconds[taken]});
}

void Planner::write_record(const Question* questions, int32_t count) {
  std::vector<uint8_t>& record = record_;
  record.clear();
  const int32_t sizes[2] = {count, int32_t(compared_.size())};
  put(record, sizes, 2);
  for (const Compared& one : compared_) {
    const double row[3] = {double(one.rows), one.expected, one.milliseconds};
    put(record, row, 3);
  }
  for (int32_t i = 0; i < count; i++) {
    const Assembly& chain = questions[i].stream->assembly;
    const int32_t head[3] = {questions[i].number, outcome.lookahead[i],
                             int32_t(chain.candidates.size())};
    put(record, head, 3);
    for (const Assembly::Candidate& one : chain.candidates) {
      const int32_t facts[3] = {one.source, one.taken, one.count};
      put(record, facts, 3);
      put(record, chain.considered.data() + one.begin, one.count);
      put(record, chain.considered_confidence.data() + one.begin, one.count);
    }
  }
  outcome.record = record.data();
  outcome.record_bytes = int32_t(record.size());
}

int32_t Planner::settle(Stream& stream, const int32_t* tokens, int32_t count, int32_t drafted,
                        int32_t accepted, const int32_t* best, int32_t rows, Settled& out) {
  const Assembly& chain = stream.assembly;
  out.credits = 0;
  int32_t left = drafted, right = accepted;
  for (const Assembly::Candidate& part : chain.candidates) {
    if (!part.taken) continue;
    if (left <= 0) break;
    const int32_t size = std::min(part.count, left), held = std::clamp(right, 0, size);
    if (held && !part.source && part.segment >= 0) {
      out.segment[out.credits] = part.segment;
      out.credit[out.credits++] = held;
    }
    left -= size;
    right -= size;
  }
  if (best && stream.learn) {
    std::vector<int32_t>& fed = stream.fed_last;
    fed.assign(1, stream.tokens.empty() ? 0 : stream.tokens.back());
    fed.insert(fed.end(), chain.tokens.begin(),
               chain.tokens.begin() + std::min(size_t(drafted), chain.tokens.size()));
  }
  const int32_t written = text_.append(stream, tokens, count);
  if (written == count) learn(stream, tokens, count, best, rows);
  return written;
}

void Planner::learn(Stream& stream, const int32_t* tokens, int32_t count, const int32_t* best,
                    int32_t rows) {
  text_.observe(stream, tokens, count);
  if (best && stream.learn)
    text_.recycle_rows(stream.fed_last.data(), best,
                       std::min(rows, int32_t(stream.fed_last.size())), tokens, count);
}

}  // namespace atlasd::text
