// A drafter's whole lookahead: forward one row, choose, repeat.
#include <algorithm>
#include <cmath>

#include "decoder.h"

namespace atlasd {

void Decoder::reduce_head(const int32_t* tokens, long count) {
  reduced_tokens_.assign(tokens, tokens + count);
  reduced_head_ = gather_columns(head_, tokens, count, draft_format(), reduced_memory_);
}

const char* Decoder::check_chain(const RowBatch& rows, const int32_t* before) const {
  if (before && (*before < 0 || *before >= config_.vocab)) return "token out of range";
  return check(rows, nullptr, 0);
}

long Decoder::draft(const RowBatch& rows, const float* chose, long limit, float stop,
                    const Noise& noise, bool reduced, int32_t* tokens, float* probabilities,
                    const Correction* correction, int32_t before) {
  const std::vector<int32_t>& ids = correction ? correction->tokens() : reduced_tokens_;
  const Matrix& head_matrix = correction ? correction->head() : reduced ? reduced_head_ : head_;
  reduced = reduced || correction;
  const long width = head_matrix.panels * kPanel;
  const long count = reduced ? static_cast<long>(ids.size()) : config_.vocab;
  draft_logits_.resize(width);
  carried_.resize(config_.hidden);
  const Pool::Series series(*pool_);
  int32_t token = rows.tokens[rows.count - 1], slot = rows.slots[rows.count - 1];
  int32_t position = rows.positions[rows.count - 1];
  float reach = 1.0f;
  long drafted = 0;
  for (; drafted < limit && position < config_.slot_tokens; drafted++, position++) {
    const long n = drafted ? 1 : rows.count;
    block(drafted ? RowBatch{&token, &slot, &position, 1} : rows, {static_cast<int32_t>(n - 1)});
    Scratch s = scratch(n);
    const float* state = drafted ? carried_.data() : chose;
    if (carries() && state) add_carried(state, 1, s);
    if (correction) {
      corrected_head(*correction, token, before, s, draft_logits_.data(), width);
    } else {
      head(head_matrix, 1, s, draft_logits_.data(), width);
      std::copy_n(s.normed, config_.hidden, carried_.data());
    }
    before = token;
    const float total = kernels_->log_sum_exp(draft_logits_.data(), count);
    Noise here = noise;
    here.output_index += static_cast<uint32_t>(drafted);
    const float* logits = draft_logits_.data();
    // noise is keyed by the token's own id
    const int32_t best = reduced ? kernels_->choose_among(logits, ids.data(), count, here)
                                 : kernels_->choose(logits, count, here);
    probabilities[drafted] = std::exp(logits[best] - total);
    token = reduced ? ids[best] : best;
    reach *= probabilities[drafted];
    if (reach < stop) break;
    tokens[drafted] = token;
  }
  return drafted;
}

}  // namespace atlasd
