#include "pool.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>

#ifdef __linux__
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace atlasd {
namespace {

// Waking a sleeper takes some 50 us on a virtual machine; a loop of a step takes about as long.
constexpr std::chrono::microseconds kSpinTime{60};

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

#if defined(__linux__) && !defined(ATLASD_NO_FUTEX)
void sleep_while(std::atomic<uint32_t>& word, uint32_t value) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, value, nullptr,
          nullptr, 0);
}

void wake(std::atomic<uint32_t>& word, int count) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, count, nullptr,
          nullptr, 0);
}
#else
// One pair for all pools: few threads sleep at a time, and who is woken in vain sleeps on.
std::mutex sleeping;
std::condition_variable woken;

void sleep_while(std::atomic<uint32_t>& word, uint32_t value) {
  std::unique_lock<std::mutex> lock(sleeping);
  woken.wait(lock, [&] { return word.load() != value; });
}

// The word has changed: whoever saw it before holds the lock or waits already.
void wake(std::atomic<uint32_t>&, int) {
  { const std::lock_guard<std::mutex> lock(sleeping); }
  woken.notify_all();
}
#endif

// A pause is 10 cycles on some processors and 140 on others.
int spins_for(std::chrono::nanoseconds time) {
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 256; i++) pause();
  const auto took = std::chrono::steady_clock::now() - begin;
  return static_cast<int>(256 * time.count() / std::max<int64_t>(1, took.count()));
}

uint32_t chunks_of(uint64_t job) { return static_cast<uint32_t>(job >> 16) & 0xFFFF; }
uint32_t next_of(uint64_t job) { return static_cast<uint32_t>(job) & 0xFFFF; }

}  // namespace

int allowed_processors() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n ? static_cast<int>(n) : 1;
}

Pool::Pool(int threads) : spins_(threads <= allowed_processors() ? spins_for(kSpinTime) : 0) {
  for (int i = 1; i < threads; i++) workers_.emplace_back([this] { worker(); });
}

Pool::~Pool() {
  stop_.store(true);
  bell_.fetch_add(1);
  wake(bell_, 1 << 30);
  for (std::thread& t : workers_) t.join();
}

void Pool::share(long chunks, Body body, void* context) {
  // Nobody can hold a chunk of the loop before, so its body can be replaced; a worker that still
  // looks at it fails to claim, because the job's number has changed by then.
  done_.store(0, std::memory_order_relaxed);
  body_.store(body, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  const uint64_t number = (job_.load(std::memory_order_relaxed) >> 32) + 1;
  const uint64_t job = number << 32 | static_cast<uint64_t>(chunks) << 16;
  job_.store(job, std::memory_order_seq_cst);
  bell_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0) wake(bell_, 1 << 30);
  work(job);
  wait_for_done(static_cast<uint32_t>(chunks));
}

void Pool::work(uint64_t job) {
  uint64_t now = job_.load(std::memory_order_acquire);
  while (now >> 32 == job >> 32 && next_of(now) < chunks_of(now)) {
    const Body body = body_.load(std::memory_order_relaxed);
    void* context = context_.load(std::memory_order_relaxed);
    if (!job_.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) continue;
    const uint32_t chunks = chunks_of(now);
    body(context, next_of(now));
    if (done_.fetch_add(1, std::memory_order_seq_cst) + 1 == chunks &&
        caller_sleeps_.load(std::memory_order_seq_cst))
      wake(done_, 1);
    now = job_.load(std::memory_order_acquire);
  }
}

void Pool::wait_for_done(uint32_t chunks) {
  for (int i = 0; i < spins_; i++) {
    if (done_.load(std::memory_order_acquire) == chunks) return;
    pause();
  }
  caller_sleeps_.store(1, std::memory_order_seq_cst);
  for (uint32_t done; (done = done_.load(std::memory_order_seq_cst)) != chunks;)
    sleep_while(done_, done);
  caller_sleeps_.store(0, std::memory_order_relaxed);
}

void Pool::worker() {
  uint32_t heard = bell_.load(std::memory_order_seq_cst);
  while (!stop_.load(std::memory_order_relaxed)) {
    work(job_.load(std::memory_order_acquire));
    int i = 0;
    while (i < spins_ && awake_.load(std::memory_order_relaxed) &&
           bell_.load(std::memory_order_relaxed) == heard) {
      pause();
      i++;
    }
    if (bell_.load(std::memory_order_relaxed) == heard) {
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      // the futex compares again, so a bell rung since is not missed
      if (!stop_.load()) sleep_while(bell_, heard);
      sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    }
    heard = bell_.load(std::memory_order_seq_cst);
  }
}

}  // namespace atlasd
