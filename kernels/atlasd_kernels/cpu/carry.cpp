// What a drafter carries along: the state that chose a token adds, through a linear map, to the state
// after it. For a verified token that is the target's state, which knows more than the drafter
// does (EAGLE, Li et al. 2024); along a chain it is the drafter's own. Keys and values do not depend
// on it, so rows of an accepted chain stay good.
#include <algorithm>

#include "decoder.h"

namespace atlasd {

void Decoder::set_carry(const float* weight) {
  const long hidden = config_.hidden;
  const Format format = static_cast<Format>(config_.format);
  const long panels = padded(hidden, kPanel) / kPanel, bytes = panel_bytes(format, hidden);
  carry_memory_ = Memory(panels * bytes + 4096);   // kernels prefetch a little behind the end
  uint8_t* data = carry_memory_.as<uint8_t>();
  carry_ = {format, data, panels, padded(hidden, kGroupPadding), bytes};
  const Packing packing{format, Source::fp32, weight, hidden, hidden, data, 0, 0};
  for (long begin = 0; begin < hidden; begin += kPanel)
    pack_rows(packing, begin, std::min(begin + kPanel, hidden));
}

void Decoder::add_carried(const float* states, long rows, Scratch& s) {
  const long hidden = config_.hidden;
  for (long r = 0; r < rows; r++)
    std::copy_n(states + r * hidden, hidden, s.normed + r * s.x_ld);
  multiply(carry_, {s.normed, s.x_ld, hidden, nullptr}, rows, {s.x, s.x_ld, Finish::add, nullptr}, s);
}

}  // namespace atlasd
