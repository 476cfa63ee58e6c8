// Threads that share out the chunks of one loop at a time and sleep in between.
#pragma once
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace atlasd {

// Chunks are claimed, not assigned: a thread that the system has put aside holds up nothing but
// the chunk it is in. Who runs a chunk does not matter to its result.
class Pool {
 public:
  using Body = void (*)(void* context, long chunk);

  explicit Pool(int threads);   // the caller is one of them
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // The calling thread's number in its pool; 0: it belongs to none, and may run loops.
  static int thread();
  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // A series of loops with little in between: workers wait for the next one awake, but not for
  // long (kSpinTime). Outside of it, and where there are more threads than processors, they
  // sleep at once. One series may lie inside another.
  class Series {
   public:
    explicit Series(Pool& pool) : pool_(pool) { pool_.awake_.fetch_add(1); }
    ~Series() { pool_.awake_.fetch_sub(1); }
    Series(const Series&) = delete;
    Series& operator=(const Series&) = delete;

   private:
    Pool& pool_;
  };

  // body(chunk) for chunk in [0, chunks), chunks < 65536; returns when all are done.
  template <class F>
  void run(long chunks, F&& body) {
    if (workers_.empty() || chunks <= 1) {
      for (long c = 0; c < chunks; c++) body(c);
      return;
    }
    using Function = std::remove_reference_t<F>;
    share(chunks, [](void* f, long chunk) { (*static_cast<Function*>(f))(chunk); },
          const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  void share(long chunks, Body body, void* context);
  uint32_t work(uint64_t job);
  void worker(int number);
  void ring();
  void wait_for_others(uint32_t chunks);

  std::vector<std::thread> workers_;
  // The one loop being run: (number of the loop : 32, chunks : 16, next chunk : 16).
  alignas(64) std::atomic<uint64_t> job_{0};
  std::atomic<Body> body_{nullptr};
  std::atomic<void*> context_{nullptr};
  alignas(64) std::atomic<uint32_t> done_{0};   // chunks of workers, of all loops so far
  std::atomic<uint32_t> caller_sleeps_{0};
  alignas(64) std::atomic<uint32_t> bell_{0};   // a futex; rung when a loop begins and one sleeps
  std::atomic<uint32_t> sleepers_{0};
  std::atomic<bool> stop_{false};
  std::atomic<int> awake_{0};   // series that have begun and not ended
  uint32_t done_before_ = 0;
  int spins_;
};

// Processors this process may use.
int allowed_processors();

}  // namespace atlasd
