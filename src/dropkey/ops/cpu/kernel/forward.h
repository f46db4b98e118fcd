// out = softmax(logits) value, tile of queries by tile: the logits of a tile and of a block of keys lie in the first
// level cache, or the second where there are many, their running maximum and sum go from block to block.
#pragma once
#include "keep.h"
#include "operands.h"
#include "pool.h"
#include "rows.h"

namespace dropkey {

constexpr long kBlockChunks = 16;        // chunks of keys whose logits are held at once
constexpr long kTileLogits = 64 * 1024;  // logits held at once
constexpr long kFirstLevel = 6 * 1024;   // half of the first level cache: where few keys leave room for whole rows

template <class T, class Cell>
class Forward {
  typedef Value<Cell> V;

 public:
  Forward(const Problem& problem, const Keep& keep)
      : p(problem), keep_(keep), cut(p.keys), width(padded(p.keys, 16)), out_width(padded(p.value_dim, 16)) {
    block_keys = std::min(width, kBlockChunks * 64);
    long held = p.keys <= kWholeRows ? kFirstLevel : kTileLogits, some = std::max(12L, kStep<Cell>);
    tile = piece_of(p.queries, std::max(held / block_keys / some, 2L) * some, kStep<Cell>);
    tiles = (p.queries + tile - 1) / tile;
    long heads = p.batch * p.heads;
    parts = std::min(tiles, heads >= 8 ? 1L : (8 + heads - 1) / heads);
  }

  long items() const { return p.batch * p.heads * parts; }

  // One part of the queries of one head.
  void operator()(long item, long after) const {
    Buffers to = take();
    to.after = after < 0 ? -1 : after / parts;
    long head = item / parts, part = item % parts, b = head / p.heads, h = head % p.heads;
    long kv = h / (p.heads / p.kv_heads);
    pack(to, p.key.rows<const T>(b, kv), p.value.rows<const T>(b, kv));
    for (long t = tiles * part / parts; t < tiles * (part + 1) / parts; ++t) {
      long first = t * tile, rows = std::min(tile, p.queries - first);
      run_tile(to, {b, h, first, rows, 0, width});
    }
  }

 private:
  struct Buffers {
    Cell *keys, *tail, *weights, *value_room, *query_room;
    const Cell *values, *queries;
    V* scratch;
    float *logits, *out, *bias, *highest, *total;
    uint8_t *bits, *allowed, *uniform;
    long after;  // the head that this thread takes next
    Ahead ahead;
  };

  Buffers take() const {
    Arena& memory = arena();
    for (bool measuring : {true, false}) {
      memory.begin(measuring);
      Buffers to;
      to.keys = memory.take<Cell>(width * width_of<Cell>(p.head_dim) / kPer<Cell>);
      to.tail = memory.take<Cell>(cut.tail * width_of<Cell>(p.head_dim) / kPer<Cell>);
      to.value_room = memory.take<Cell>(depth_of<Cell>(width) * out_width);
      to.query_room = memory.take<Cell>(tile * width_of<Cell>(p.head_dim) / kPer<Cell>);
      to.scratch = memory.take<V>(64 * width_of<Cell>(p.head_dim));
      to.logits = memory.take<float>(tile * pitch());
      to.weights = kPer<Cell> == 1 ? (Cell*)to.logits : memory.take<Cell>(tile * pitch() / kPer<Cell>);
      to.out = memory.take<float>(tile * out_width);
      to.bias = memory.take<float>(block_keys);
      to.highest = memory.take<float>(tile);
      to.total = memory.take<float>(tile);
      to.bits = memory.take<uint8_t>(tile * width / 8);
      to.allowed = memory.take<uint8_t>(width / 8);
      to.uniform = memory.take<uint8_t>(tile);
      if (!measuring) return to;
    }
    __builtin_unreachable();
  }

  // A power of two here would put all rows of a column into the same few sets of the cache.
  long pitch() const { return block_keys + 16; }

  void pack(Buffers& to, Rows<const T> key, Rows<const T> value) const {
    for (long c = 0; c < cut.chunks; ++c) {
      long first = cut.begin(c), rows = std::min(cut.width(c), p.keys - first);
      pack_lanes(panel_of(to, c), to.scratch, cut.width(c), key.from(first), rows, p.head_dim);
    }
    pack_plain(to.tail, cut.tail, key.from(p.keys - cut.tail), cut.tail, p.head_dim);
    to.values = along_rows(to.value_room, width, value, p.keys, p.value_dim);
  }

  Cell* panel_of(const Buffers& to, long chunk) const {
    return to.keys + cut.begin(chunk) * width_of<Cell>(p.head_dim) / kPer<Cell>;
  }

  void run_tile(Buffers& to, const Patch& at) const {
    Rows<const T> query = p.query.rows<const T>(at.batch, at.head).from(at.first);
    to.queries = plain_rows(to.query_room, at.rows, query, at.rows, p.head_dim);
    look_ahead(to, at);
    to.ahead.spread(looks_of(at.rows, width, depth_of<Cell>(p.head_dim), kPiece<Cell>) +
                    looks_of(at.rows, out_width, depth_of<Cell>(width), 128 / kPer<Cell>));
    draw_tile(keep_, at, to.bits, to.allowed, to.uniform);
    for (long i = 0; i < at.rows; ++i) to.highest[i] = -kInfinity, to.total[i] = 0;
    for (long c = 0; c < cut.chunks; c += kBlockChunks) run_block(to, at, c, std::min(c + kBlockChunks, cut.chunks));
    finish(to, at);
  }

  void run_block(Buffers& to, const Patch& at, long chunk, long past) const {
    long first = cut.begin(chunk), row = width_of<Cell>(p.head_dim) / kPer<Cell>;
    for (long c = chunk; c < past; ++c)
      multiply((int)at.rows, (int)cut.width(c), depth_of<Cell>(p.head_dim), to.queries, {row, 1, kPiece<Cell>},
               panel_of(to, c), cut.width(c), to.logits + cut.begin(c) - first, pitch(), false, to.ahead);
    if (cut.tail)
      multiply_tail(at.rows, cut.tail, row, to.queries, to.tail, to.logits + cut.groups * 16 - first, pitch());
    // One loop each: the highest logit is known late, and the next row's does not wait for it.
    for (long i = 0; i < at.rows; ++i) raise(to, at, i, first, cut.end(past) - first);
    for (long i = 0; i < at.rows; ++i) weigh(to, at, i, first, cut.end(past) - first);
    for (long c = chunk, next; c < past; c = next) {  // two chunks in one sum: fewer visits to `out`
      next = std::min(c + 2, past);
      long depth = depth_of<Cell>(cut.begin(next - 1) + cut.real(next - 1) - cut.begin(c));
      multiply((int)at.rows, (int)out_width, depth, to.weights + (cut.begin(c) - first) / kPer<Cell>,
               {pitch() / kPer<Cell>, 1, kWhole}, to.values + cut.begin(c) / kPer<Cell> * out_width, out_width, to.out,
               out_width, c > 0, to.ahead);
    }
  }

  // What this tile writes, what the next tile reads, and what the next head reads if it is small enough.
  void look_ahead(Buffers& to, const Patch& at) const {
    to.ahead = {};
    to.ahead.add(p.out.rows<const T>(at.batch, at.head).from(at.first), at.rows, p.value_dim);
    long left = p.queries - at.first - at.rows;
    if (left > 0)
      to.ahead.add(p.query.rows<const T>(at.batch, at.head).from(at.first + at.rows), std::min(tile, left), p.head_dim);
    if (left > 0 || to.after < 0) return;
    long b = to.after / p.heads, h = to.after % p.heads, kv = h / (p.heads / p.kv_heads);
    to.ahead.add(p.query.rows<const T>(b, h), std::min(tile, (long)p.queries), p.head_dim);
    if (p.keys * (p.head_dim + p.value_dim) * (long)sizeof(T) > kAheadBytes) return;
    to.ahead.add(p.key.rows<const T>(b, kv), p.keys, p.head_dim);
    to.ahead.add(p.value.rows<const T>(b, kv), p.keys, p.value_dim);
  }

  // Takes the bias in and finds the highest logit so far of one row.
  void raise(Buffers& to, const Patch& at, long i, long first, long keys) const {
    if (to.uniform[i]) return;
    float* logits = to.logits + i * pitch();
    Factor unit = unit_of();
    if (p.bias_kind == kFloatBias) {
      load_bias(to.bias, p, at.batch, at.head, at.first + i, first, keys);
      add_bias(logits, to.bias, (float)p.scale, keys);
    }
    float before = to.highest[i], highest = std::max(before, highest_kept(logits, bits_of(to, at, i, first), keys));
    if (highest > before && before != -kInfinity) shrink(to, i, before - highest, unit);
    to.highest[i] = highest;
  }

  // Logits of one row become weights relative to the highest one.
  void weigh(Buffers& to, const Patch& at, long i, long first, long keys) const {
    const uint8_t* bits = bits_of(to, at, i, first);
    V* weights = (V*)to.weights + i * pitch();
    if (to.uniform[i])
      to.total[i] += fill_ones(weights, bits, keys);
    else if (to.highest[i] == -kInfinity) {
      if (any_kept_nan(to.logits + i * pitch(), bits, keys)) to.total[i] = __builtin_nanf("");
      fill_zeros(weights, keys);
    } else
      to.total[i] += exponentiate(weights, to.logits + i * pitch(), bits, unit_of(), to.highest[i], keys);
  }

  // What one unit of a logit is in log2: scaled already once a bias is in it.
  Factor unit_of() const { return Factor(p.bias_kind == kFloatBias ? kLog2e : p.scale * kLog2e); }

  const uint8_t* bits_of(const Buffers& to, const Patch& at, long i, long first) const {
    return to.bits + i * at.pitch() + first / 8;
  }

  void shrink(Buffers& to, long i, float rise, Factor unit) const {
    Floats factor = power2(splat(rise), unit);
    to.total[i] *= factor[0];
    for (long d = 0; d < out_width; d += W)
      store(to.out + i * out_width + d, load(to.out + i * out_width + d) * factor);
  }

  void finish(Buffers& to, const Patch& at) const {
    Rows<T> out = p.out.rows<T>(at.batch, at.head).from(at.first);
    float* highest = sums_of(p, at.batch, at.head) + at.first;
    for (long i = 0; i < at.rows; ++i) {
      // Kept keys without any weight: all their logits are -inf, and the row is as one without an allowed key.
      bool lost = to.uniform[i] || to.total[i] == 0;
      float share = to.total[i] != 0 ? 1 / to.total[i] : 0;
      write_row(out.row(i), to.out + i * out_width, p.value_dim, share);
      // Infinity marks a row whose weights do not depend on the logits; a logit of +inf makes a row of NaN instead.
      highest[i] = lost ? kInfinity : to.highest[i] == kInfinity ? __builtin_nanf("") : to.highest[i];
      highest[p.batch * p.heads * p.queries + i] = share;
    }
  }

  const Problem& p;
  const Keep& keep_;
  Cut cut;
  long width, out_width, block_keys, tile, tiles, parts;
};

}  // namespace dropkey
