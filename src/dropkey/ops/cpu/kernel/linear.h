// Products of many rows with the weights of a linear layer, float32. Weights are packed once for all rows, in panels: the
// lanes of one lie next to each other and depth is its rows. All sizes but numbers of rows are multiples of 16.
#pragma once
#include "operands.h"
#include "pool.h"

namespace dropkey {

constexpr long kPanel = 64;     // most lanes of a panel
constexpr long kStretch = 384;  // most terms of one sum: what is added up later goes through memory

struct Matrix {  // rows next to each other
  float* data;
  long columns;
  Rows<float> rows(long first) const { return {data + first * columns, columns}; }
  Rows<const float> rows_of(long first) const { return {data + first * columns, columns}; }
};

// Rows of a weight become lanes of a panel: what comes out of the layer.
static void pack_outputs(float* panel, Rows<const float> weight, long lanes, long depth) {
  transpose(panel, lanes, weight.data, weight.step, lanes, depth);
}

// Columns of a weight are lanes of a panel: what goes back into the layer.
static void pack_inputs(float* panel, Rows<const float> weight, long lanes, long depth) {
  for (long i = 0; i < depth; ++i) std::memcpy(panel + i * lanes, weight.row(i), (size_t)lanes * sizeof(float));
}

// to = from panel + bias, which may be null.
static void apply_panel(Rows<float> to, Rows<const float> from, long rows, const float* panel, long lanes, long depth,
                        const float* bias) {
  Ahead ahead;
  multiply((int)rows, (int)lanes, depth, from.data, {from.step, 1, kStretch}, panel, lanes, to.data, to.step, false,
           ahead);
  if (!bias) return;
  for (long i = 0; i < rows; ++i)
    for (long d = 0; d < lanes; d += W) store(to.row(i) + d, load(to.row(i) + d) + load(bias + d));
}

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
      pack_columns(left, pitch, grad_.rows_of(first).data + out, grad_.columns, some, height);
      for (long n = 0; n < width; n += kPanel)
        pack_columns(right + n * kDeep, std::min(kPanel, width - n), x_.rows_of(first).data + lane + n, x_.columns, some,
                     std::min(kPanel, width - n));
      Ahead ahead;
      long more = std::min(kDeep, rows_ - first - some);
      ahead.add(Rows<const float>{grad_.rows_of(first + some).data + out, grad_.columns}, more, height);
      ahead.add(Rows<const float>{x_.rows_of(first + some).data + lane, x_.columns}, more, width);
      for (long n = 0; n < width; n += kPanel) {
        long lanes = std::min(kPanel, width - n);
        multiply((int)height, (int)lanes, some, left, {1, pitch, kWhole}, right + n * kDeep, lanes,
                 to_.rows(out).data + lane + n, to_.columns, first > 0, ahead);
      }
      if (bias_ && lane == 0) add_rows(bias_ + out, left, pitch, some, height, first > 0);
    }
  }

 private:
  static constexpr long kWidth = 384, kDeep = 128;  // of what is held at once

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
