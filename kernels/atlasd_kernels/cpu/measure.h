#pragma once

namespace atlasd {

// 1, 2, 4, ... up to the processors this process may use: the fastest that is clearly faster.
int measure_threads();

// Bytes per second that this many threads read from memory.
double read_bandwidth(int threads);

}  // namespace atlasd
