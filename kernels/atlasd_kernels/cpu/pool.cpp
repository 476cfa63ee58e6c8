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

thread_local int number_of_thread = 0;

uint32_t chunks_of(uint64_t job) { return static_cast<uint32_t>(job >> 16) & 0xFFFF; }
uint32_t next_of(uint64_t job) { return static_cast<uint32_t>(job) & 0xFFFF; }

}  // namespace

int Pool::thread() { return number_of_thread; }

int allowed_processors() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n ? static_cast<int>(n) : 1;
}

Pool::Pool(int threads) : spins_(threads <= allowed_processors() ? spins_for(kSpinTime) : 0) {
  for (int i = 1; i < threads; i++) workers_.emplace_back([this, i] { worker(i); });
}

Pool::~Pool() {
  stop_.store(true);
  ring();
  for (std::thread& t : workers_) t.join();
}

void Pool::share(long chunks, Body body, void* context) {
  // Nobody can hold a chunk of the loop before, so its body can be replaced; a worker that still
  // looks at it fails to claim, because the job's number has changed by then.
  body_.store(body, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  const uint64_t number = (job_.load(std::memory_order_relaxed) >> 32) + 1;
  // the first chunk is the caller's without asking
  const uint64_t job = number << 32 | static_cast<uint64_t>(chunks) << 16 | 1;
  // A worker that falls asleep at this moment may be missed: it helps from the next loop on.
  job_.store(job, std::memory_order_release);
  if (sleepers_.load(std::memory_order_relaxed) > 0) ring();
  body(context, 0);
  wait_for_others(static_cast<uint32_t>(chunks) - 1 - work(job));
}

void Pool::ring() {
  bell_.fetch_add(1, std::memory_order_seq_cst);
  wake(bell_, 1 << 30);
}

// Chunks of this job until none is left; returns how many.
uint32_t Pool::work(uint64_t job) {
  uint64_t now = job_.load(std::memory_order_acquire);
  uint32_t mine = 0;
  while (now >> 32 == job >> 32 && next_of(now) < chunks_of(now)) {
    const Body body = body_.load(std::memory_order_relaxed);
    void* context = context_.load(std::memory_order_relaxed);
    if (!job_.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) continue;
    body(context, next_of(now));
    mine++;
    now = job_.load(std::memory_order_acquire);
  }
  return mine;
}

// For as many more chunks as workers have claimed.
void Pool::wait_for_others(uint32_t chunks) {
  done_before_ += chunks;
  for (int i = 0; i < spins_; i++) {
    if (done_.load(std::memory_order_acquire) == done_before_) return;
    pause();
  }
  caller_sleeps_.store(1, std::memory_order_seq_cst);
  for (uint32_t done; (done = done_.load(std::memory_order_seq_cst)) != done_before_;)
    sleep_while(done_, done);
  caller_sleeps_.store(0, std::memory_order_relaxed);
}

void Pool::worker(int number) {
  number_of_thread = number;
  while (!stop_.load(std::memory_order_relaxed)) {
    const uint64_t job = job_.load(std::memory_order_acquire);
    // told once, behind the last chunk: the loop cannot end before
    if (const uint32_t mine = work(job)) {
      done_.fetch_add(mine, std::memory_order_seq_cst);
      if (caller_sleeps_.load(std::memory_order_seq_cst)) wake(done_, 1);
    }
    const auto same = [&] { return job_.load(std::memory_order_seq_cst) >> 32 == job >> 32; };
    for (int i = 0; i < spins_ && awake_.load(std::memory_order_relaxed) && same(); i++) pause();
    if (!same()) continue;
    const uint32_t heard = bell_.load(std::memory_order_seq_cst);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    // the futex compares again, so a bell rung since is not missed
    if (same() && !stop_.load()) sleep_while(bell_, heard);
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  }
}

}  // namespace atlasd
