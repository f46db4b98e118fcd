// Work shared between threads: by the OpenMP pool that torch has already started where its entry point was handed
// over (a second pool would fight with torch's spinning workers for the cores), else by threads of our own.
#pragma once
#include <atomic>
#include <cstdlib>
#include <thread>
#include <vector>

namespace dropkey {

typedef void (*GompParallel)(void (*)(void*), void*, unsigned, unsigned);

static GompParallel gomp_parallel = nullptr;

// Memory of one thread for the length of one item, kept for the next: fresh pages cost more than small heads.
// What is taken is listed twice, first to measure it, then to place it.
class Arena {
 public:
  ~Arena() { std::free(memory_); }

  void begin(bool measuring) {
    if (!measuring && used_ > size_) grow();
    used_ = 0;
  }

  template <class T>
  T* take(long count) {
    T* start = reinterpret_cast<T*>(memory_ + used_);
    used_ += ((size_t)count * sizeof(T) + kSlack + 63) / 64 * 64;
    return start;
  }

 private:
  static constexpr size_t kSlack = 64;  // whole vectors may be read and written past the end

  void grow() {
    std::free(memory_);
    size_ = (used_ + 4095) / 4096 * 4096;
    memory_ = static_cast<char*>(std::aligned_alloc(4096, size_));
    if (memory_ == nullptr) std::abort();
  }

  char* memory_ = nullptr;
  size_t size_ = 0, used_ = 0;
};

static Arena& arena() {
  thread_local Arena mine;
  return mine;
}

// Each thread takes one item ahead where there are many, so that it can fetch the next one's memory in time; -1 stands
// for none.
template <class Item>
struct Crew {
  const Item& item;
  long items;
  bool ahead;
  std::atomic<long> next{0};

  long take() {
    long mine = next.fetch_add(1, std::memory_order_relaxed);
    return mine < items ? mine : -1;
  }

  static void work(void* self) {
    Crew& crew = *static_cast<Crew*>(self);
    for (long i = crew.take(), after; i >= 0; i = after) {
      after = crew.ahead ? crew.take() : -1;
      crew.item(i, after);
      if (!crew.ahead) after = crew.take();
    }
  }
};

// Who does which item is left to chance; no item reads what another one writes.
template <class Item>
static void share(long items, long threads, const Item& item) {
  Crew<Item> crew{item, items, items >= 8 * threads};
  if (threads > items) threads = items;
  if (threads <= 1) {
    crew.work(&crew);
  } else if (gomp_parallel) {
    gomp_parallel(crew.work, &crew, (unsigned)threads, 0);
  } else {
    std::vector<std::thread> others;
    for (long t = 1; t < threads; ++t) others.emplace_back(crew.work, &crew);
    crew.work(&crew);
    for (std::thread& other : others) other.join();
  }
}

}  // namespace dropkey
