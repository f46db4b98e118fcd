// The first pass of Re-attention in training: what the norm of the mixed maps needs to know of all maps, the mean
// products of two heads' maps, and the sums of each query, which the later passes read.
#pragma once
#include "mixed_scores.h"

namespace dropkey {

constexpr long kMixedRows = 42;  // least number of queries in a tile
constexpr long kMixedItems = 8;  // as many at least, where there are queries for them

template <class T>
class MixedGram {
 public:
  MixedGram(const Problem& problem, const Keep& keep)
      : p(problem), parts_(p, p.heads, kMixedRows, kMixedItems),
        scores(p, keep, parts_.tile), totals_((size_t)(items() * p.heads * p.heads)) {}

  long items() const { return p.batch * parts_.parts; }

  void operator()(long item, long) const {
    Buffers to = take();
    long b = parts_.image(item), step = p.heads * scores.pitch;
    scores.pack_keys(to.scores, b);
    Products products(p.heads, to.vectors, total(item));
    for (long t = parts_.begin(item); t < parts_.end(item); ++t) {
      long first = t * parts_.tile, rows = std::min(parts_.tile, p.queries - first);
      for (long h = 0; h < p.heads; ++h) {
        Patch at{b, h, first, rows, 0, scores.width};
        scores.score(to.scores, at, to.queries, to.maps + h * scores.pitch, step);
        scores.weigh(to.scores, at, to.maps + h * scores.pitch, step);
      }
      for (long i = 0; i < rows; ++i)
        products.add(to.maps + i * step, to.maps + i * step, scores.pitch, scores.width);
    }
    products.fold();
  }

  // Means over all images, queries and keys, added in the order of the items.
  void finish(const Mixing& m) const {
    double count = (double)p.batch * (double)p.queries * (double)p.keys;
    for (long h = 0; h < p.heads; ++h)
      for (long g = 0; g <= h; ++g) {
        double sum = 0;
        for (long item = 0; item < items(); ++item) sum += total(item)[h * p.heads + g];
        m.gram[h * p.heads + g] = m.gram[g * p.heads + h] = sum / count;
      }
    for (long h = 0; h < p.heads; ++h) {
      m.var[h] = 0;
      for (long g = 0; g < p.heads; ++g)
        for (long f = 0; f < p.heads; ++f)
          m.var[h] += (double)m.theta[h * p.heads + g] * m.gram[g * p.heads + f] * m.theta[h * p.heads + f];
      m.var[h] = std::max(m.var[h], 0.0);
    }
  }

 private:
  struct Buffers {
    typename Scores<T>::Buffers scores;
    float *queries, *maps, *vectors;
  };

  Buffers take() const {
    Arena& memory = arena();
    for (bool measuring : {true, false}) {
      memory.begin(measuring);
      Buffers to;
      to.scores = scores.take(memory);
      to.queries = memory.take<float>(parts_.tile * scores.depth);
      to.maps = memory.take<float>(parts_.tile * p.heads * scores.pitch);
      to.vectors = memory.take<float>(p.heads * p.heads * W);
      if (!measuring) return to;
    }
    __builtin_unreachable();
  }

  double* total(long item) const { return &totals_[(size_t)(item * p.heads * p.heads)]; }

  const Problem& p;
  Parts parts_;
  Scores<T> scores;
  mutable std::vector<double> totals_;  // (item, head, head)
};

}  // namespace dropkey
