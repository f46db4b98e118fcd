// Work shared between threads: by the OpenMP pool that torch has already started where its entry point was handed
// over (a second pool would fight with torch's spinning workers for the cores), else by threads of our own.
#pragma once
#include <algorithm>
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

// Items take their memory from the first; from the second takes who hands an item what it has made itself.
static Arena& arena(int n = 0) {
  thread_local Arena mine[2];
  return mine[n];
}

// Each thread takes a run of neighboring items at a time, and where there are many it knows which one follows, so that
// it can fetch its memory in time; -1 stands for none.
template <class Item>
struct Crew {
  const Item& item;
  long items, run;
  bool ahead;
  std::atomic<long> next{0};

  static void work(void* self) {
    Crew& crew = *static_cast<Crew*>(self);
    long at = 0, past = 0;
    auto take = [&] {
      if (at == past) {
        at = crew.next.fetch_add(crew.run, std::memory_order_relaxed);
        past = std::min(at + crew.run, crew.items);
      }
      if (at < past) return at++;
      past = at;
      return -1L;
    };
    for (long i = take(), after; i >= 0; i = after) {
      after = crew.ahead ? take() : -1;
      crew.item(i, after);
      if (!crew.ahead) after = take();
    }
  }
};

// The longest run that cuts `group` evenly and leaves all threads busy to the end.
static long run_of(long group, long items, long threads) {
  long run = group;
  while (run > 1 && (group % run || items / run < 4 * threads)) --run;
  return run;
}

// Who does which item is left to chance; no item reads what another one writes. `group` neighboring items write
// between each other: two threads among them would take cache lines from each other that their prefetchers ask for.
template <class Item>
static void share(long items, long threads, const Item& item, long group = 1) {
  Crew<Item> crew{item, items, run_of(group, items, threads), items >= 8 * threads};
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
