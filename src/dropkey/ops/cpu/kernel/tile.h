// The eight tile registers of AMX, all of full size: 16 rows of 16 cells, a cell being a float or a pair of bfloat16.
// Registers 0 to 3 hold sums, 2 by 2; 4 and 5 what is multiplied from the left, 6 and 7 from the right. Each thread has
// its own, and none before `Tiles` has set them up.
#pragma once
#if defined(__AMX_BF16__) || defined(DROPKEY_EMULATED_TILES)
#define DROPKEY_TILES
#include "pack.h"
#if defined(__AMX_BF16__)
#include <cerrno>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace dropkey {

constexpr long kSide = 16;  // rows of a tile, and cells of a row

// What LDTILECFG reads.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};  // of a row
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

static_assert(sizeof(TileShapes) == 64, "");

}  // namespace dropkey

#if defined(DROPKEY_EMULATED_TILES)
#include "emulated_tile.h"
#else

namespace dropkey {

// Compilers do not know that tiles are read from memory: what was written must be there before.
INLINE void finish_writing() { __asm__ volatile("" ::: "memory"); }

INLINE void configure_tiles(const TileShapes& shapes) {
  finish_writing();
  _tile_loadconfig(&shapes);
}

INLINE void release_tiles() { _tile_release(); }

// Instructions name their registers, so each has functions of its own; `bytes` lead from row to row.
template <int N>
struct Tile;

#define TILE(N)                                             \
  template <>                                               \
  struct Tile<N> {                                          \
    INLINE void zero() { _tile_zero(N); }                   \
    INLINE void load(const void* from, long bytes) {        \
      finish_writing();                                     \
      _tile_loadd(N, from, bytes);                          \
    }                                                       \
    INLINE void store(void* to, long bytes) { _tile_stored(N, to, bytes); } \
  };

TILE(0) TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) TILE(7)
#undef TILE

template <int R, int V>
INLINE void multiply_tiles() {
  if constexpr (R == 0 && V == 0) _tile_dpbf16ps(0, 4, 6);
  if constexpr (R == 0 && V == 1) _tile_dpbf16ps(1, 4, 7);
  if constexpr (R == 1 && V == 0) _tile_dpbf16ps(2, 5, 6);
  if constexpr (R == 1 && V == 1) _tile_dpbf16ps(3, 5, 7);
}

// Linux lets a process use tiles once it has asked, since they make every thread's state larger; returns 0 or an errno.
static int ask_for_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) ? errno : 0;
}

}  // namespace dropkey
#endif

namespace dropkey {

// This thread's tile registers, from here to the end of the scope.
struct Tiles {
  Tiles() { configure_tiles(TileShapes()); }
  ~Tiles() { release_tiles(); }
  Tiles(const Tiles&) = delete;
};

}  // namespace dropkey
#endif
