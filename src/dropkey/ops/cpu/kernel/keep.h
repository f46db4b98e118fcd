// Which keys the queries of a tile may see, one bit a key, drawn or forbidden.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "philox.h"
#include "problem.h"

namespace dropkey {

constexpr float kForbidden = -5000;  // a bias from here down forbids its key, as in call.py
constexpr long kGroup = 16;  // keys are handled in groups, so that rows of bits are whole pairs of bytes

// Keep bits of `rows` queries from `first` on for `keys` keys from `first_key` on, both key numbers whole groups.
struct Patch {
  long batch, head, first, rows, first_key, keys;
  long pitch() const { return keys / 8; }
};

INLINE void clear_bit(uint8_t* bits, long i) { bits[i >> 3] &= (uint8_t)~(1u << (i & 7)); }

INLINE bool bit(const uint8_t* bits, long i) { return bits[i >> 3] >> (i & 7) & 1; }

// Sets the bits of the keys that an image keeps under the token pattern: those of the highest ranks.
static void draw_tokens(uint8_t* bits, const Problem& p, long b) {
  Key key(*p.draw.seed);
  long kept = std::max(1L, (long)std::nearbyint((1 - *p.draw.drop_ratio) * (double)p.keys));
  std::vector<uint64_t> order((size_t)p.keys);
  for (long k = 0; k < p.keys; ++k) {
    uint32_t rank = philox_once((uint32_t)k >> 2, 0, (uint32_t)(b * p.heads), 2, key).word[k & 3];
    order[(size_t)k] = (uint64_t)rank << 32 | (uint32_t)~k;
  }
  std::nth_element(order.begin(), order.begin() + (kept - 1), order.end(), std::greater<uint64_t>());
  for (long n = 0; n < kept; ++n) {
    uint32_t k = ~(uint32_t)order[(size_t)n];
    bits[k >> 3] |= (uint8_t)(1u << (k & 7));
  }
}

class Keep {
 public:
  explicit Keep(const Problem& problem)
      : p_(problem), key_(p_.draw.pattern == kNone ? 0 : *p_.draw.seed), ratio_(0), threshold_(0) {
    if (p_.draw.pattern == kNone) return;
    ratio_ = *p_.draw.drop_ratio;
    threshold_ = (uint32_t)std::nearbyint(ratio_ * 65536);
    if (p_.draw.pattern != kToken) return;
    tokens_.assign((size_t)(p_.batch * token_pitch()), 0);
    for (long b = 0; b < p_.batch; ++b) draw_tokens(&tokens_[(size_t)(b * token_pitch())], p_, b);
  }

  bool forbids() const { return p_.causal || p_.bias_kind != kNoBias; }

  long keys() const { return p_.keys; }

  // The drawn bits, allowed or not; bits of keys past the last one are arbitrary. Writes up to 8 bytes too many.
  void draw(uint8_t* bits, const Patch& at) const {
    uint32_t c2 = (uint32_t)(at.batch * p_.heads + at.head);
    switch (p_.draw.pattern) {
      case kElement: return draw_rows(bits, at.first, at.rows, at.first_key / 8, at.pitch(), c2, 0, threshold_, key_);
      case kColumn:
        draw_rows(bits, 0, 1, at.first_key / 8, at.pitch(), c2, 1, threshold_, key_);
        return repeat_first(bits, at);
      case kToken:
        std::memcpy(bits, &tokens_[(size_t)(at.batch * token_pitch() + at.first_key / 8)], (size_t)at.pitch());
        return repeat_first(bits, at);
      case kBlock:
      case kCross: return draw_windows(bits, at, c2);
      default: std::memset(bits, 0xff, (size_t)(at.rows * at.pitch()));
    }
  }

  // Which keys are not forbidden to query `i`.
  void allow(uint8_t* bits, const Patch& at, long i) const {
    long past = std::min(at.first_key + at.keys, (long)p_.keys);
    if (p_.causal) past = std::max(std::min(past, i + 1), at.first_key);
    long seen = past - at.first_key;
    std::memset(bits, 0, (size_t)at.pitch());
    std::memset(bits, 0xff, (size_t)(seen / 8));
    if (seen % 8) bits[seen / 8] = (uint8_t)((1u << seen % 8) - 1);
    if (p_.bias_kind == kBoolBias) {
      const uint8_t* may = p_.bias.row<uint8_t>(at.batch, at.head, i) + at.first_key * p_.bias.key;
      for (long k = 0; k < seen; ++k)
        if (!may[k * p_.bias.key]) clear_bit(bits, k);
    } else if (p_.bias_kind == kFloatBias) {
      const float* bias = p_.bias.row<float>(at.batch, at.head, i) + at.first_key * p_.bias.key;
      for (long k = 0; k < seen; ++k)
        if (bias[k * p_.bias.key] <= kForbidden) clear_bit(bits, k);
    }
  }

  // Whether what is drawn is the same for all queries of a head.
  bool draws_all_alike() const { return p_.draw.pattern < kBlock && p_.draw.pattern != kElement; }

  // Whether what is allowed is the same for all queries.
  bool allows_all_alike() const { return !p_.causal && (p_.bias_kind == kNoBias || p_.bias.query == 0); }

 private:
  void repeat_first(uint8_t* bits, const Patch& at) const {
    for (long i = 1; i < at.rows; ++i) std::memcpy(bits + i * at.pitch(), bits, (size_t)at.pitch());
  }

  long token_pitch() const { return padded(p_.keys, kGroup) / 8; }

  void draw_windows(uint8_t* bits, const Patch& at, uint32_t c2) const {
    long prefix_pitch = padded(std::max(p_.draw.prefix, (int64_t)1), kGroup) / 8;
    std::vector<uint8_t> whole((size_t)(token_pitch() + prefix_pitch + 8));
    for (long i = 0; i < at.rows; ++i) {
      draw_prefix(whole.data(), at.first + i, c2, prefix_pitch);
      for (long k = p_.draw.prefix; k < p_.keys; ++k) whole[(size_t)(k >> 3)] |= (uint8_t)(1u << (k & 7));
      drop_windows(whole.data(), at.first + i, c2);
      std::memcpy(bits + i * at.pitch(), whole.data() + at.first_key / 8, (size_t)at.pitch());
    }
  }

  void draw_prefix(uint8_t* whole, long i, uint32_t c2, long pitch) const {
    if (p_.draw.prefix) draw_rows(whole, i, 1, 0, pitch, c2, 0, threshold_, key_);
  }

  void drop_windows(uint8_t* whole, long i, uint32_t c2) const {
    uint64_t limit = (uint64_t)*p_.draw.seed_threshold;
    long patches = p_.draw.grid_rows * p_.draw.grid_columns, calls = (patches + 3) / 4;
    uint64_t stream = p_.draw.pattern == kBlock ? 3 : 4;
    Longs blocks = {}, query = Longs{} + (uint64_t)i, head = Longs{} + (uint64_t)c2, kind = Longs{} + stream;
    for (int n = 0; n < kCalls; ++n) blocks[n] = (uint64_t)n;
    for (long call = 0; call < calls; call += kCalls, blocks += (uint64_t)kCalls) {
      Counters x = philox({blocks, query, head, kind}, key_);
      drop_seeded(whole, call * 4, x.c0, limit, patches);
      drop_seeded(whole, call * 4 + 1, x.c1, limit, patches);
      drop_seeded(whole, call * 4 + 2, x.c2, limit, patches);
      drop_seeded(whole, call * 4 + 3, x.c3, limit, patches);
    }
  }

  // Every fourth patch from `first` on has one of these ranks.
  void drop_seeded(uint8_t* whole, long first, Longs ranks, uint64_t limit, long patches) const {
    for (uint32_t hits = lanes_below(ranks, limit); hits; hits &= hits - 1) {
      long patch = first + 4 * __builtin_ctz(hits);
      if (patch < patches) drop_window(whole, patch);
    }
  }

  void drop_window(uint8_t* whole, long patch) const {
    const Draw& draw = p_.draw;
    long reach = draw.window / 2, row = patch / draw.grid_columns, column = patch % draw.grid_columns;
    long top = std::max(row - reach, 0L), bottom = std::min(row + reach, (long)draw.grid_rows - 1);
    long left = std::max(column - reach, 0L), right = std::min(column + reach, (long)draw.grid_columns - 1);
    for (long r = top; r <= bottom; ++r)
      for (long c = left; c <= right; ++c)
        if (draw.pattern == kBlock || r == row || c == column)
          clear_bit(whole, draw.prefix + r * draw.grid_columns + c);
  }

  const Problem& p_;
  Key key_;
  double ratio_;
  uint32_t threshold_;
  std::vector<uint8_t> tokens_;
};

}  // namespace dropkey
