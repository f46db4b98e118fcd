// One vector of W floats in the instruction set that the compiler was asked for, and the few operations on it
// that vector extensions do not spell. Everything else in the kernel is written with plain operators on `Floats`.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace dropkey {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float Floats __attribute__((vector_size(W * 4)));
typedef int32_t Ints __attribute__((vector_size(W * 4)));
typedef uint32_t Words __attribute__((vector_size(W * 4)));
typedef uint64_t Longs __attribute__((vector_size(W * 4)));

INLINE Floats load(const float* p) {
  Floats v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

INLINE void store(float* p, Floats v) { std::memcpy(p, &v, sizeof v); }

INLINE Words load(const uint32_t* p) {
  Words v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

INLINE void store(uint32_t* p, Words v) { std::memcpy(p, &v, sizeof v); }

// Written out: `Floats{} + x` would be an addition, since 0 + -0 is not -0.
INLINE Floats splat(float x) {
#if defined(__AVX512F__)
  return (Floats)_mm512_set1_ps(x);
#elif defined(__AVX2__)
  return (Floats)_mm256_set1_ps(x);
#else
  return Floats{x, x, x, x};
#endif
}

#if defined(__AVX512F__)

INLINE float sum_of(Floats v) { return _mm512_reduce_add_ps((__m512)v); }
INLINE float max_of(Floats v) { return _mm512_reduce_max_ps((__m512)v); }

INLINE void sums_of_four(float* to, const Floats* v) {
  __m512 a = (__m512)v[0], b = (__m512)v[1], c = (__m512)v[2], d = (__m512)v[3];
  __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
  __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

#else

INLINE float sum_of(Floats v) {
  for (int half = W / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  return v[0];
}

INLINE float max_of(Floats v) {
  for (int half = W / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) v[i] = v[i] > v[i + half] ? v[i] : v[i + half];
  return v[0];
}

INLINE void sums_of_four(float* to, const Floats* v) {
  for (int i = 0; i < 4; ++i) to[i] = sum_of(v[i]);
}

#endif

#if defined(__AVX512F__)

typedef __mmask16 Mask;

// Bit i of a bitmap, from bit vector * W on, says what becomes of lane i.
INLINE Mask mask_at(const uint8_t* bits, int vector) {
  uint16_t word;
  std::memcpy(&word, bits + vector * 2, 2);
  return word;
}

INLINE Floats only(Mask mask, Floats v) { return (Floats)_mm512_maskz_mov_ps(mask, (__m512)v); }

INLINE Floats select(Mask mask, Floats yes, Floats no) {
  return (Floats)_mm512_mask_blend_ps(mask, (__m512)no, (__m512)yes);
}

INLINE Floats max(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }

INLINE Floats round_whole(Floats x) {
  return (Floats)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

INLINE Floats times_power2(Floats y, Floats whole) { return (Floats)_mm512_scalef_ps((__m512)y, (__m512)whole); }

#else

typedef Ints Mask;

INLINE Mask mask_at(const uint8_t* bits, int vector) {
  Ints lane;
  for (int i = 0; i < W; ++i) lane[i] = 1 << i;
  int32_t group = W == 8 ? bits[vector] : bits[vector / 2] >> (vector % 2 * 4);
  return ((Ints{} + group) & lane) != 0;
}

INLINE Floats only(Mask mask, Floats v) { return (Floats)((Ints)v & mask); }

INLINE Floats select(Mask mask, Floats yes, Floats no) { return (Floats)(((Ints)yes & mask) | ((Ints)no & ~mask)); }

INLINE Floats max(Floats a, Floats b) { return select(a > b, a, b); }

// Adding 1.5 * 2^23 leaves the nearest whole number in the low bits of the sum.
constexpr float kRounder = 12582912.0f;

INLINE Floats round_whole(Floats x) { return (x + kRounder) - kRounder; }

INLINE Floats times_power2(Floats y, Floats whole) {
  Ints exponent = (Ints)(whole + kRounder) << 23;
  return (Floats)((Ints)y + exponent);
}

#endif

// A factor with the bits that one float has no room for: exponents are products with it, and what it lacks they lack
// many times over.
struct Factor {
  float high, low;
  explicit Factor(double x) : high((float)x), low((float)(x - (float)x)) {}
};

// 2^(x * factor) for products up to about 100, exactly 1 for x = 0, relative error 8e-8 with fused operations (minimax
// polynomial on [-0.5, 0.5]), which also leave the product unrounded; next to nothing far below 0.
INLINE Floats power2(Floats x, Factor factor) {
#if !defined(__AVX512F__)  // which makes 0 of what -inf becomes below
  x = max(splat(-126.0f / factor.high), x);  // in this order NaN stays NaN
#endif
  Floats whole = round_whole(x * splat(factor.high));
  Floats f = x * splat(factor.low) + (x * splat(factor.high) - whole);
  Floats y = splat(0.00015353361925740536f);
  y = y * f + 0.0013398874408107764f;
  y = y * f + 0.009618437357554337f;
  y = y * f + 0.055503324711447685f;
  y = y * f + 0.2402264791363052f;
  y = y * f + 0.6931472028550546f;
  y = y * f + 1.0f;
  return times_power2(y, whole);
}

}  // namespace dropkey
