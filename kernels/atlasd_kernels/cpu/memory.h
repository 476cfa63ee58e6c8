// Zeroed memory at 64-byte boundaries; large pieces come lazily and in huge pages where possible.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace atlasd {

class Memory {
 public:
  Memory() = default;
  explicit Memory(long bytes) : bytes_(bytes) {
    if (bytes == 0) return;
#ifdef __linux__
    data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) throw std::bad_alloc();
    if (bytes >= (2 << 20)) madvise(data_, bytes, MADV_HUGEPAGE);
#else
    data_ = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!data_) throw std::bad_alloc();
    memset(data_, 0, bytes);
#endif
  }
  ~Memory() {
    if (!data_) return;
#ifdef __linux__
    munmap(data_, bytes_);
#else
    std::free(data_);
#endif
  }
  Memory(Memory&& other) noexcept : data_(other.data_), bytes_(other.bytes_) {
    other.data_ = nullptr;
    other.bytes_ = 0;
  }
  Memory& operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  template <class T>
  T* as(long byte_offset = 0) const {
    return reinterpret_cast<T*>(static_cast<uint8_t*>(data_) + byte_offset);
  }
  long bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  long bytes_ = 0;
};

}  // namespace atlasd
