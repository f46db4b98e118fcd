// The entry points: plain C, called through ctypes.
#include "backward.h"
#include "forward.h"
#include "mixed_backward.h"
#include "mixed_forward.h"
#include "projected.h"

namespace dropkey {

#if defined(DROPKEY_TILES)
// Whoever does an item has tile registers for as long.
template <class Pass>
struct OnTiles {
  Pass pass;
  long items() const { return pass.items(); }
  void operator()(long item, long after) const {
    Tiles mine;
    pass(item, after);
  }
};

static int refusal() { return ask_for_tiles(); }
#else
static int refusal() { return 0; }
#endif

template <template <class, class> class Pass>
static void run(const Problem& p) {
  Keep keep(p);
  auto go = [&](const auto& pass) { share(pass.items(), p.threads, pass, std::max(pass.items() / p.batch, 1L)); };
  if (!p.half) return go(Pass<float, float>(p, keep));
#if defined(DROPKEY_TILES)
  go(OnTiles<Pass<Half, Pair>>{{p, keep}});
#elif defined(__AVX512BF16__)
  go(Pass<Half, Pair>(p, keep));
#else
  go(Pass<Half, float>(p, keep));
#endif
}

// One bool for each (batch, head, query, key): whether the draw keeps it.
static void fill_mask(const Problem& p, uint8_t* mask) {
  Keep keep(p);
  long width = padded(p.keys, kGroup);
  share(p.batch * p.heads, p.threads, [&](long head, long) {
    std::vector<uint8_t> bits((size_t)(width / 8 + 16));
    for (long i = 0; i < p.queries; ++i) {
      keep.draw(bits.data(), {head / p.heads, head % p.heads, i, 1, 0, width});
      uint8_t* row = mask + (head * p.queries + i) * p.keys;
      for (long k = 0; k < p.keys; ++k) row[k] = bit(bits.data(), k);
    }
  });
}

// Which tokens of each image the token pattern keeps, `kept` of each, as rows of all images' tokens, in their order.
static void list_tokens(const Problem& p, long kept, int64_t* rows) {
  share(p.batch, p.threads, [&](long b, long) {
    std::vector<uint8_t> bits((size_t)(p.keys / 8 + 1));
    draw_tokens(bits.data(), p, b);
    int64_t* row = rows + b * kept;
    for (long k = 0; k < p.keys; ++k)
      if (bit(bits.data(), k)) *row++ = b * p.keys + k;
  });
}

}  // namespace dropkey

#define EXPORT extern "C" __attribute__((visibility("default")))

// What the system has against the instructions of this library: an errno, or 0.
EXPORT int64_t dropkey_refusal() { return dropkey::refusal(); }
EXPORT int64_t dropkey_problem_bytes() { return sizeof(dropkey::Problem); }
EXPORT void dropkey_use_pool(void* gomp_parallel) { dropkey::gomp_parallel = (dropkey::GompParallel)gomp_parallel; }
EXPORT void dropkey_forward(const void* problem) { dropkey::run<dropkey::Forward>(*(const dropkey::Problem*)problem); }
EXPORT void dropkey_backward(const void* problem) {
  dropkey::run<dropkey::Backward>(*(const dropkey::Problem*)problem);
}
EXPORT void dropkey_mask(const void* problem, void* mask) {
  dropkey::fill_mask(*(const dropkey::Problem*)problem, (uint8_t*)mask);
}
EXPORT void dropkey_tokens(const void* drop_ratio, const void* seed, int64_t batch, int64_t heads, int64_t keys,
                           int64_t kept, int64_t threads, void* rows) {
  dropkey::Problem p{};
  p.batch = batch, p.heads = heads, p.keys = keys, p.threads = threads;
  p.draw.drop_ratio = (const double*)drop_ratio, p.draw.seed = (const int64_t*)seed;
  dropkey::list_tokens(p, kept, (int64_t*)rows);
}

EXPORT int64_t dropkey_projection_bytes() { return sizeof(dropkey::Projection); }
EXPORT void dropkey_projected_forward(const void* projection) {
  dropkey::Projected(*(const dropkey::Projection*)projection).forward();
}
EXPORT void dropkey_projected_backward(const void* projection) {
  dropkey::Projected(*(const dropkey::Projection*)projection).backward();
}

EXPORT int64_t dropkey_mixing_bytes() { return sizeof(dropkey::Mixing); }
EXPORT void dropkey_mixed_forward(const void* problem, const void* mixing) {
  auto &p = *(const dropkey::Problem*)problem;
  auto &m = *(const dropkey::Mixing*)mixing;
  p.half ? dropkey::mix_forward<dropkey::Half>(p, m) : dropkey::mix_forward<float>(p, m);
}
EXPORT void dropkey_mixed_backward(const void* problem, const void* mixing) {
  auto &p = *(const dropkey::Problem*)problem;
  auto &m = *(const dropkey::Mixing*)mixing;
  p.half ? dropkey::mix_backward<dropkey::Half>(p, m) : dropkey::mix_backward<float>(p, m);
}
