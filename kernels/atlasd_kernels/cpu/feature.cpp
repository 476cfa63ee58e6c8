// A drafter's second input, after EAGLE: at a position it reads the embedding of the token and a
// linear map of the state that chose it. The target's states are known for verified tokens; along a
// chain the drafter's own take their place; a row of zeros says that none is known.
#include <algorithm>

#include "decoder.h"

namespace atlasd {

void Decoder::set_feature(const float* weight) {
  const long hidden = config_.hidden;
  const Format format = static_cast<Format>(config_.format);
  const long panels = padded(hidden, kPanel) / kPanel, bytes = panel_bytes(format, hidden);
  feature_memory_ = Memory(panels * bytes + 4096);   // kernels prefetch a little behind the end
  uint8_t* data = feature_memory_.as<uint8_t>();
  feature_ = {format, data, panels, padded(hidden, kGroupPadding), bytes};
  const Packing packing{format, Source::fp32, weight, hidden, hidden, data, 0, 0};
  for (long begin = 0; begin < hidden; begin += kPanel)
    pack_rows(packing, begin, std::min(begin + kPanel, hidden));
}

void Decoder::add_features(const RowBatch& rows, Scratch& s) {
  const long hidden = config_.hidden;
  for (long r = 0; r < rows.count; r++)
    std::copy_n(rows.features + r * hidden, hidden, s.normed + r * s.x_ld);
  quantise(s.normed, s.x_ld, hidden, rows.count, feature_.format, s);
  multiply(feature_, s.rows, rows.count, {s.x, s.x_ld, Finish::add, nullptr});
}

}  // namespace atlasd
