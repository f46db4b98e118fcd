// What happens to one row of a tile between the products.
#pragma once
#include "keep.h"

namespace dropkey {

INLINE bool any_bit(const uint8_t* bits, long bytes) {
  uint16_t any = 0, word;
  for (long n = 0; n < bytes; n += 2) {
    std::memcpy(&word, bits + n, 2);
    any |= word;
  }
  return any != 0;
}

// The highest logits of a head; one over the sums of its weights lie batch * heads * queries further.
INLINE float* sums_of(const Problem& p, long b, long h) { return p.sums + (b * p.heads + h) * p.queries; }

// Bits of all rows of a tile; a row that keeps none is shown all that it is allowed, and marked.
static void draw_tile(const Keep& keep, const Patch& at, uint8_t* bits, uint8_t* allowed, uint8_t* uniform) {
  keep.draw(bits, at);
  bool alike = keep.draws_all_alike() && keep.allows_all_alike();
  for (long i = 0; i < at.rows; ++i) {
    uint8_t* row = bits + i * at.pitch();
    if (alike && i > 0) {
      std::memcpy(row, bits, (size_t)at.pitch());
      uniform[i] = uniform[0];
      continue;
    }
    if (i == 0 || !keep.allows_all_alike()) keep.allow(allowed, at, at.first + i);
    if (keep.forbids())
      for (long n = 0; n < at.pitch(); ++n) row[n] &= allowed[n];
    else
      for (long n = at.pitch() - 2; n < at.pitch(); ++n) row[n] &= allowed[n];
    uniform[i] = !any_bit(row, at.pitch());
    if (uniform[i]) std::memcpy(row, allowed, (size_t)at.pitch());
  }
}

// The same bits for a part of the keys, where rows without a kept key are known by their infinite maximum.
static void redraw_tile(const Keep& keep, const Patch& at, uint8_t* bits, uint8_t* allowed, const float* highest) {
  keep.draw(bits, at);
  bool last = at.first_key + at.keys > keep.keys(), known = false;
  for (long i = 0; i < at.rows; ++i) {
    uint8_t* row = bits + i * at.pitch();
    bool uniform = highest[at.first + i] == kInfinity;
    if (!uniform && !last && !keep.forbids()) continue;
    if (!known || !keep.allows_all_alike()) keep.allow(allowed, at, at.first + i);
    known = true;
    if (uniform)
      std::memcpy(row, allowed, (size_t)at.pitch());
    else
      for (long n = keep.forbids() ? 0 : at.pitch() - 2; n < at.pitch(); ++n) row[n] &= allowed[n];
  }
}

// The bias gathered so that a broadcast or strided one costs no more than another.
static void load_bias(float* to, const Problem& p, long b, long h, long i, long first, long keys) {
  const float* bias = p.bias.row<const float>(b, h, i) + first * p.bias.key;
  long real = std::min(keys, p.keys - first);
  if (p.bias.key == 1)
    for (long k = 0; k < real; ++k) to[k] = bias[k];
  else
    for (long k = 0; k < real; ++k) to[k] = bias[k * p.bias.key];
  for (long k = real; k < keys; ++k) to[k] = 0;
}

// Scaled logits with the bias on them, rounded once.
static void add_bias(float* logits, const float* bias, float scale, long keys) {
  for (long k = 0; k < keys; k += W) store(logits + k, fused(load(logits + k), splat(scale), load(bias + k)));
}

static void add_slopes(const Problem& p, long b, long h, long i, long first, const float* slopes, long keys) {
  float* to = p.grad_bias.row<float>(b, h, i) + first * p.grad_bias.key;
  for (long k = 0; k < std::min(keys, p.keys - first); ++k) to[k * p.grad_bias.key] += slopes[k];
}

static float highest_kept(const float* logits, const uint8_t* bits, long keys) {
  Floats lowest = splat(-kInfinity), highest[4] = {lowest, lowest, lowest, lowest};  // one alone would wait for itself
  long k = 0;
  for (; k + 4 * W <= keys; k += 4 * W)
#pragma GCC unroll 4
    for (int n = 0; n < 4; ++n)
      highest[n] = max(highest[n], select(mask_at(bits, (int)(k / W) + n), load(logits + k + n * W), lowest));
  for (; k < keys; k += W)
    highest[0] = max(highest[0], select(mask_at(bits, (int)(k / W)), load(logits + k), lowest));
  return max_of(max(max(highest[0], highest[1]), max(highest[2], highest[3])));
}

static bool any_kept_nan(const float* logits, const uint8_t* bits, long keys) {
  for (long k = 0; k < keys; ++k)
    if (bit(bits, k) && logits[k] != logits[k]) return true;
  return false;
}

// weights = 2^(unit * (logits - highest)) for the kept keys, 0 for the others; returns their sum. Subtracting first makes
// the weight of the highest exactly 1, so that a lone key hands on its value as it is.
template <class V>
static float exponentiate(V* weights, const float* logits, const uint8_t* bits, Factor unit, float highest, long keys) {
  Floats total = {}, origin = splat(highest);
  for (long k = 0; k < keys; k += W) {
    Floats weight = only(mask_at(bits, (int)(k / W)), power2(load(logits + k) - origin, unit));
    total += weight;
    store(weights + k, weight);
  }
  return sum_of(total);
}

// In place: logits to weights, and products (of gradient and value) to gradients of the logits, which are
// weight * (product - delta); a row that is held whole has the sum of weight * product as its delta.
static void weigh(float* logits, float* products, const uint8_t* bits, Factor unit, float highest, float share,
                  const float* delta, long keys) {
  Floats origin = splat(highest), part = splat(share);
  auto weight = [&](long k) {
    return only(mask_at(bits, (int)(k / W)), power2(load(logits + k) - origin, unit) * part);
  };
  if (delta) {
    Floats mean = splat(*delta);
    for (long k = 0; k < keys; k += W) {
      Floats w = weight(k);
      store(logits + k, w);
      store(products + k, w * (load(products + k) - mean));
    }
    return;
  }
  Floats total = {};
  for (long k = 0; k < keys; k += W) {
    Floats w = weight(k);
    total += w * load(products + k);
    store(logits + k, w);
  }
  // The mean once more, of what is left: a weight close to 1 takes nearly all of its product away, and what remains is
  // exact only if the mean is. It also mends weights of rounded queries and keys, which do not sum to 1.
  Floats mean = splat(sum_of(total)), rest = {};
  for (long k = 0; k < keys; k += W) {
    Floats left = load(products + k) - mean;
    rest += load(logits + k) * left;
    store(products + k, left);
  }
  // Less than float64 could tell from the mean counts as nothing, as it does in the reference.
  float little = sum_of(rest);
  mean = splat(std::fabs(little) > 1.1e-16f * std::fabs(mean[0]) ? little : 0);
  for (long k = 0; k < keys; k += W) store(products + k, load(logits + k) * (load(products + k) - mean));
}

static void fill_share(float* weights, const uint8_t* bits, float share, long keys) {
  for (long k = 0; k < keys; ++k) weights[k] = bit(bits, k) ? share : 0.0f;
}

template <class T>
static void write_row(T* to, const float* from, long columns, float factor) {
  long whole = columns / W * W;
  for (long d = 0; d < whole; d += W) store(to + d, load(from + d) * splat(factor));
  if (columns > whole) store_part(to + whole, load(from + whole) * splat(factor), columns - whole);
}

template <class T>
static void write(Rows<T> to, const float* from, long pitch, long rows, long columns, float factor) {
  for (long i = 0; i < rows; ++i) write_row(to.row(i), from + i * pitch, columns, factor);
}

// Pair n holds key n of two neighboring queries.
static void store_pairs(Pair* to, const float* even, const float* odd, long keys) {
  for (long k = 0; k < keys; k += W) {
    Words low = __builtin_convertvector(narrow(load(even + k)), Words);
    Words high = __builtin_convertvector(narrow(load(odd + k)), Words);
    store(&to[k].bits, low | high << 16);
  }
}

static void store_row(Half* to, const float* from, long keys) {
  for (long k = 0; k < keys; k += W) store(to + k, load(from + k));
}

template <class V>
static float fill_ones(V* weights, const uint8_t* bits, long keys) {
  long count = 0;
  for (long k = 0; k < keys; ++k) {
    count += bit(bits, k);
    narrow(weights + k, bit(bits, k) ? 1.0f : 0.0f);
  }
  return (float)count;
}

template <class V>
static void fill_zeros(V* weights, long keys) {
  std::memset(weights, 0, (size_t)keys * sizeof(V));
}

}  // namespace dropkey
