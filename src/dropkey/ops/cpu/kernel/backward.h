// Gradients of query, key and value. The weights are computed again from the logits and their saved sums,
// the kept keys are drawn again: nothing of the size queries x keys is read. One item is one key head, so that no sum
// depends on who computes what.
#pragma once
#include "keep.h"
#include "operands.h"
#include "pool.h"
#include "rows.h"

namespace dropkey {

constexpr long kBackwardTile = 72;   // queries in a tile
constexpr long kFewLogits = 16384;   // as many are held at once, however many keys that are

template <class T, class Cell>
class Backward {
  typedef Value<Cell> V;

 public:
  Backward(const Problem& problem, const Keep& keep)
      : p(problem), keep_(keep), cut(p.keys), group(p.heads / p.kv_heads), width_qk(width_of<Cell>(p.head_dim)),
        width_v(width_of<Cell>(p.value_dim)), lanes_qk(padded(p.head_dim, 16)), lanes_v(padded(p.value_dim, 16)) {
    long most = std::max(kWholeRows, kFewLogits / (long)p.queries);
    long lanes = padded(p.keys, 16), blocks = (lanes + most - 1) / most;
    chunks = (cut.chunks + blocks - 1) / blocks;
    block_keys = std::min(lanes, chunks * 64 + (cut.tail ? 16 : 0));
    tile = piece_of(p.queries, kBackwardTile, kStep<Cell>);
    whole = chunks >= cut.chunks;
    pitch = whole ? (lanes / 16 | 1) * 16 : kPitch;
  }

  long items() const { return batch_items() * head_items(); }

  void operator()(long item, long after) const {
    long batches = p.batch / batch_items(), heads = p.kv_heads / head_items();
    long b = item / head_items() * batches, kv = item % head_items() * heads;
    for (long n = 0; n < batches * heads; ++n) run_head(b + n / heads, kv + n % heads, after);
  }

 private:
  // Heads that add to the same gradient of a broadcast bias are one item.
  long batch_items() const { return p.grad_bias.data && p.grad_bias.batch == 0 ? 1 : p.batch; }
  long head_items() const { return p.grad_bias.data && p.grad_bias.head == 0 ? 1 : p.kv_heads; }

  void run_head(long b, long kv, long after) const {
    Buffers to = take();
    to.after = group > 1 || p.grad_bias.data ? -1 : after;
    for (long g = 0; g < group; ++g) prepare(to, b, kv * group + g, g);
    for (long c = 0; c < cut.chunks; c += chunks) run_block(to, b, kv, c, std::min(c + chunks, cut.chunks));
    for (long g = 0; g < group; ++g)
      write(p.grad_query.rows<T>(b, kv * group + g), to.grad_query + g * p.queries * lanes_qk, lanes_qk, p.queries,
            p.head_dim, (float)p.scale);
  }

  struct Buffers {
    Cell *key_lanes, *value_lanes, *key_tail, *value_tail;  // of a block of keys
    const Cell *key_along, *query, *grad_out;
    const Cell *query_along, *grad_out_along;               // of a tile of queries
    Cell *key_room, *query_room, *grad_out_room, *query_along_room, *grad_out_along_room;
    Cell *weights_along, *slopes, *slopes_along;            // of a tile of queries and a chunk of keys
    V* scratch;
    float *logits, *products, *bias;
    float *grad_query, *grad_key, *grad_value;
    float* delta;  // of all queries
    uint8_t *bits, *allowed;
    long after;  // the head that this thread takes next
    Ahead ahead;
  };

  Buffers take() const {
    Arena& memory = arena();
    constexpr long per = kPer<Cell>;
    for (bool measuring : {true, false}) {
      memory.begin(measuring);
      Buffers to;
      to.key_lanes = memory.take<Cell>(block_keys * width_qk / per);
      to.value_lanes = memory.take<Cell>(block_keys * width_v / per);
      to.key_room = memory.take<Cell>(block_keys / per * lanes_qk);
      to.key_tail = memory.take<Cell>(cut.tail * width_qk / per);
      to.value_tail = memory.take<Cell>(cut.tail * width_v / per);
      to.query_room = memory.take<Cell>(tile * width_qk / per);
      to.grad_out_room = memory.take<Cell>(tile * width_v / per);
      to.query_along_room = per == 1 ? nullptr : memory.take<Cell>(tile / per * lanes_qk);
      to.grad_out_along_room = per == 1 ? nullptr : memory.take<Cell>(tile / per * lanes_v);
      to.scratch = memory.take<V>(64 * std::max(width_qk, width_v));
      to.logits = memory.take<float>(std::max(tile * pitch, kDelta * width_v));
      to.products = memory.take<float>(std::max(tile * pitch, kDelta * width_v));
      to.weights_along = per == 1 ? (Cell*)to.logits : memory.take<Cell>(tile * kPitch / per);
      to.slopes = per == 1 ? (Cell*)to.products : memory.take<Cell>(tile * kPitch / per);
      to.slopes_along = per == 1 ? to.slopes : memory.take<Cell>(tile * kPitch / per);
      to.bias = memory.take<float>(block_keys);
      to.grad_query = memory.take<float>(group * p.queries * lanes_qk);
      to.grad_key = memory.take<float>(block_keys * lanes_qk);
      to.grad_value = memory.take<float>(block_keys * lanes_v);
      to.delta = memory.take<float>(group * p.queries);
      to.bits = memory.take<uint8_t>(tile * block_keys / 8);
      to.allowed = memory.take<uint8_t>(padded(p.keys, 16) / 8);
      if (!measuring) return to;
    }
    __builtin_unreachable();
  }

  static constexpr long kDelta = 16;  // queries whose delta is made at once

  // Odd multiples of a cache line: powers of two would put all rows of a column into the same few sets of the cache.
  static constexpr long kPitch = 64 + 16;

  // What is known of each query before any key is looked at.
  void prepare(Buffers& to, long b, long h, long g) const {
    Rows<const T> out = p.out.rows<const T>(b, h), grad_out = p.grad_out.rows<const T>(b, h);
    if (whole) return;
    // Delta and the products that it is subtracted from must round alike, or what is left of a lone key is not 0. So
    // one product makes both, of which delta is the diagonal.
    Cell *left = (Cell*)to.logits, *right = (Cell*)to.products;
    float square[kDelta][kDelta];
    Ahead none;
    for (long i = 0; i < p.queries; i += kDelta) {
      long rows = std::min(kDelta, p.queries - i);
      pack_plain(left, kDelta, grad_out.from(i), rows, p.value_dim);
      pack_lanes(right, to.scratch, kDelta, out.from(i), rows, p.value_dim);
      multiply(kDelta, kDelta, depth_of<Cell>(p.value_dim), left, {width_v / kPer<Cell>, 1, kPiece<Cell>}, right, kDelta,
               square[0], kDelta, false, none);
      for (long n = 0; n < rows; ++n) to.delta[g * p.queries + i + n] = square[n][n];
    }
  }

  void run_block(Buffers& to, long b, long kv, long chunk, long past) const {
    long first = cut.begin(chunk), keys = cut.end(past) - first, real = std::min(keys, p.keys - first);
    Rows<const T> key = p.key.rows<const T>(b, kv).from(first), value = p.value.rows<const T>(b, kv).from(first);
    to.key_along = along_rows(to.key_room, keys, key, real, p.head_dim);
    for (long c = chunk; c < past; ++c) {
      long at = cut.begin(c) - first, rows = std::min(cut.width(c), real - at);
      pack_lanes(to.key_lanes + at * width_qk / kPer<Cell>, to.scratch, cut.width(c), key.from(at), rows, p.head_dim);
      pack_lanes(to.value_lanes + at * width_v / kPer<Cell>, to.scratch, cut.width(c), value.from(at), rows,
                 p.value_dim);
    }
    pack_plain(to.key_tail, cut.tail, key.from(real - cut.tail), cut.tail, p.head_dim);
    pack_plain(to.value_tail, cut.tail, value.from(real - cut.tail), cut.tail, p.value_dim);
    for (long g = 0; g < group; ++g)
      for (long i = 0; i < p.queries; i += tile)
        run_tile(to, {b, kv * group + g, i, std::min(tile, p.queries - i), first, keys}, g, chunk, past);
    write(p.grad_key.rows<T>(b, kv).from(first), to.grad_key, lanes_qk, real, p.head_dim, (float)p.scale);
    write(p.grad_value.rows<T>(b, kv).from(first), to.grad_value, lanes_v, real, p.value_dim, 1);
  }

  void run_tile(Buffers& to, const Patch& at, long g, long chunk, long past) const {
    Rows<const T> query = p.query.rows<const T>(at.batch, at.head).from(at.first);
    Rows<const T> grad_out = p.grad_out.rows<const T>(at.batch, at.head).from(at.first);
    long even = padded(at.rows, kPer<Cell>);
    to.query = plain_rows(to.query_room, even, query, at.rows, p.head_dim);
    to.grad_out = plain_rows(to.grad_out_room, even, grad_out, at.rows, p.value_dim);
    if constexpr (kPer<Cell> == 1) {
      to.query_along = to.query, to.grad_out_along = to.grad_out;
    } else {
      pack_along(to.query_along_room, even, query, at.rows, p.head_dim);
      pack_along(to.grad_out_along_room, even, grad_out, at.rows, p.value_dim);
      to.query_along = to.query_along_room, to.grad_out_along = to.grad_out_along_room;
    }
    look_ahead(to, at, past);
    to.ahead.spread(looks_of(at.rows, at.keys, depth_of<Cell>(p.head_dim + p.value_dim), kPiece<Cell>) +
                    looks_of(at.keys, lanes_qk + lanes_v, at.rows) +
                    looks_of(at.rows, lanes_qk, at.keys, 64));
    redraw_tile(keep_, at, to.bits, to.allowed, sums_of(p, at.batch, at.head));
    if (whole) {
      for (long c = chunk; c < past; ++c) score(to, at, cut.begin(c), cut.width(c), cut.begin(c));
      if (cut.tail) score_tail(to, at);
      slope_rows(to, at, g, 0, at.keys);
      for (long c = chunk; c < past; ++c) spread(to, at, g, c, cut.begin(c));
    } else {
      for (long c = chunk; c < past; ++c) {
        score(to, at, cut.begin(c), cut.width(c), 0);
        slope_rows(to, at, g, cut.begin(c), cut.width(c));
        spread(to, at, g, c, 0);
      }
    }
  }

  // Logits, and products of gradient and value, of a chunk of keys, written from column `column` on.
  void score(Buffers& to, const Patch& at, long first, long keys, long column) const {
    long offset = first - at.first_key, row_qk = width_qk / kPer<Cell>, row_v = width_v / kPer<Cell>;
    multiply((int)at.rows, (int)keys, depth_of<Cell>(p.head_dim), to.query, {row_qk, 1, kPiece<Cell>},
             to.key_lanes + offset * row_qk, keys, to.logits + column, pitch, false, to.ahead);
    multiply((int)at.rows, (int)keys, depth_of<Cell>(p.value_dim), to.grad_out, {row_v, 1, kPiece<Cell>},
             to.value_lanes + offset * row_v, keys, to.products + column, pitch, false, to.ahead);
  }

  void score_tail(Buffers& to, const Patch& at) const {
    long row_qk = width_qk / kPer<Cell>, row_v = width_v / kPer<Cell>, column = cut.groups * 16;
    multiply_tail(at.rows, cut.tail, row_qk, to.query, to.key_tail, to.logits + column, pitch);
    multiply_tail(at.rows, cut.tail, row_v, to.grad_out, to.value_tail, to.products + column, pitch);
  }

  // What the weights and slopes of a chunk of keys add to the three gradients.
  void spread(Buffers& to, const Patch& at, long g, long chunk, long column) const {
    constexpr long per = kPer<Cell>;
    long offset = cut.begin(chunk) - at.first_key, even = padded(at.rows, per), step = pitch, real = cut.real(chunk);
    bool later = g > 0 || at.first > 0;  // than the first that adds to the gradients of these keys
    if constexpr (per > 1) pair_up(to, at.rows, padded(real, 16), column), step = kPitch, column = 0;
    multiply((int)real, (int)lanes_v, even / per, to.weights_along + column, {1, step, kWhole}, to.grad_out_along, lanes_v,
             to.grad_value + offset * lanes_v, lanes_v, later, to.ahead);
    multiply((int)real, (int)lanes_qk, even / per, to.slopes_along + column, {1, step, kWhole}, to.query_along, lanes_qk,
             to.grad_key + offset * lanes_qk, lanes_qk, later, to.ahead);
    multiply((int)at.rows, (int)lanes_qk, depth_of<Cell>(real), to.slopes + column, {step / per, 1, kWhole},
             to.key_along + offset / per * lanes_qk, lanes_qk,
             to.grad_query + (g * p.queries + at.first) * lanes_qk, lanes_qk, chunk > 0, to.ahead);
  }

  // Logits become weights, gradients of the weights become gradients of the logits.
  void slope_rows(Buffers& to, const Patch& at, long g, long first, long keys) const {
    const float *highest = sums_of(p, at.batch, at.head) + at.first, *share = highest + p.batch * p.heads * p.queries;
    const float* delta = to.delta + g * p.queries + at.first;
    for (long i = 0; i < at.rows; ++i) {
      const uint8_t* bits = to.bits + i * at.pitch() + (first - at.first_key) / 8;
      float *logits = to.logits + i * pitch, *products = to.products + i * pitch;
      if (highest[i] == kInfinity) {
        fill_share(logits, bits, share[i], keys);
        fill_zeros(products, keys);
      } else {
        Factor unit(p.scale * kLog2e);
        if (p.bias_kind == kFloatBias) {
          load_bias(to.bias, p, at.batch, at.head, at.first + i, first, keys);
          add_bias(logits, to.bias, (float)p.scale, keys);
          unit = Factor(kLog2e);
        }
        weigh(logits, products, bits, unit, highest[i], share[i], whole ? nullptr : delta + i, keys);
        if (p.grad_bias.data) add_slopes(p, at.batch, at.head, at.first + i, first, products, keys);
      }
    }
  }

  // What the next tile reads; at the end of a small head also what it will write and what the next head reads.
  void look_ahead(Buffers& to, const Patch& at, long past) const {
    to.ahead = {};
    long next = at.first + at.rows, left = p.queries - next;
    if (left > 0) {
      to.ahead.add(p.query.rows<const T>(at.batch, at.head).from(next), std::min(tile, left), p.head_dim);
      to.ahead.add(p.grad_out.rows<const T>(at.batch, at.head).from(next), std::min(tile, left), p.value_dim);
    }
    if (left > 0 || past < cut.chunks || to.after < 0 || 2 * (p.queries + p.keys) * width_qk * 4 > kAheadBytes) return;
    long b = to.after / p.heads, h = to.after % p.heads;
    to.ahead.add(p.grad_query.rows<const T>(at.batch, at.head), p.queries, p.head_dim);
    to.ahead.add(p.grad_key.rows<const T>(at.batch, at.head), p.keys, p.head_dim);
    to.ahead.add(p.grad_value.rows<const T>(at.batch, at.head), p.keys, p.value_dim);
    if (!whole) to.ahead.add(p.out.rows<const T>(b, h), p.queries, p.value_dim);
    to.ahead.add(p.grad_out.rows<const T>(b, h), p.queries, p.value_dim);
    to.ahead.add(p.key.rows<const T>(b, h), p.keys, p.head_dim);
    to.ahead.add(p.value.rows<const T>(b, h), p.keys, p.value_dim);
    to.ahead.add(p.query.rows<const T>(b, h), p.queries, p.head_dim);
  }

  void pair_up(Buffers& to, long rows, long keys, long column) const {
    float *weights = to.logits + column, *slopes = to.products + column;
    if (rows % 2) fill_zeros(weights + rows * pitch, keys), fill_zeros(slopes + rows * pitch, keys);
    for (long i = 0; i < rows; i += 2, weights += 2 * pitch, slopes += 2 * pitch) {
      store_pairs(to.weights_along + i / 2 * kPitch, weights, weights + pitch, keys);
      store_pairs(to.slopes_along + i / 2 * kPitch, slopes, slopes + pitch, keys);
      store_row((Half*)to.slopes + i * kPitch, slopes, keys);
      store_row((Half*)to.slopes + (i + 1) * kPitch, slopes + pitch, keys);
    }
  }

  const Problem& p;
  const Keep& keep_;
  Cut cut;
  long group, width_qk, width_v, lanes_qk, lanes_v, chunks, block_keys, tile, pitch;
  bool whole;  // whether a tile holds whole rows of weights
};

}  // namespace dropkey
