// What happens to a row's 32 finished columns.
#pragma once

namespace {

using namespace atlasd;

inline void finish(const Output& out, long row, long panel, V low, V high) {
  const long column = panel * kPanel;
  if (out.bias) {
    low = low + load(out.bias + column);
    high = high + load(out.bias + column + 16);
  }
  float* p = out.data + row * out.ld;
  switch (out.finish) {
    case Finish::store:
      store(p + column, low);
      store(p + column + 16, high);
      break;
    case Finish::add:
      store(p + column, load(p + column) + low);
      store(p + column + 16, load(p + column + 16) + high);
      break;
    case Finish::silu_mul:
      store(p + column / 2, silu(low) * high);
      break;
  }
}

}  // namespace
