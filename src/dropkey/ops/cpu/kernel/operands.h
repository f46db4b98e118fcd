// How the products see their operands: as floats, or as pairs of bfloat16 for the dot products of the CPU.
#pragma once
#include <type_traits>

#include "gemm.h"
#include "pack.h"
#include "problem.h"
#include "tile_gemm.h"

namespace dropkey {

template <class Cell>
constexpr long kPer = 1;  // values in a cell
template <>
constexpr long kPer<Pair> = 2;

template <class Cell>
struct ValueOf {
  typedef float type;
};
template <>
struct ValueOf<Pair> {
  typedef Half type;
};
template <class Cell>
using Value = typename ValueOf<Cell>::type;

// Rows of a head as whole vectors: `width` values, of which the first `columns` are real.
template <class Cell>
constexpr long width_of(long columns) {
  return padded(columns, 16 * kPer<Cell>);
}

template <class Cell>
constexpr long depth_of(long values) {
  return (values + kPer<Cell> - 1) / kPer<Cell>;
}

// Queries are taken in multiples of what a product takes at once, few of which are left over at the end.
template <class Cell>
constexpr long kStep = 6;
#if defined(DROPKEY_TILES)
template <>
constexpr long kStep<Pair> = 2 * kSide;
#endif

// Rows as they are: the broadcast side of a product along the head dimension.
template <class Cell, class T>
static Cell* pack_plain(Cell* to, long height, Rows<const T> from, long rows, long columns) {
  pack_rows((Value<Cell>*)to, width_of<Cell>(columns), height, from, rows, columns);
  return to;
}

// Lanes are rows: to[depth][height], by way of `scratch` (height x width values) where rows are no whole vectors.
template <class Cell, class T>
static void pack_lanes(Cell* to, Value<Cell>* scratch, long height, Rows<const T> from, long rows, long columns) {
  long width = width_of<Cell>(columns), done = 0;
  if (kPer<Cell> == 1 && width == columns) {
    done = rows / W * W;
    transpose(to, height, from.data, from.step, done, columns);
  }
  if (done == height) return;
  pack_rows(scratch, width, height - done, from.from(done), rows - done, columns);
  transpose(to + done, height, (const uint32_t*)scratch, width / kPer<Cell>, height - done, width / kPer<Cell>);
}

// Lanes are columns: the panel side of a product along the rows, whole vectors wide.
template <class T>
static void pack_along(float* to, long height, Rows<const T> from, long rows, long columns) {
  pack_rows(to, padded(columns, 16), height, from, rows, columns);
}

static void pack_along(Pair* to, long height, Rows<const Half> from, long rows, long columns) {
  long width = padded(columns, 16);
  std::memset((void*)to, 0, (size_t)(height / 2 * width) * sizeof(Pair));
  for (long i = 0; i < rows; i += 2, to += width) {
    const Half *even = from.row(i), *odd = i + 1 < rows ? from.row(i + 1) : nullptr;
    if (i + kAhead + 1 < rows) fetch(from.row(i + kAhead), columns), fetch(from.row(i + kAhead + 1), columns);
    if (odd)
      for (long d = 0; d < columns; ++d) to[d].bits = even[d] | (uint32_t)odd[d] << 16;
    else
      for (long d = 0; d < columns; ++d) to[d].bits = even[d];
  }
}

// What pack_plain and pack_along give, without a copy where the rows lie like that already.
template <class Cell, class T>
static const Cell* plain_rows(Cell* room, long height, Rows<const T> from, long rows, long columns) {
  if constexpr (std::is_same_v<Cell, T>)
    if (from.step == columns && width_of<Cell>(columns) == columns) return from.data;
  return pack_plain(room, height, from, rows, columns);
}

template <class Cell, class T>
static const Cell* along_rows(Cell* room, long height, Rows<const T> from, long rows, long columns) {
  if constexpr (std::is_same_v<Cell, T>) return plain_rows(room, height, from, rows, columns);
  pack_along(room, height, from, rows, columns);
  return room;
}

constexpr long kWholeRows = 512;  // keys whose panels and gradients the backward pass holds at once
constexpr long kTail = 5;         // keys past the last whole vector that are cheaper one by one

// Keys are cut into chunks of up to 64, as even as whole groups of 16 allow, chunks into blocks that fit the cache. A few
// keys past the last group (a class token makes one more than a square) have no lanes of their own: they are the tail.
struct Cut {
  long keys, tail, groups, chunks;

  explicit Cut(long keys)
      : keys(keys), tail(tail_of(keys)), groups((keys - tail + 15) / 16), chunks((groups + 3) / 4) {}

  long begin(long chunk) const { return groups * chunk / chunks * 16; }
  long width(long chunk) const { return begin(chunk + 1) - begin(chunk); }
  long end(long past) const { return past == chunks ? padded(keys, 16) : begin(past); }
  long real(long chunk) const { return (chunk + 1 == chunks ? keys : begin(chunk + 1)) - begin(chunk); }

 private:
  // Where rows are not held whole, a lone key's gradient is 0 only if all sums are made in one order.
  static long tail_of(long keys) {
    return keys > 16 && keys <= kWholeRows && keys % 16 <= kTail ? keys % 16 : 0;
  }
};

// Products of plain rows with the few rows of a tail, lanes along the head dimension; zeros in the rest of its group.
template <class Cell>
static void multiply_tail(long rows, long tail, long width, const Cell* a, const Cell* b, float* c, long ldc) {
  for (long i = 0, some; i < rows; i += some, a += some * width, c += some * ldc) {
    some = std::min(rows - i, 4L);
    for (long r = 0; r < some; ++r) std::memset(c + r * ldc, 0, 16 * sizeof(float));
    for (long k = 0; k < tail; ++k) {
      Floats sum[4] = {};
      for (long d = 0; d < width; d += W) {
        auto right = lanes(b + k * width + d);
#pragma GCC unroll 4
        for (long r = 0; r < 4; ++r) sum[r] = fused(lanes(a + std::min(r, some - 1) * width + d), right, sum[r]);
      }
      float sums[4];
      sums_of_four(sums, sum);
      for (long r = 0; r < some; ++r) c[r * ldc + k] = sums[r];
    }
  }
}

// Evenly cut `n` into pieces of at most `most`, a multiple of `step` each but the last.
INLINE long piece_of(long n, long most, long step) {
  long pieces = (n + most - 1) / most;
  return padded((n + pieces - 1) / pieces, step);
}

}  // namespace dropkey
