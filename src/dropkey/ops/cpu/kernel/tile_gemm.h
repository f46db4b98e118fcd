// The product of gemm.h for pairs of bfloat16 on tile registers. A panel of pairs is what a tile wants on the right, rows
// of pairs what it wants on the left. What is less than a tile, or lies across on the left, is multiplied as a copy with
// zeros around it; sums of fewer rows than a tile's take the way through such a copy, too.
#pragma once
#include "gemm.h"
#include "tile.h"

#if defined(DROPKEY_TILES)
namespace dropkey {

constexpr long kDeep = 8;  // tiles along the depth whose left sides are made ready at once

struct alignas(64) Square {
  uint32_t cells[kSide][kSide];
};

// Where a tile is read from, and how many bytes lie between its rows.
struct Place {
  const void* first;
  long bytes;
};

INLINE Place place_of(Square& room, const Pair* from, long step, long rows, long cells) {
  if (rows == kSide && cells == kSide) return {from, step * 4};
  room = {};
  for (long i = 0; i < rows; ++i) std::memcpy(room.cells[i], from + i * step, (size_t)cells * 4);
  return {room.cells, kSide * 4};
}

// Rows of the left side that are multiplied at once.
struct Strip {
  long rows, depth;
  Place tiles[kDeep][2];

  Strip(const Pair* a, Operand by, long rows, long depth) : rows(rows), depth(depth) {
    for (long k = 0; k < depth; k += kSide)
      for (long i = 0; i < rows; i += kSide)
        tiles[k / kSide][i / kSide] = place(room_[k / kSide][i / kSide], a + i * by.row + k * by.step, by,
                                            std::min(rows - i, kSide), std::min(depth - k, kSide));
  }

 private:
  static Place place(Square& room, const Pair* a, Operand by, long rows, long cells) {
    if (by.step == 1) return place_of(room, a, by.row, rows, cells);
    Square part;
    Place across = place_of(part, a, by.step, cells, rows);
    transpose(room.cells, kSide, (const uint32_t*)across.first, across.bytes / 4, kSide, kSide);
    return {room.cells, kSide * 4};
  }

  Square room_[kDeep][2];
};

// f(r, v) for R x V tiles, each number a type, since registers have fixed names.
template <int R, int V, class F>
INLINE void each(const F& f) {
  constexpr std::integral_constant<int, 0> zero{};
  constexpr std::integral_constant<int, 1> one{};
  f(zero, zero);
  if constexpr (V > 1) f(zero, one);
  if constexpr (R > 1) f(one, zero);
  if constexpr (R > 1 && V > 1) f(one, one);
}

template <int R, int V>
static void tile_block(const Strip& left, const Pair* b, long ldb, float* c, long ldc, bool add, Ahead& ahead) {
  each<R, V>([&](auto r, auto v) {
    add ? Tile<2 * r + v>::load(c + r * kSide * ldc + v * kSide, ldc * 4) : Tile<2 * r + v>::zero();
  });
  for (long k = 0; k < left.depth; k += kSide, b += kSide * ldb) {
    Square room[V];
    each<R, 1>([&](auto r, auto) {
      Place from = left.tiles[k / kSide][r];
      Tile<4 + r>::load(from.first, from.bytes);
    });
    each<1, V>([&](auto, auto v) {
      Place from = place_of(room[v], b + v * kSide, ldb, std::min(left.depth - k, kSide), kSide);
      Tile<6 + v>::load(from.first, from.bytes);
    });
    each<R, V>([](auto r, auto v) { multiply_tiles<r, v>(); });
    ahead();
  }
  each<R, V>([&](auto r, auto v) { Tile<2 * r + v>::store(c + r * kSide * ldc + v * kSide, ldc * 4); });
}

static void tile_block_of(const Strip& left, long columns, const Pair* b, long ldb, float* c, long ldc, bool add,
                          Ahead& ahead) {
  if (left.rows > kSide)
    columns > kSide ? tile_block<2, 2>(left, b, ldb, c, ldc, add, ahead)
                    : tile_block<2, 1>(left, b, ldb, c, ldc, add, ahead);
  else
    columns > kSide ? tile_block<1, 2>(left, b, ldb, c, ldc, add, ahead)
                    : tile_block<1, 1>(left, b, ldb, c, ldc, add, ahead);
}

static void multiply_strip(const Strip& left, long columns, const Pair* b, long ldb, float* c, long ldc, bool add,
                           Ahead& ahead) {
  constexpr long kBlock = 2 * kSide;
  float room[kBlock][kBlock];
  for (long j = 0; j < columns; j += kBlock) {
    long some = std::min(columns - j, kBlock);
    if (left.rows % kSide == 0) {
      tile_block_of(left, some, b + j, ldb, c + j, ldc, add, ahead);
      continue;
    }
    if (add)
      for (long i = 0; i < left.rows; ++i) std::memcpy(room[i], c + i * ldc + j, (size_t)some * sizeof(float));
    tile_block_of(left, some, b + j, ldb, room[0], kBlock, add, ahead);
    for (long i = 0; i < left.rows; ++i) std::memcpy(c + i * ldc + j, room[i], (size_t)some * sizeof(float));
  }
}

// `columns` is a multiple of 16; either the rows of `a` or its columns are dense. Pieces of sums need no care: a tile
// product sums 32 values on its own before it adds them.
static void multiply(int rows, int columns, long depth, const Pair* a, Operand by, const Pair* b, long ldb, float* c,
                     long ldc, bool add, Ahead& ahead) {
  for (long k = 0, deep; k < depth; k += deep, add = true) {
    deep = std::min(depth - k, kDeep * kSide);
    for (long i = 0; i < rows; i += 2 * kSide) {
      Strip left(a + i * by.row + k * by.step, by, std::min(rows - i, 2 * kSide), deep);
      multiply_strip(left, columns, b + k * ldb, ldb, c + i * ldc, ldc, add, ahead);
    }
  }
}

}  // namespace dropkey
#endif
