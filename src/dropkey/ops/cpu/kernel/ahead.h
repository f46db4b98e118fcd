// Rows that will be needed soon, on their way to the second level cache while the products run: the rows of one head
// lie far apart, where the hardware does not look ahead by itself. A line now and then: many at once would hold up the
// operands of the product.
#pragma once
#include "pack.h"

namespace dropkey {

constexpr long kAheadBytes = 384 * 1024;  // more than this would be pushed out again before it is read

class Ahead {
 public:
  template <class T>
  void add(Rows<T> rows, long count, long columns) {
    if (count <= 0 || streams_ == kMost) return;
    stream_[streams_++] = {(const char*)rows.data, rows.step * (long)sizeof(T), count, columns * (long)sizeof(T)};
    lines_ += count * ((columns * (long)sizeof(T) + 63) / 64);
  }

  // All that was added, within so many calls.
  void spread(long calls) { pace_ = (lines_ + calls - 1) / calls; }

  __attribute__((always_inline)) void operator()() {
    for (long n = 0; n < pace_; ++n, at_ += 64) {
      if (at_ >= past_ && !turn()) return;
      __builtin_prefetch(at_, 0, 2);
    }
  }

 private:
  struct Stream {
    const char* row;
    long step, rows, bytes;
  };

  // To the next row or the next stream.
  __attribute__((always_inline)) bool turn() {
    if (--now_.rows > 0)
      now_.row += now_.step;
    else if (next_ < streams_)
      now_ = stream_[next_++];
    else
      return pace_ = 0, false;
    at_ = now_.row, past_ = at_ + now_.bytes;
    return true;
  }

  static constexpr int kMost = 8;
  const char *at_ = nullptr, *past_ = nullptr;
  long pace_ = 0, lines_ = 0;
  int streams_ = 0, next_ = 0;
  Stream now_{}, stream_[kMost];
};

}  // namespace dropkey
