// Drafting with an online adapter, and the states it is trained on.
#include "correction.h"

#include <algorithm>
#include <cstring>

#include "decoder.h"

namespace atlasd {

Correction::Correction(const CorrectionWeights& w, const Matrix& full, Format format,
                       long hidden)
    : hidden_(hidden),
      rank_(w.rank),
      codes_(w.codes),
      tokens_(w.tokens, w.tokens + w.count),
      down_(w.down, w.down + hidden * w.rank),
      up_(w.up, w.up + hidden * w.rank),
      last_(w.last, w.last + w.codes * w.rank),
      before_(w.before, w.before + w.codes * w.rank),
      bias_(w.bias, w.bias + w.count),
      head_(gather_columns(full, w.tokens, w.count, format, memory_)) {}

void Correction::correct(float* state, int32_t last, int32_t before) const {
  float z[kMaxRank];
  const float* last_code = last_.data() + last % codes_ * rank_;
  const float* before_code = before_.data() + before % codes_ * rank_;
  for (long k = 0; k < rank_; k++) z[k] = last_code[k] + before_code[k];
  for (long i = 0; i < hidden_; i++) {
    const float* row = down_.data() + i * rank_;
    const float x = state[i];
    for (long k = 0; k < rank_; k++) z[k] += x * row[k];
  }
  for (long k = 0; k < rank_; k++) {
    const float* row = up_.data() + k * hidden_;
    const float x = z[k];
    for (long i = 0; i < hidden_; i++) state[i] += x * row[i];
  }
}

void Correction::add_bias(float* logits) const {
  for (size_t i = 0; i < bias_.size(); i++) logits[i] += bias_[i];
}

Correction* Decoder::make_correction(const CorrectionWeights& weights) const {
  return new Correction(weights, head_, draft_format(), config_.hidden);
}

const char* Decoder::check_correction(const CorrectionWeights& w) const {
  if (w.count < 1 || w.codes < 1) return "a correction needs tokens and codes";
  if (w.rank < 1 || w.rank > kMaxRank) return "rank out of range";
  for (long i = 0; i < w.count; i++)
    if (w.tokens[i] < 0 || w.tokens[i] >= config_.vocab) return "head token out of range";
  return nullptr;
}

void Decoder::corrected_head(const Correction& correction, int32_t last, int32_t before,
                             Scratch& s, float* logits, long ld) {
  kernels_->rms_norm(s.x, final_norm_, config_.rms_eps, config_.hidden, s.normed);
  std::copy_n(s.normed, config_.hidden, carried_.data());
  correction.correct(s.normed, last, before);
  multiply(correction.head(), {s.normed, s.x_ld, config_.hidden, nullptr}, 1,
           {logits, ld, Finish::store, nullptr}, s);
  correction.add_bias(logits);
}

void Decoder::states(const RowBatch& rows, const float* chose, float* out) {
  const Pool::Series series(*pool_);
  std::vector<int32_t> all;
  for (long begin = 0; begin < rows.count; begin += kStepRows) {
    const long n = std::min(kStepRows, rows.count - begin);
    all.resize(n);
    for (long i = 0; i < n; i++) all[i] = static_cast<int32_t>(i);
    block(rows.part(begin, n), all);
    Scratch s = scratch(n);
    if (chose) add_carried(chose + begin * config_.hidden, n, s);
    prepare({s.x, s.x_ld, config_.hidden, final_norm_}, n, Format::fp32, s);
    for (long i = 0; i < n; i++)
      memcpy(out + (begin + i) * config_.hidden, s.normed + i * s.x_ld, config_.hidden * 4);
  }
}

}  // namespace atlasd
