// What one call is about. The binding packs it as a row of 8-byte fields in this very order.
#pragma once
#include "pack.h"

namespace dropkey {

enum Pattern : int64_t { kNone = -1, kElement = 0, kColumn = 1, kToken = 2, kBlock = 3, kCross = 4 };
enum BiasKind : int64_t { kNoBias = 0, kBoolBias = 1, kFloatBias = 2 };

// A (batch, head, row, dimension) tensor whose last dimension is contiguous; steps count elements.
struct Tensor {
  void* data;
  int64_t batch, head, step;

  template <class T>
  Rows<T> rows(long b, long h) const {
    return {(T*)data + b * batch + h * head, (long)step};
  }
};

// A (batch, head, query, key) tensor; broadcast dimensions have step 0.
struct Bias {
  void* data;
  int64_t batch, head, query, key;

  template <class T>
  T* row(long b, long h, long i) const {
    return (T*)data + b * batch + h * head + i * query;
  }
};

struct Draw {
  int64_t pattern;
  const double* drop_ratio;
  const int64_t* seed;
  const int64_t* seed_threshold;  // block and cross: a patch is a seed when its 32 bits are below
  int64_t window, grid_rows, grid_columns, prefix;
};

struct Problem {
  int64_t batch, heads, kv_heads, queries, keys, head_dim, value_dim;
  int64_t half, causal, threads;
  double scale;
  Draw draw;
  int64_t bias_kind;
  Bias bias, grad_bias;
  Tensor query, key, value, out, grad_out, grad_query, grad_key, grad_value;
  float* sums;  // (2, batch, head, query): the highest logit (times scale only where there is a bias), and one over the sum of the weights
};

constexpr double kLog2e = 1.4426950408889634;
constexpr float kInfinity = __builtin_inff();

}  // namespace dropkey
