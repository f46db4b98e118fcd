// Attention maps mixed over the heads (Re-attention):
//
//   mixed_h = sum over g of theta[h][g] / sqrt(var_h + eps) * centered_g value_h
//   out_h   = identity * plain_h + gain_h * mixed_h + offset_h * (sum over the keys of value_h)
//
// Weights sum to 1 over the keys, so their mean is 1 / keys; centered maps are the weights less that mean. They are
// centered before they are multiplied: nearly constant maps would cancel after it. A tile holds its maps query by query,
// and those of a query head by head.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "gemm.h"
#include "pack.h"
#include "problem.h"

namespace dropkey {

// The second half of a call. The binding packs it as a row of 8-byte fields in this very order.
struct Mixing {
  int64_t training;  // the forward pass computes gram and var from the batch; else var is given and gram not read
  double eps;
  const float* theta;                     // (head, head)
  const float *gain, *offset, *identity;  // (head), (head), (1) or null
  double* gram;                           // (head, head): mean of centered_g * centered_g' over images, queries and keys
  double* var;                            // (head)
  float *grad_theta, *grad_gain, *grad_offset, *grad_identity;
  Tensor plain, mixed;
};

constexpr long kMixKeys = 128;  // keys whose mixed maps are held before they replace the maps

// c[M][N] (+)= a[M][K] * b[K][N], see gemm.h.
static void product(long rows, long columns, long depth, const float* a, Operand by, const float* b, long ldb, float* c,
                    long ldc, bool add) {
  Ahead none;
  multiply((int)rows, (int)columns, depth, a, by, b, ldb, c, ldc, add, none);
}

// In place: to[h] = sum over g of matrix[h][g] * to[g], for the maps of one query.
static void mix_maps(float* to, const float* matrix, long heads, long pitch, long keys, float* scratch) {
  for (long k = 0; k < keys; k += kMixKeys) {
    long some = std::min(kMixKeys, keys - k);
    product(heads, some, heads, matrix, {heads, 1, kWhole}, to + k, pitch, scratch, kMixKeys, false);
    for (long h = 0; h < heads; ++h)
      for (long n = 0; n < some; n += W) store(to + h * pitch + k + n, load(scratch + h * kMixKeys + n));
  }
}

// Sums over queries and keys of the products of two heads' maps, for all pairs of heads: in vectors of floats for a
// while, then in double.
class Products {
 public:
  Products(long heads, float* vectors, double* total) : heads_(heads), vectors_(vectors), total_(total) {
    std::memset(vectors_, 0, (size_t)(heads * heads * W) * sizeof(float));
    std::memset(total_, 0, (size_t)(heads * heads) * sizeof(double));
  }

  // Of one query; where a is b, only pairs that a later `mirror` completes.
  void add(const float* a, const float* b, long pitch, long keys) {
    long blocks = (heads_ + kMost - 1) / kMost;
    for (long n = 0; n < blocks; ++n)
      for (long m = 0; m < (a == b ? n + 1 : blocks); ++m) {
        long h = heads_ * n / blocks, g = heads_ * m / blocks;
        rows<kMost>(heads_ * (n + 1) / blocks - h, heads_ * (m + 1) / blocks - g, a + h * pitch, b + g * pitch, pitch,
                    keys, vectors_ + (h * heads_ + g) * W);
      }
    added_ += keys / W;
    if (added_ >= kChain) fold();
  }

  void fold() {
    for (long n = 0; n < heads_ * heads_; ++n)
      for (long lane = 0; lane < W; ++lane) total_[n] += vectors_[n * W + lane];
    std::memset(vectors_, 0, (size_t)(heads_ * heads_ * W) * sizeof(float));
    added_ = 0;
  }

 private:
  static constexpr int kMost = W == 16 ? 4 : 3;  // heads on a side of a block whose sums stay in registers
  static constexpr long kChain = 256;            // additions in float

  template <int R>
  void rows(long some, long columns, const float* a, const float* b, long pitch, long keys, float* to) {
    if (some == R)
      block<R, kMost>(columns, a, b, pitch, keys, to);
    else if constexpr (R > 1)
      rows<R - 1>(some, columns, a, b, pitch, keys, to);
  }

  template <int R, int C>
  void block(long columns, const float* a, const float* b, long pitch, long keys, float* to) {
    if (columns != C) {
      if constexpr (C > 1) block<R, C - 1>(columns, a, b, pitch, keys, to);
      return;
    }
    Floats sum[R][C];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sum[r][c] = load(to + (r * heads_ + c) * W);
    for (long k = 0; k < keys; k += W) {
      Floats right[C];
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) right[c] = load(b + c * pitch + k);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        Floats left = load(a + r * pitch + k);
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) sum[r][c] += left * right[c];
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) store(to + (r * heads_ + c) * W, sum[r][c]);
  }

  long heads_, added_ = 0;
  float* vectors_;
  double* total_;
};

// sum[d] += from[i][d] over the rows.
template <class T>
static void add_rows(double* sum, const T* from, long step, long rows, long columns) {
  for (long i = 0; i < rows; ++i, from += step)
    for (long d = 0; d < columns; ++d) sum[d] += (double)widen(from[d]);
}

// theta[h][g] / sqrt(var_h + eps): from centered weights to normalized maps.
static std::vector<double> normalizing(const Problem& p, const Mixing& m) {
  std::vector<double> matrix((size_t)(p.heads * p.heads));
  for (long h = 0; h < p.heads; ++h)
    for (long g = 0; g < p.heads; ++g)
      matrix[(size_t)(h * p.heads + g)] = m.theta[h * p.heads + g] / std::sqrt(m.var[h] + m.eps);
  return matrix;
}

}  // namespace dropkey
