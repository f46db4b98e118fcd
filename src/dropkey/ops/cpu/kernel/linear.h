// Products of many rows with the weights of a linear layer, float32. Weights are packed once for all rows, in panels of
// neighboring columns, the lanes. All sizes but numbers of rows are multiples of 16.
#pragma once
#include "operands.h"
#include "pool.h"

namespace dropkey {

constexpr long kPanel = 64;     // most lanes of a panel
constexpr long kStretch = 96;   // most terms of one sum: so much of a panel stays in the first level cache

// A (depth, columns) matrix in panels of `width` columns, the last of which may have fewer.
struct Panels {
  float* data;
  long columns, width, depth;

  long count() const { return (columns + width - 1) / width; }
  long lanes(long n) const { return std::min(width, columns - n * width); }
  float* at(long n) const { return data + n * width * depth; }
  float* end() const { return data + columns * depth; }

  // From the (columns, depth) weight of a layer: columns are what comes out of it.
  void pack_outputs(long n, const float* weight) const {
    transpose(at(n), lanes(n), weight + n * width * depth, depth, lanes(n), depth);
  }

  // From the (depth, columns) weight of a layer: columns are what goes back into it.
  void pack_inputs(long n, const float* weight) const {
    for (long i = 0; i < depth; ++i)
      std::memcpy(at(n) + i * lanes(n), weight + i * columns + n * width, (size_t)lanes(n) * sizeof(float));
  }

  // to = from * panel n + bias, which may be null. `next` is the panel after it: each would be waited for at its start,
  // if it were not fetched in time.
  void apply(long n, Rows<float> to, Rows<const float> from, long rows, const float* bias, const float* next) const {
    Ahead ahead;
    ahead.add(Rows<const float>{next, lanes(n)}, depth, lanes(n));
    ahead.spread(looks_of(rows, lanes(n), depth, kStretch));
    multiply((int)rows, (int)lanes(n), depth, from.data, {from.step, 1, kStretch}, at(n), lanes(n), to.data, to.step,
             false, ahead);
    if (!bias) return;
    for (long i = 0; i < rows; ++i)
      for (long d = 0; d < lanes(n); d += W) store(to.row(i) + d, load(to.row(i) + d) + load(bias + n * width + d));
  }
};

struct Matrix {  // rows next to each other
  float* data;
  long columns;
  float* at(long row, long column) const { return data + row * columns + column; }
};

// Gradients of a weight, grad' x, and of the bias, tile by tile; a tile goes through all rows in one order.
class WeightGradient {
 public:
  WeightGradient(Matrix grad, Matrix x, long rows, float* to, float* bias)
      : grad_(grad), x_(x), rows_(rows), to_{to, x.columns}, bias_(bias) {}

  long items(long height) const { return pieces(grad_.columns, height) * across(); }

  void run(long item, long height) const {
    long out = item / across() * height, lane = item % across() * kWidth;
    height = std::min(height, grad_.columns - out);
    long width = std::min(kWidth, x_.columns - lane), pitch = height + 16;
    Arena& memory = arena();
    float *left = nullptr, *right = nullptr;
    for (bool measuring : {true, false}) {
      memory.begin(measuring);
      left = memory.take<float>(kDeep * pitch);
      right = memory.take<float>(kDeep * width);
    }
    for (long first = 0; first < rows_; first += kDeep) {
      long some = std::min(kDeep, rows_ - first);
      pack_columns(left, pitch, grad_.at(first, out), grad_.columns, some, height);
      for (long n = 0; n < width; n += kPanel)
        pack_columns(right + n * kDeep, std::min(kPanel, width - n), x_.at(first, lane + n), x_.columns, some,
                     std::min(kPanel, width - n));
      Ahead ahead;
      long past = first + some, more = std::min(kDeep, rows_ - past);
      ahead.add(Rows<const float>{grad_.at(past, out), grad_.columns}, more, height);
      ahead.add(Rows<const float>{x_.at(past, lane), x_.columns}, more, width);
      ahead.spread(looks_of(height, width, some));
      for (long n = 0; n < width; n += kPanel) {
        long lanes = std::min(kPanel, width - n);
        multiply((int)height, (int)lanes, some, left, {1, pitch, kWhole}, right + n * kDeep, lanes,
                 to_.at(out, lane + n), to_.columns, first > 0, ahead);
      }
      if (bias_ && lane == 0) add_rows(bias_ + out, left, pitch, some, height, first > 0);
    }
  }

 private:
  static constexpr long kWidth = 384, kDeep = 96;  // of what is held at once

  static long pieces(long n, long most) { return (n + most - 1) / most; }
  long across() const { return pieces(x_.columns, kWidth); }

  static void pack_columns(float* to, long pitch, const float* from, long step, long rows, long columns) {
    for (long i = 0; i < rows; ++i)
      for (long d = 0; d < columns; d += W) store(to + i * pitch + d, load(from + i * step + d));
  }

  // First among themselves: a sum over all rows at once would round more.
  static void add_rows(float* to, const float* rows, long pitch, long count, long columns, bool add) {
    for (long d = 0; d < columns; d += W) {
      Floats sum = {};
      for (long i = 0; i < count; ++i) sum += load(rows + i * pitch + d);
      store(to + d, add ? load(to + d) + sum : sum);
    }
  }

  Matrix grad_, x_;
  long rows_;
  Matrix to_;
  float* bias_;
};

}  // namespace dropkey
