// Philox4x32 with 7 rounds (Salmon et al., SC 2011), one counter in each 64-bit lane: the product of two 32-bit words
// fills the lane, and what is left in the upper halves is ignored by the next multiplication.
#pragma once
#include "simd.h"

namespace dropkey {

constexpr int kRounds = 7;
constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
constexpr int kCalls = W / 2;  // counters that one vector holds

struct Key {
  uint32_t low, high;
  explicit Key(int64_t seed) : low((uint32_t)seed), high((uint32_t)((uint64_t)seed >> 32)) {}

  // The key of a round, from 0.
  uint32_t low_of(uint32_t round) const { return low + round * 0x9E3779B9u; }
  uint32_t high_of(uint32_t round) const { return high + round * 0xBB67AE85u; }
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

INLINE Longs differing(Longs a, Longs b, uint64_t c) {
#if defined(__AVX512F__)
  return (Longs)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, _mm512_set1_epi64((long long)c), 0x96);
#else
  return a ^ b ^ c;
#endif
}

INLINE Counters round_of(Counters x, uint32_t k0, uint32_t k1) {
  Longs p0 = product(x.c0, kMultiplier0), p1 = product(x.c2, kMultiplier1);
  return {differing(p1 >> 32, x.c1, k0), p1, differing(p0 >> 32, x.c3, k1), p0};
}

// From counters to words 0 to 3 of each call, in the lower halves of the lanes.
INLINE Counters philox(Counters x, Key key) {
#pragma GCC unroll 7
  for (uint32_t n = 0; n < kRounds; ++n) x = round_of(x, key.low_of(n), key.high_of(n));
  return x;
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
  for (uint32_t n = 0; n < kRounds; ++n) {
    uint64_t p0 = (uint64_t)c0 * kMultiplier0, p1 = (uint64_t)c2 * kMultiplier1;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ key.low_of(n);
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ key.high_of(n);
    c3 = (uint32_t)p0;
  }
  return {{c0, c1, c2, c3}};
}

// The last round of two words of a call, packed into whole lanes: the lower word is upper(product) ^ word ^ key, the
// upper one lower(product).
INLINE Longs last_words(Longs product, Longs word, uint32_t key) {
#if defined(__AVX512F__)
  __m512i halves = _mm512_rol_epi64((__m512i)product, 32);
  return (Longs)_mm512_mask_ternarylogic_epi32(halves, 0x5555, (__m512i)word, _mm512_set1_epi64(key), 0x96);
#else
  return ((product >> 32) ^ ((word ^ (uint64_t)key) & 0xffffffffu)) | product << 32;
#endif
}

// Bit 2 * word + half of byte n: whether that half of call n is not below the threshold (at most 65535). Words 0 and 1,
// and 2 and 3, of lane i are those of call `order(i)`.
INLINE int order(int i) { return W == 4 ? i : i / 2 + i % 2 * (kCalls / 2); }

#if defined(__AVX512F__)

INLINE void keep_bytes(uint8_t* bytes, Longs w01, Longs w23, uint32_t threshold) {
  __m512i limit = _mm512_set1_epi16((short)threshold);
  uint64_t first = _mm512_cmpge_epu16_mask(_mm512_unpacklo_epi64((__m512i)w01, (__m512i)w23), limit);
  uint64_t second = _mm512_cmpge_epu16_mask(_mm512_unpackhi_epi64((__m512i)w01, (__m512i)w23), limit);
  uint64_t both = first | second << 32;
  std::memcpy(bytes, &both, 8);
}

#elif defined(__AVX2__)

INLINE void keep_bytes(uint8_t* bytes, Longs w01, Longs w23, uint32_t threshold) {
  __m256i limit = _mm256_set1_epi16((short)threshold);
  __m256i first = _mm256_unpacklo_epi64((__m256i)w01, (__m256i)w23);
  __m256i second = _mm256_unpackhi_epi64((__m256i)w01, (__m256i)w23);
  first = _mm256_cmpeq_epi16(_mm256_max_epu16(first, limit), first);
  second = _mm256_cmpeq_epi16(_mm256_max_epu16(second, limit), second);
  __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi16(first, second), 0xd8);
  uint32_t both = (uint32_t)_mm256_movemask_epi8(packed);
  std::memcpy(bytes, &both, 4);
}

#else

INLINE void keep_bytes(uint8_t* bytes, Longs w01, Longs w23, uint32_t threshold) {
  for (int n = 0; n < kCalls; ++n) {
    uint32_t byte = 0;
    for (int half = 0; half < 4; ++half) {
      byte |= (uint32_t)((w01[n] >> (16 * half) & 0xffff) >= threshold) << half;
      byte |= (uint32_t)((w23[n] >> (16 * half) & 0xffff) >= threshold) << (half + 4);
    }
    bytes[n] = (uint8_t)byte;
  }
}

#endif

// What the first three rounds make of a vector of key blocks, for any row; a row adds two words of its own.
//   round 1: product 0 depends on the key block, product 1 on neither; word 0 takes in the row.
//   round 2: product 0 depends on the row, product 1 on the key block.
//   round 3: product 0 depends on the key block; product 1 is the first to depend on both.
struct KeyBlocks {
  Longs word2_before, word0, word2, word3;  // before and after round 3, to be combined with the row

  KeyBlocks() = default;

  KeyBlocks(uint64_t first_block, uint32_t head, uint32_t stream, Key key) {
    Longs block;
    for (int i = 0; i < kCalls; ++i) block[i] = first_block + (uint64_t)order(i);
    Counters x = round_of({block, Longs{}, Longs{} + head, Longs{} + stream}, key.low, key.high);
    Longs product1 = product(x.c2, kMultiplier1);
    word2_before = x.c3 ^ (uint64_t)key.high_of(1);
    word0 = product1 ^ (uint64_t)key.low_of(2);
    word3 = product((product1 >> 32) ^ x.c1 ^ (uint64_t)key.low_of(1), kMultiplier0);
    word2 = (word3 >> 32) ^ (uint64_t)key.high_of(2);
  }
};

// The two words of a row: the halves of product 0 of round 2.
struct Row {
  uint64_t upper, lower;

  Row(uint32_t row, uint32_t head, Key key) {
    uint32_t word0 = (uint32_t)((uint64_t)head * kMultiplier1 >> 32) ^ row ^ key.low;
    uint64_t both = (uint64_t)word0 * kMultiplier0;
    upper = both >> 32, lower = both & 0xffffffffu;
  }
};

INLINE void draw_blocks(uint8_t* bytes, const KeyBlocks& blocks, Row row, uint32_t threshold, Key key) {
  Longs product1 = product(blocks.word2_before ^ row.upper, kMultiplier1);
  Counters x = {(product1 >> 32) ^ blocks.word0, product1, blocks.word2 ^ row.lower, blocks.word3};
#pragma GCC unroll 7
  for (uint32_t n = 3; n < kRounds - 1; ++n) x = round_of(x, key.low_of(n), key.high_of(n));
  constexpr uint32_t last = kRounds - 1;
  keep_bytes(bytes, last_words(product(x.c2, kMultiplier1), x.c1, key.low_of(last)),
             last_words(product(x.c0, kMultiplier0), x.c3, key.high_of(last)), threshold);
}

constexpr long kSegment = 64;  // vectors of key blocks that are made ready at once

// Keep bits of `rows` rows, `per_row` bytes each from key block `first_block` on; may write up to kCalls - 1 bytes more.
static void draw_rows(uint8_t* bits, long first_row, long rows, long first_block, long per_row, uint32_t head,
                      uint32_t stream, uint32_t threshold, Key key) {
  if (threshold > 65535) {
    std::memset(bits, 0, (size_t)(rows * per_row));
    return;
  }
  KeyBlocks ready[kSegment];
  long vectors = (per_row + kCalls - 1) / kCalls;
  // The end of a row is written over the beginning of the next, so beginnings come last.
  for (long past = vectors, from; past > 0; past = from) {
    from = (past - 1) / kSegment * kSegment;
    for (long n = from; n < past; ++n)
      ready[n - from] = KeyBlocks((uint64_t)(first_block + n * kCalls), head, stream, key);
    for (long i = 0; i < rows; ++i) {
      Row row((uint32_t)(first_row + i), head, key);
      uint8_t* to = bits + i * per_row;
      for (long n = from; n < past; ++n) draw_blocks(to + n * kCalls, ready[n - from], row, threshold, key);
    }
  }
}

}  // namespace dropkey
