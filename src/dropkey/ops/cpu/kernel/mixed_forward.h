// Re-attention forward. What maps are normalized by follows from the products of centered maps: in training a pass of
// its own adds them up, in evaluation it is known. Then one matrix mixes and normalizes, tile by tile.
#pragma once
#include "mixed_gram.h"

namespace dropkey {

template <class T>
class MixedForward {
 public:
  MixedForward(const Problem& problem, const Mixing& mixing, const Keep& keep)
      : p(problem), m(mixing), parts_(p, p.heads, kMixedRows, kMixedItems),
        scores(p, keep, parts_.tile), out_width(padded(p.value_dim, 16)) {
    for (double x : normalizing(p, m)) matrix_.push_back((float)x);
  }

  long items() const { return p.batch * parts_.parts; }

  void operator()(long item, long) const {
    Buffers to = take();
    long b = parts_.image(item);
    scores.pack_keys(to.scores, b);
    for (long h = 0; h < p.heads; ++h) pack_value(to, b, h);
    for (long t = parts_.begin(item); t < parts_.end(item); ++t) {
      long first = t * parts_.tile;
      run_tile(to, b, first, std::min(parts_.tile, p.queries - first));
    }
  }

 private:
  struct Buffers {
    typename Scores<T>::Buffers scores;
    float *values, *sums, *queries, *maps, *mixed, *out;
  };

  Buffers take() const {
    Arena& memory = arena();
    for (bool measuring : {true, false}) {
      memory.begin(measuring);
      Buffers to;
      to.scores = scores.take(memory);
      to.values = memory.take<float>(p.heads * scores.width * out_width);
      to.sums = memory.take<float>(p.heads * out_width);
      to.queries = memory.take<float>(parts_.tile * scores.depth);
      to.maps = memory.take<float>(parts_.tile * p.heads * scores.pitch);
      to.mixed = memory.take<float>(p.heads * kMixKeys);
      to.out = memory.take<float>(parts_.tile * out_width);
      if (!measuring) return to;
    }
    __builtin_unreachable();
  }

  void pack_value(Buffers& to, long b, long h) const {
    float *values = to.values + h * scores.width * out_width, *sums = to.sums + h * out_width;
    pack_along(values, scores.width, p.value.rows<const T>(b, h), p.keys, p.value_dim);
    std::vector<double> sum((size_t)out_width);
    add_rows(sum.data(), values, out_width, p.keys, out_width);
    for (long d = 0; d < out_width; ++d) sums[d] = (float)sum[(size_t)d];
  }

  void run_tile(Buffers& to, long b, long first, long rows) const {
    long step = p.heads * scores.pitch;
    for (long h = 0; h < p.heads; ++h) {
      Patch at{b, h, first, rows, 0, scores.width};
      float* maps = to.maps + h * scores.pitch;
      scores.score(to.scores, at, to.queries, maps, step);
      if (m.training)
        scores.weigh_again(to.scores, at, maps, step);
      else
        scores.weigh(to.scores, at, maps, step);
    }
    for (long i = 0; i < rows; ++i)
      mix_maps(to.maps + i * step, matrix_.data(), p.heads, scores.pitch, scores.width, to.mixed);
    for (long h = 0; h < p.heads; ++h) {
      const float* values = to.values + h * scores.width * out_width;
      for (long c = 0; c < scores.cut.chunks; ++c) {
        long begin = scores.cut.begin(c), keys = scores.cut.real(c);
        product(rows, out_width, keys, to.maps + h * scores.pitch + begin, {step, 1, kWhole},
                values + begin * out_width, out_width, to.out, out_width, c > 0);
      }
      finish(to, b, h, first, rows);
    }
  }

  void finish(Buffers& to, long b, long h, long first, long rows) const {
    write(m.mixed.rows<T>(b, h).from(first), to.out, out_width, rows, p.value_dim, 1);
    Rows<T> out = p.out.rows<T>(b, h).from(first);
    const float* sums = to.sums + h * out_width;
    for (long i = 0; i < rows; ++i) {
      float* row = to.out + i * out_width;
      for (long d = 0; d < p.value_dim; ++d) row[d] = m.gain[h] * row[d] + m.offset[h] * sums[d];
      if (m.identity) {
        const T* plain = m.plain.rows<const T>(b, h).row(first + i);
        for (long d = 0; d < p.value_dim; ++d) row[d] += *m.identity * widen(plain[d]);
      }
      write_row(out.row(i), row, p.value_dim, 1);
    }
  }

  const Problem& p;
  const Mixing& m;
  Parts parts_;
  Scores<T> scores;
  long out_width;
  std::vector<float> matrix_;
};

template <class T>
static void mix_forward(const Problem& p, const Mixing& m) {
  Keep keep(p);
  if (m.training) {
    MixedGram<T> gram(p, keep);
    share(gram.items(), p.threads, gram);
    gram.finish(m);
  }
  MixedForward<T> pass(p, m, keep);
  share(pass.items(), p.threads, pass);
}

}  // namespace dropkey
