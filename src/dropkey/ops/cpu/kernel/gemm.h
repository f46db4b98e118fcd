// c[M][N] (+)= a[M][K] * b[K][N] with a register-blocked micro-kernel: lanes run along N, `a` is broadcast, so `a`
// may be read in any order (also transposed) and only `b` has to be packed.
#pragma once
#include <algorithm>

#include "ahead.h"

namespace dropkey {

// A Cell is what one 32-bit lane of a product holds: a float, or two neighboring bfloat16 along K.
struct Pair {
  uint32_t bits;
};

#if defined(__AVX512F__)
constexpr int kVectors = 4;
constexpr int rows_of_block(int vectors) { return vectors == 4 ? 6 : 8; }
#else
constexpr int kVectors = 2;
constexpr int rows_of_block(int) { return 6; }
#endif

// Most cells in one sum along the head dimension: a long chain of additions rounds more, and what logits lose there is
// most of the error of an output. Sums over keys or queries are cut by their tiles alone.
template <class Cell>
constexpr long kPiece = 16;
template <>
constexpr long kPiece<Pair> = 32;

constexpr long kWhole = 1L << 40;  // a piece that no sum is longer than

struct Operand {
  long row;    // step between rows of `a`
  long step;   // step along K
  long piece;  // most cells in one sum
};

// How often a product looks ahead.
constexpr long looks_of(long rows, long columns, long depth, long piece = kWhole) {
  long pieces = (depth + piece - 1) / piece, panels = (columns / W + kVectors - 1) / kVectors;
  return std::max(1L, pieces * panels * ((rows + 7) / 8));
}

INLINE Floats lanes(const float* p) { return load(p); }
INLINE Floats repeat(const float* p) { return splat(*p); }
INLINE Floats fused(Floats a, Floats b, Floats c) { return a * b + c; }

#if defined(__AVX512BF16__)
INLINE __m512bh lanes(const Pair* p) { return (__m512bh)_mm512_loadu_si512(p); }
INLINE __m512bh repeat(const Pair* p) { return (__m512bh)_mm512_set1_epi32((int)p->bits); }
INLINE Floats fused(__m512bh a, __m512bh b, Floats c) { return (Floats)_mm512_dpbf16_ps((__m512)c, a, b); }
#elif defined(DROPKEY_EMULATED_TILES)
struct Pairs {
  Floats even, odd;
};
INLINE Pairs lanes(const Pair* p) {
  Words bits = load(&p->bits);
  return {(Floats)(bits << 16), (Floats)(bits & 0xffff0000u)};
}
INLINE Floats fused(Pairs a, Pairs b, Floats c) { return fused(a.odd, b.odd, fused(a.even, b.even, c)); }
#endif

template <int R, int V, class Cell>
INLINE void block(long depth, const Cell* a, Operand by, const Cell* b, long ldb, float* c, long ldc, bool add) {
  Floats sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = Floats{};
  for (long k = 0; k < depth; ++k, a += by.step, b += ldb) {
    decltype(lanes(b)) right[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) right[v] = lanes(b + v * W);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      auto left = repeat(a + r * by.row);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = fused(left, right[v], sum[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      float* to = c + r * ldc + v * W;
      store(to, add ? load(to) + sum[r][v] : sum[r][v]);
    }
}

template <int R, int V, class Cell>
static void block_of(int rows, long depth, const Cell* a, Operand by, const Cell* b, long ldb, float* c, long ldc,
                     bool add) {
  if (rows == R)
    block<R, V>(depth, a, by, b, ldb, c, ldc, add);
  else if constexpr (R > 1)
    block_of<R - 1, V>(rows, depth, a, by, b, ldb, c, ldc, add);
}

template <int V, class Cell>
static void panel(int rows, long depth, const Cell* a, Operand by, const Cell* b, long ldb, float* c, long ldc,
                  bool add, Ahead& ahead) {
  constexpr int R = rows_of_block(V);
  for (int groups = (rows + R - 1) / R; groups > 0; --groups) {
    int taken = (rows + groups - 1) / groups;
    block_of<R, V>(taken, depth, a, by, b, ldb, c, ldc, add);
    a += taken * by.row, c += taken * ldc, rows -= taken;
    ahead();
  }
}

template <class Cell>
static void multiply_piece(int rows, int columns, long depth, const Cell* a, Operand by, const Cell* b, long ldb,
                           float* c, long ldc, bool add, Ahead& ahead) {
  int vectors = columns / W, panels = (vectors + kVectors - 1) / kVectors;
  for (int p = 0; p < panels; ++p) {
    int first = vectors * p / panels, past = vectors * (p + 1) / panels;
    const Cell* right = b + first * W;
    float* out = c + first * W;
    switch (past - first) {
#if defined(__AVX512F__)
      case 4: panel<4>(rows, depth, a, by, right, ldb, out, ldc, add, ahead); break;
      case 3: panel<3>(rows, depth, a, by, right, ldb, out, ldc, add, ahead); break;
#endif
      case 2: panel<2>(rows, depth, a, by, right, ldb, out, ldc, add, ahead); break;
      default: panel<1>(rows, depth, a, by, right, ldb, out, ldc, add, ahead);
    }
  }
}

// `columns` counts lanes and is a multiple of W.
template <class Cell>
static void multiply(int rows, int columns, long depth, const Cell* a, Operand by, const Cell* b, long ldb, float* c,
                     long ldc, bool add, Ahead& ahead) {
  long pieces = (depth + by.piece - 1) / by.piece, past;
  for (long n = 0, k = 0; n < pieces; ++n, k = past, add = true) {
    past = depth * (n + 1) / pieces;
    multiply_piece(rows, columns, past - k, a + k * by.step, by, b + k * ldb, ldb, c, ldc, add, ahead);
  }
}

}  // namespace dropkey
