// Tile registers without AMX, for tests: the same layout, an assertion where a processor would fault, and sums in the
// order of Intel's manual (TDPBF16PS). Its multiply-adds are fused; here they need not be, since a float holds the product
// of two bfloat16 as it is, unless that is next to nothing.
#pragma once
#undef NDEBUG
#include <cassert>

namespace dropkey {

// Denormals count as zero, in what is multiplied and in what comes out.
INLINE Floats flush(Floats x) {
  Words bits = (Words)x, sign = bits & 0x80000000u;
  Words normal = (Words)((bits & 0x7fffffffu) >= 0x00800000u);
  return (Floats)((bits & normal) | (sign & ~normal));
}

class TileRegisters {
 public:
  void configure(const TileShapes& shapes) {
    assert(shapes.palette == 1 && shapes.start_row == 0);
    for (int n = 0; n < 8; ++n) assert(shapes.rows[n] <= kSide && shapes.bytes[n] <= 4 * kSide);
    shapes_ = shapes, ready_ = true;
    std::memset(cells_, 0, sizeof cells_);
  }

  void release() {
    assert(ready_);
    ready_ = false;
  }

  void zero(int n) {
    check(n);
    std::memset(cells_[n], 0, sizeof cells_[n]);
  }

  void load(int n, const char* from, long bytes) {
    zero(n);
    for (int i = 0; i < shapes_.rows[n]; ++i) std::memcpy(cells_[n][i], from + i * bytes, shapes_.bytes[n]);
  }

  void store(int n, char* to, long bytes) const {
    check(n);
    for (int i = 0; i < shapes_.rows[n]; ++i) std::memcpy(to + i * bytes, cells_[n][i], shapes_.bytes[n]);
  }

  void multiply(int sum, int left, int right) {
    check(sum), check(left), check(right);
    assert(shapes_.rows[sum] == shapes_.rows[left] && shapes_.bytes[sum] == shapes_.bytes[right]);
    assert(shapes_.bytes[left] == 4 * shapes_.rows[right] && shapes_.bytes[sum] == 4 * kSide);
    for (int i = 0; i < shapes_.rows[sum]; ++i)
      for (int n = 0; n < kSide; n += W) {
        float* to = (float*)&cells_[sum][i][n];
        Floats added = product(cells_[left][i], cells_[right], n, shapes_.rows[right]);
        dropkey::store(to, flush(dropkey::load(to) + added));
      }
  }

 private:
  typedef uint32_t Row[kSide];

  // First values and second values of the pairs have sums of their own.
  static Floats product(const Row& left, const Row* right, int column, int depth) {
    Floats even = {}, odd = {};
    for (int k = 0; k < depth; ++k) {
      Words a = Words{} + left[k], b = dropkey::load(&right[k][column]);
      even = flush(flush((Floats)(a << 16)) * flush((Floats)(b << 16)) + even);
      odd = flush(flush((Floats)(a & 0xffff0000u)) * flush((Floats)(b & 0xffff0000u)) + odd);
    }
    return flush(even + odd);
  }

  void check(int n) const { assert(ready_ && shapes_.rows[n] > 0 && shapes_.bytes[n] > 0); }

  bool ready_ = false;
  TileShapes shapes_;
  Row cells_[8][kSide];
};

static TileRegisters& tile_registers() {
  thread_local TileRegisters mine;
  return mine;
}

INLINE void configure_tiles(const TileShapes& shapes) { tile_registers().configure(shapes); }
INLINE void release_tiles() { tile_registers().release(); }

template <int N>
struct Tile {
  static void zero() { tile_registers().zero(N); }
  static void load(const void* from, long bytes) { tile_registers().load(N, (const char*)from, bytes); }
  static void store(void* to, long bytes) { tile_registers().store(N, (char*)to, bytes); }
};

template <int R, int V>
INLINE void multiply_tiles() {
  tile_registers().multiply(2 * R + V, 4 + R, 6 + V);
}

static int ask_for_tiles() { return 0; }

}  // namespace dropkey
