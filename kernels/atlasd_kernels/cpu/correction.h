// What an online adapter adds to a drafter: a draft head of its own, a low-rank correction of the
// last hidden state, and a bias.
//
//   z = h D + last[token] + before[token before it],   h' = h + z U,   logits = head(h') + bias
#pragma once
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "memory.h"

namespace atlasd {

constexpr long kMaxRank = 64;

// Mirrored by ctypes in library.py: keep both in step.
struct CorrectionWeights {
  int64_t count, rank, codes;
  const int32_t* tokens;   // [count], the head
  const float* down;       // [hidden, rank]
  const float* up;         // [rank, hidden]
  const float* last;       // [codes, rank]
  const float* before;     // [codes, rank]
  const float* bias;       // [count]
};

class Correction {
 public:
  // full: the drafter's head; its columns of the tokens are copied, in this format
  Correction(const CorrectionWeights& weights, const Matrix& full, Format format, long hidden);

  void correct(float* state, int32_t last, int32_t before) const;
  void add_bias(float* logits) const;

  const Matrix& head() const { return head_; }
  const std::vector<int32_t>& tokens() const { return tokens_; }

 private:
  long hidden_, rank_, codes_;
  std::vector<int32_t> tokens_;
  std::vector<float> down_, up_, last_, before_, bias_;
  Memory memory_;
  Matrix head_;
};

}  // namespace atlasd
