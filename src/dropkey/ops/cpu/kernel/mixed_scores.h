// The centered weights of a tile of queries in all heads of one image, which each pass of the mixing computes anew.
#pragma once
#include "keep.h"
#include "mixing.h"
#include "operands.h"
#include "pool.h"
#include "rows.h"

namespace dropkey {

constexpr long kMaps = 256 * 1024;  // floats of maps, and of their gradients, held at once
constexpr long kMostRows = 96;      // queries in a tile: sums over them are not cut any further

// Floats from one map of a query to the next: odd multiples of a cache line, see backward.h.
INLINE long pitch_of(const Problem& p) { return (padded(p.keys, 16) / 16 | 1) * 16; }

// One part of the queries of one image is one item. The number of parts depends on the call alone, so that no sum
// depends on the number of threads. Tiles fit the second level cache, but small ones read the panels of all keys too
// often: `least` rows are worth more than that.
struct Parts {
  long tile, tiles, parts;

  Parts(const Problem& p, long maps, long least, long wanted)
      : tile(piece_of(p.queries, std::clamp(kMaps / (maps * pitch_of(p)) / 6 * 6, least, kMostRows), 6)),
        tiles((p.queries + tile - 1) / tile), parts(std::min(tiles, (wanted + p.batch - 1) / p.batch)) {}

  long image(long item) const { return item / parts; }
  long begin(long item) const { return tiles * (item % parts) / parts; }
  long end(long item) const { return tiles * (item % parts + 1) / parts; }
};

template <class T>
class Scores {
 public:
  Scores(const Problem& problem, const Keep& keep, long tile)
      : p(problem), cut(p.keys), width(padded(p.keys, 16)), pitch(pitch_of(p)),
        depth(width_of<float>(p.head_dim)), tile(tile), keep_(keep) {}

  struct Buffers {
    float *keys, *scratch;  // of all heads; for packing
    uint8_t *bits, *allowed, *uniform;
  };

  Buffers take(Arena& memory) const {
    Buffers to;
    to.keys = memory.take<float>(p.heads * width * depth);
    to.scratch = memory.take<float>(64 * depth);
    to.bits = memory.take<uint8_t>(tile * width / 8);
    to.allowed = memory.take<uint8_t>(width / 8);
    to.uniform = memory.take<uint8_t>(tile);
    return to;
  }

  void pack_keys(Buffers& to, long b) const {
    for (long h = 0; h < p.heads; ++h)
      pack_panels(to.keys + h * width * depth, to.scratch, p.key.rows<const T>(b, h), p.head_dim);
  }

  // Rows of a head as panels whose lanes are neighboring keys, chunk by chunk; the tail as it is.
  void pack_panels(float* to, float* scratch, Rows<const T> rows, long columns) const {
    for (long c = 0; c < cut.chunks; ++c) {
      long first = cut.begin(c), real = std::min(cut.width(c), p.keys - first);
      pack_lanes(to + first * width_of<float>(columns), scratch, cut.width(c), rows.from(first), real, columns);
    }
    pack_plain(tail_in(to, columns), cut.tail, rows.from(p.keys - cut.tail), cut.tail, columns);
  }

  // Products of packed rows with the panels of one head, `step` floats from row to row.
  void multiply_panels(float* to, long step, const float* rows, long count, const float* panels, long columns) const {
    long row = width_of<float>(columns);
    for (long c = 0; c < cut.chunks; ++c)
      product(count, cut.width(c), columns, rows, {row, 1, kPiece<float>}, panels + cut.begin(c) * row, cut.width(c),
              to + cut.begin(c), step, false);
    if (cut.tail) multiply_tail(count, cut.tail, row, rows, tail_in(panels, columns), to + cut.groups * 16, step);
  }

  // Logits of one head; its packed queries stay in `queries`.
  void score(Buffers& to, const Patch& at, float* queries, float* maps, long step) const {
    pack_plain(queries, at.rows, p.query.rows<const T>(at.batch, at.head).from(at.first), at.rows, p.head_dim);
    multiply_panels(maps, step, queries, at.rows, to.keys + at.head * width * depth, p.head_dim);
  }

  // Logits of one head to centered weights, and their sums.
  void weigh(Buffers& to, const Patch& at, float* maps, long step) const {
    draw_tile(keep_, at, to.bits, to.allowed, to.uniform);
    float *highest = sums_of(p, at.batch, at.head) + at.first, *share = highest + p.batch * p.heads * p.queries;
    for (long i = 0; i < at.rows; ++i, maps += step) {
      const uint8_t* bits = to.bits + i * at.pitch();
      if (to.uniform[i]) {
        fill_zeros(maps, width);
        highest[i] = kInfinity, share[i] = mean();
      } else {
        highest[i] = highest_kept(maps, bits, width);
        share[i] = 1 / exponentiate(maps, maps, bits, unit(), highest[i], width);
        center(maps, share[i]);
      }
    }
  }

  // The same from known sums.
  void weigh_again(Buffers& to, const Patch& at, float* maps, long step) const {
    const float *highest = sums_of(p, at.batch, at.head), *share = highest + p.batch * p.heads * p.queries;
    redraw_tile(keep_, at, to.bits, to.allowed, highest);
    for (long i = at.first; i < at.first + at.rows; ++i, maps += step) {
      if (highest[i] == kInfinity)
        fill_zeros(maps, width);
      else
        weigh_row(maps, to.bits + (i - at.first) * at.pitch(), highest[i], share[i]);
    }
  }

  float mean() const { return 1 / (float)p.keys; }

  const Problem& p;
  Cut cut;
  long width, pitch, depth, tile;

 private:
  template <class F>
  F* tail_in(F* panels, long columns) const {
    return panels + cut.groups * 16 * width_of<float>(columns);
  }

  Factor unit() const { return Factor(p.scale * kLog2e); }

  void center(float* maps, float share) const {
    for (long k = 0; k < width; k += W) store(maps + k, load(maps + k) * splat(share) - splat(mean()));
    for (long k = p.keys; k < width; ++k) maps[k] = 0;
  }

  void weigh_row(float* maps, const uint8_t* bits, float highest, float share) const {
    Factor factor = unit();
    Floats origin = splat(highest), part = splat(share), middle = splat(mean());
    for (long k = 0; k < width; k += W) {
      Floats weight = power2(load(maps + k) - origin, factor);
      store(maps + k, only(mask_at(bits, (int)(k / W)), weight) * part - middle);
    }
    for (long k = p.keys; k < width; ++k) maps[k] = 0;
  }

  const Keep& keep_;
};

}  // namespace dropkey
