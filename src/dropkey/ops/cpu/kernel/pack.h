// Copies of the operands in the order in which the products read them: rows padded with zeros to whole vectors,
// and panels whose lanes are neighboring keys.
#pragma once
#include <utility>

#include "simd.h"

namespace dropkey {

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Ints{__VA_ARGS__})
#endif

typedef uint16_t Half;  // bfloat16
typedef Half Halves __attribute__((vector_size(W * 2)));

INLINE float widen(float x) { return x; }

INLINE float widen(Half x) {
  uint32_t bits = (uint32_t)x << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}

INLINE void narrow(float* to, float x) { *to = x; }

INLINE void narrow(Half* to, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  *to = nan ? (Half)(bits >> 16 | 0x40) : (Half)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

template <class T>
struct Rows {
  T* data;
  long step;  // elements from one row to the next
  T* row(long i) const { return data + i * step; }
  Rows from(long i) const { return {data + i * step, step}; }
};

INLINE long padded(long n, long to) { return (n + to - 1) / to * to; }

INLINE Floats load_part(const float* p, long n) {
#if defined(__AVX512F__) && !defined(__SANITIZE_ADDRESS__)  // which sees plain reads alone
  return (Floats)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
  Floats v = {};
  std::memcpy(&v, p, (size_t)n * sizeof(float));
  return v;
#endif
}

INLINE Floats widen(Halves v) { return (Floats)(__builtin_convertvector(v, Words) << 16); }

INLINE Halves narrow(Floats v) {
#if defined(__AVX512BF16__)
  return (Halves)_mm512_cvtneps_pbh((__m512)v);
#else
  Words bits = (Words)v, rounded = bits + 0x7fff + (bits >> 16 & 1), quiet = bits | 0x400000;
  Words nan = (Words)(v != v);
  return __builtin_convertvector(((rounded & ~nan) | (quiet & nan)) >> 16, Halves);
#endif
}

INLINE Floats load(const Half* p) {
  Halves v;
  std::memcpy(&v, p, sizeof v);
  return widen(v);
}

INLINE Floats load_part(const Half* p, long n) {
  Halves v = {};
  std::memcpy(&v, p, (size_t)n * sizeof(Half));
  return widen(v);
}

INLINE void store(Half* p, Floats v) {
  Halves half = narrow(v);
  std::memcpy(p, &half, sizeof half);
}

template <class T>
INLINE void store_part(T* p, Floats v, long n) {
  T all[W];
  store(all, v);
  std::memcpy(p, all, (size_t)n * sizeof(T));
}

constexpr long kAhead = 8;  // rows: they lie far apart, where the hardware does not look ahead

template <class T>
INLINE void fetch(const T* row, long columns) {
  for (long d = 0; d < columns; d += 64 / (long)sizeof(T)) __builtin_prefetch(row + d);
}

// to[i][0..columns) = from[i], zeros to the right up to `width` and below the last of `rows` down to `height`.
template <class S, class T>
static void pack_rows(S* to, long width, long height, Rows<const T> from, long rows, long columns) {
  long whole = columns / W * W;
  for (long i = 0; i < rows; ++i, to += width) {
    const T* source = from.row(i);
    if (i + kAhead < rows) fetch(from.row(i + kAhead), columns);
    for (long d = 0; d < whole; d += W) store(to + d, load(source + d));
    if (whole == width) continue;
    if (columns > whole) store(to + whole, load_part(source + whole, columns - whole));
    for (long d = padded(columns, W); d < width; d += W) store(to + d, Floats{});
  }
  std::memset(to, 0, (size_t)((height - rows) * width) * sizeof(S));
}

// One round of a transposition: of two rows, `upper` takes the lanes that lie in the upper half of their squares.
template <int HALF, int... I>
INLINE Words upper(Words a, Words b, std::integer_sequence<int, I...>) {
  return SHUFFLE(a, b, (I & HALF ? W + I - HALF : I)...);
}

template <int HALF, int... I>
INLINE Words lower(Words a, Words b, std::integer_sequence<int, I...>) {
  return SHUFFLE(a, b, (I & HALF ? W + I : I + HALF)...);
}

template <int HALF>
INLINE void mirror(Words* row) {
  constexpr auto all = std::make_integer_sequence<int, W>();
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) {
    if (i & HALF) continue;
    Words a = row[i], b = row[i + HALF];
    row[i] = upper<HALF>(a, b, all);
    row[i + HALF] = lower<HALF>(a, b, all);
  }
  if constexpr (HALF > 1) mirror<HALF / 2>(row);
}

INLINE Words load_words(const uint32_t* p) { return load(p); }
INLINE Words load_words(const float* p) { return (Words)load(p); }
INLINE Words load_words(const Half* p) { return (Words)load(p); }

template <class T>
INLINE void transpose_square(uint32_t* to, long ldt, const T* from, long ldf) {
  Words row[W];
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) row[i] = load_words(from + i * ldf);
  mirror<W / 2>(row);
#pragma GCC unroll 16
  for (int i = 0; i < W; ++i) store(to + i * ldt, row[i]);
}

// to[d][j] = from[j][d] for whole vectors in both directions.
template <class T>
static void transpose(void* to, long ldt, const T* from, long ldf, long rows, long columns) {
  for (long j = 0; j < rows; j += W)
    for (long d = 0; d < columns; d += W)
      transpose_square((uint32_t*)to + d * ldt + j, ldt, from + j * ldf + d, ldf);
}

}  // namespace dropkey
