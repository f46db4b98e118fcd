// Philox4x32 with 7 rounds (Salmon et al., SC 2011), one counter in each 64-bit lane: the product of two 32-bit words
// fills the lane, and what is left in the upper halves is ignored by the next multiplication.
#pragma once
#include "simd.h"

namespace dropkey {

constexpr int kRounds = 7;
constexpr int kCalls = W / 2;  // counters that one vector holds

struct Key {
  uint32_t low, high;
  explicit Key(int64_t seed) : low((uint32_t)seed), high((uint32_t)((uint64_t)seed >> 32)) {}
};

struct Counters {
  Longs c0, c1, c2, c3;
};

INLINE Longs product(Longs a, uint32_t b) {
#if defined(__AVX512F__)
  return (Longs)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64((long long)b));
#elif defined(__AVX2__)
  return (Longs)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x((long long)b));
#else
  return (a & 0xffffffffu) * (uint64_t)b;
#endif
}

INLINE Counters round_of(Counters x, uint32_t k0, uint32_t k1) {
  Longs p0 = product(x.c0, 0xD2511F53u), p1 = product(x.c2, 0xCD9E8D57u);
  return {(p1 >> 32) ^ x.c1 ^ (uint64_t)k0, p1, (p0 >> 32) ^ x.c3 ^ (uint64_t)k1, p0};
}

// From counters to words 0 to 3 of each call, in the lower halves of the lanes.
INLINE Counters philox(Counters x, Key key) {
#pragma GCC unroll 7
  for (uint32_t n = 0; n < kRounds; ++n) x = round_of(x, key.low + n * 0x9E3779B9u, key.high + n * 0xBB67AE85u);
  return x;
}

INLINE void philox_two(Counters& x, Counters& y, Key key) {
#pragma GCC unroll 7
  for (uint32_t n = 0; n < kRounds; ++n) {
    x = round_of(x, key.low + n * 0x9E3779B9u, key.high + n * 0xBB67AE85u);
    y = round_of(y, key.low + n * 0x9E3779B9u, key.high + n * 0xBB67AE85u);
  }
}

// One bit for each lane whose lower half is below the limit.
INLINE uint32_t lanes_below(Longs words, uint64_t limit) {
  Longs below = (Longs)((words & 0xffffffffu) < limit);
#if defined(__AVX512F__)
  return _mm512_movepi64_mask((__m512i)below);
#elif defined(__AVX2__)
  return (uint32_t)_mm256_movemask_pd((__m256d)below);
#else
  uint32_t bits = 0;
  for (int i = 0; i < kCalls; ++i) bits |= (uint32_t)(below[i] & 1) << i;
  return bits;
#endif
}

struct Block4 {
  uint32_t word[4];
};

static Block4 philox_once(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, Key key) {
  uint32_t k0 = key.low, k1 = key.high;
  for (int round = 0; round < kRounds; ++round) {
    uint64_t p0 = (uint64_t)c0 * 0xD2511F53u, p1 = (uint64_t)c2 * 0xCD9E8D57u;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// The calls of a run of rows, one after the other: key block c0 of row c1, `per_row` key blocks a row.
struct Walk {
  uint64_t per_row, first_row, first_block, call;
  Longs c0, c1;

  Walk(uint64_t row, uint64_t block, uint64_t blocks) : per_row(blocks), first_row(row), first_block(block), call(0) {
    place();
  }

  // Which call lane i draws, so that `keep_bytes` finds the calls in order after its shuffle.
  static int order(int i) { return W == 4 ? i : i / 2 + i % 2 * (kCalls / 2); }

  void place() {
    for (int i = 0; i < kCalls; ++i) {
      uint64_t mine = call + (uint64_t)order(i);
      c0[i] = first_block + mine % per_row;
      c1[i] = first_row + mine / per_row;
    }
  }

  void advance() {
    call += kCalls;
    if (per_row < kCalls) return place();
    c0 += kCalls;
    Longs over = (Longs)(c0 >= first_block + per_row);
    c0 -= over & per_row;
    c1 -= over;
  }
};

// Bit 2 * word + half of byte n: whether that half of call n is not below the threshold (at most 65535).
#if defined(__AVX512F__)

INLINE void keep_bytes(uint8_t* bytes, Counters x, uint32_t threshold) {
  __m512i lower = _mm512_set1_epi64(0xffffffff), limit = _mm512_set1_epi16((short)threshold);
  __m512i w01 = _mm512_or_si512(_mm512_and_si512((__m512i)x.c0, lower), _mm512_slli_epi64((__m512i)x.c1, 32));
  __m512i w23 = _mm512_or_si512(_mm512_and_si512((__m512i)x.c2, lower), _mm512_slli_epi64((__m512i)x.c3, 32));
  uint64_t first = _mm512_cmpge_epu16_mask(_mm512_unpacklo_epi64(w01, w23), limit);
  uint64_t second = _mm512_cmpge_epu16_mask(_mm512_unpackhi_epi64(w01, w23), limit);
  uint64_t both = first | second << 32;
  std::memcpy(bytes, &both, 8);
}

#elif defined(__AVX2__)

INLINE void keep_bytes(uint8_t* bytes, Counters x, uint32_t threshold) {
  __m256i lower = _mm256_set1_epi64x(0xffffffff), limit = _mm256_set1_epi16((short)threshold);
  __m256i w01 = _mm256_or_si256(_mm256_and_si256((__m256i)x.c0, lower), _mm256_slli_epi64((__m256i)x.c1, 32));
  __m256i w23 = _mm256_or_si256(_mm256_and_si256((__m256i)x.c2, lower), _mm256_slli_epi64((__m256i)x.c3, 32));
  __m256i first = _mm256_unpacklo_epi64(w01, w23), second = _mm256_unpackhi_epi64(w01, w23);
  first = _mm256_cmpeq_epi16(_mm256_max_epu16(first, limit), first);
  second = _mm256_cmpeq_epi16(_mm256_max_epu16(second, limit), second);
  __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi16(first, second), 0xd8);
  uint32_t both = (uint32_t)_mm256_movemask_epi8(packed);
  std::memcpy(bytes, &both, 4);
}

#else

INLINE void keep_bytes(uint8_t* bytes, Counters x, uint32_t threshold) {
  for (int n = 0; n < kCalls; ++n) {
    uint64_t words[4] = {x.c0[n], x.c1[n], x.c2[n], x.c3[n]};
    uint32_t byte = 0;
    for (int w = 0; w < 4; ++w) {
      byte |= (uint32_t)((words[w] & 0xffff) >= threshold) << (2 * w);
      byte |= (uint32_t)((words[w] >> 16 & 0xffff) >= threshold) << (2 * w + 1);
    }
    bytes[n] = (uint8_t)byte;
  }
}

#endif

// Keep bits of `rows` rows, `per_row` bytes each from key block `first_block` on; may write up to kCalls - 1 bytes more.
static void draw_rows(uint8_t* bits, long first_row, long rows, long first_block, long per_row, uint32_t c2,
                      uint32_t stream, uint32_t threshold, Key key) {
  long total = rows * per_row;
  if (threshold > 65535) {
    std::memset(bits, 0, (size_t)total);
    return;
  }
  Walk walk((uint64_t)first_row, (uint64_t)first_block, (uint64_t)per_row);
  Longs head = Longs{} + c2, kind = Longs{} + stream;
  long done = 0;
  // Two at a time: one alone waits for its own multiplications.
  for (; done + kCalls < total; done += 2 * kCalls) {
    Counters first = {walk.c0, walk.c1, head, kind};
    walk.advance();
    Counters second = {walk.c0, walk.c1, head, kind};
    walk.advance();
    philox_two(first, second, key);
    keep_bytes(bits + done, first, threshold);
    keep_bytes(bits + done + kCalls, second, threshold);
  }
  for (; done < total; done += kCalls, walk.advance())
    keep_bytes(bits + done, philox({walk.c0, walk.c1, head, kind}, key), threshold);
}

}  // namespace dropkey
