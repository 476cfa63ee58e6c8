// What a token's keys know of the token before it: a linear map of its embedding, normalised as the
// layer reads it, is added to them ("smeared keys", Olsson et al., "In-context Learning and
// Induction Heads", 2022). With it one layer can do what takes two without: look for where the
// present token stood before, and see what came after it.
#include <algorithm>

#include "decoder.h"

namespace atlasd {

const char* Decoder::set_smear(const float* weight) {
  const Config& c = config_;
  const long columns = long{c.kv_heads} * c.head_dim;
  // added in place behind the queries, in whole panels
  if (columns % kPanel || (long{c.heads} * c.head_dim) % kPanel)
    return "keys of this size cannot be smeared";
  const Format format = static_cast<Format>(c.format);
  const long bytes = panel_bytes(format, c.hidden);
  smear_memory_ = Memory(columns / kPanel * bytes + 4096);   // kernels prefetch behind the end
  uint8_t* data = smear_memory_.as<uint8_t>();
  smear_ = {format, data, columns / kPanel, padded(c.hidden, kGroupPadding), bytes};
  const Packing packing{format, Source::fp32, weight, columns, c.hidden, data, 0, 0};
  for (long begin = 0; begin < columns; begin += kPanel)
    pack_rows(packing, begin, begin + kPanel);
  texts_.assign(long{c.slots} * c.slot_tokens, 0);
  return nullptr;
}

// Remembers the rows' tokens, and adds to their keys what the tokens before them give.
// s.normed holds the rows as the first layer reads them, and afterwards what it likes.
void Decoder::smear(const RowBatch& rows, Scratch& s) {
  const Config& c = config_;
  for (long r = 0; r < rows.count; r++)
    texts_[long{rows.slots[r]} * c.slot_tokens + rows.positions[r]] = rows.tokens[r];
  // from the last row on, so that a row's place is free once its follower has read it
  for (long r = rows.count - 1; r >= 0; r--) {
    float* row = s.normed + r * s.x_ld;
    const int32_t position = rows.positions[r];
    if (position == 0) {
      std::fill_n(row, c.hidden, 0.0f);
    } else if (r > 0 && rows.slots[r - 1] == rows.slots[r] &&
               rows.positions[r - 1] == position - 1) {
      std::copy_n(row - s.x_ld, c.hidden, row);
    } else {
      embed(texts_[long{rows.slots[r]} * c.slot_tokens + position - 1], row);
      kernels_->rms_norm(row, layers_[0].input_norm, c.rms_eps, c.hidden, row);
    }
  }
  multiply(smear_, {s.normed, s.x_ld, c.hidden, nullptr}, rows.count,
           {s.qkv + long{c.heads} * c.head_dim, s.qkv_ld, Finish::add, nullptr}, s);
}

}  // namespace atlasd
