// Rows that will be needed soon, on their way to the second level cache while the products run: the rows of one head
// lie far apart, where the hardware does not look ahead by itself.
#pragma once
#include "pack.h"

namespace dropkey {

constexpr long kAheadBytes = 384 * 1024;  // more than this would be pushed out again before it is read

class Ahead {
 public:
  static constexpr long kPace = 2;

  template <class T>
  void add(Rows<T> rows, long count, long columns, long pace = kPace) {
    if (streams_ < kMost) stream_[streams_++] = {(const char*)rows.data, rows.step * (long)sizeof(T), count,
                                                 columns * (long)sizeof(T), pace};
  }

  // A few rows of each stream.
  void operator()() {
    for (int n = 0; n < streams_; ++n) {
      Stream& s = stream_[n];
      for (int row = 0; row < s.pace && s.left > 0; ++row, --s.left, s.at += s.step)
        for (long byte = 0; byte < s.bytes; byte += 64) __builtin_prefetch(s.at + byte, 0, 2);
    }
    while (streams_ > 0 && stream_[streams_ - 1].left == 0) --streams_;
  }

 private:
  struct Stream {
    const char* at;
    long step, left, bytes, pace;
  };

  static constexpr int kMost = 8;
  Stream stream_[kMost];
  int streams_ = 0;
};

}  // namespace dropkey
