// Rewrites that were made once, by their first token: they are likely to be made again.
#include <algorithm>

#include "text.h"

namespace atlasd::text {

namespace {

constexpr size_t kRules = 64;

}  // namespace

void Rules::note(const int32_t* before, int32_t old_count, const int32_t* after,
                 int32_t new_count) {
  if (old_count < 1 || old_count > kRuleTokens || new_count < 1 || new_count > kRuleTokens) return;
  clock_++;
  Rule& rule = by_first_[before[0]];
  if (!rule.id || rule.old_count != old_count || rule.new_count != new_count ||
      !std::equal(before, before + old_count, rule.before) ||
      !std::equal(after, after + new_count, rule.after)) {
    rule = Rule{};
    rule.id = clock_;
    rule.old_count = old_count;
    rule.new_count = new_count;
    std::copy_n(before, old_count, rule.before);
    std::copy_n(after, new_count, rule.after);
  }
  rule.noted = clock_;
  first_.add(before[0]);
  if (by_first_.size() > kRules) {
    by_first_.erase(std::min_element(
        by_first_.begin(), by_first_.end(),
        [](const auto& a, const auto& b) { return a.second.noted < b.second.noted; }));
    first_.clear();
    for (const auto& known : by_first_) first_.add(known.first);
  }
}

const Rule* Rules::at(const int32_t* tokens, int32_t count) const {
  if (!first_.may_have(tokens[0])) return nullptr;
  const auto hit = by_first_.find(tokens[0]);
  if (hit == by_first_.end() || hit->second.old_count > count ||
      !std::equal(tokens, tokens + hit->second.old_count, hit->second.before))
    return nullptr;
  return &hit->second;
}

void Rules::learn(int64_t id, int32_t first, int32_t token) {
  const auto hit = by_first_.find(first);
  if (hit == by_first_.end() || hit->second.id != id) return;
  Rule& rule = hit->second;
  if (token != rule.before[0] && token != rule.after[0]) return;
  const bool held = token == rule.after[0];
  rule.right = std::max(0.01, 0.9 * rule.right + held);
  rule.wrong = 0.9 * rule.wrong + !held;
}

}  // namespace atlasd::text
