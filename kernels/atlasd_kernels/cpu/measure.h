#pragma once

namespace atlasd {

// 1, 2, 4, ... up to the processors this process may use: the fastest that is clearly faster.
int measure_threads();

// Bytes per second at which this many threads read so many bytes again and again: from memory, or
// from the cache that holds them.
double read_bandwidth(int threads, long bytes);

}  // namespace atlasd
