// Re-attention backward, in one pass over the maps. A batch norm's gradient needs two means a head, of its output's
// gradient and of that times its output: both follow from the gradient of `out`, what the forward pass saved and the
// sums of the values, before any map is computed. Up to a constant, which the gradient of the softmax does not see,
//
//   dA_g = sum over h of outer[h][g] dM_h + sum over f of inner[g][f] A_f     dM_h = dOut_h value_h^T
//
// for the weights A of a query, which sum to 1 whatever happens.
#pragma once
#include "mixed_moments.h"
#include "mixed_scores.h"

namespace dropkey {

constexpr long kMixedBackwardRows = 24;  // least number of queries in a tile
constexpr long kMixedParts = 4;          // each has gradients of key and value of its own

template <class T>
class MixedBackward {
 public:
  MixedBackward(const Problem& problem, const Mixing& mixing, const Keep& keep, const MixedMoments<T>& moments)
      : p(problem), m(mixing), moments(moments), by(p, m, moments),
        parts_(p, 2 * p.heads, kMixedBackwardRows, kMixedParts),
        scores(p, keep, parts_.tile), depth(scores.depth), depth_v(width_of<float>(p.value_dim)), pitch(scores.pitch),
        step(2 * p.heads * pitch), products_((size_t)(items() * p.heads * p.heads)),
        grads_(parts_.parts > 1 ? (size_t)(items() * p.heads * p.keys * (depth + depth_v)) : 0) {}

  long items() const { return p.batch * parts_.parts; }

  void operator()(long item, long) const {
    Buffers to = take();
    long b = parts_.image(item), heads = p.heads;
    if (parts_.parts > 1) to.grad_key = grads(item), to.grad_value = to.grad_key + heads * p.keys * depth;
    std::memset(to.grad_key, 0, (size_t)(heads * p.keys * depth) * sizeof(float));
    std::memset(to.grad_value, 0, (size_t)(heads * p.keys * depth_v) * sizeof(float));
    scores.pack_keys(to.scores, b);
    for (long h = 0; h < heads; ++h) {
      pack_along(to.keys + h * scores.width * depth, scores.width, p.key.rows<const T>(b, h), p.keys, p.head_dim);
      scores.pack_panels(to.values + h * scores.width * depth_v, to.scratch, p.value.rows<const T>(b, h), p.value_dim);
    }
    Products products(heads, to.vectors, &products_[(size_t)(item * heads * heads)]);
    for (long t = parts_.begin(item); t < parts_.end(item); ++t) {
      long first = t * parts_.tile;
      run_tile(to, products, b, first, std::min(parts_.tile, p.queries - first));
    }
    products.fold();
    if (parts_.parts == 1)
      for (long h = 0; h < heads; ++h)
        write_head(b, h, to.grad_key + h * p.keys * depth, to.grad_value + h * p.keys * depth_v);
  }

  // Where an image has several parts, their gradients of key and value are added in order.
  void finish() const {
    if (parts_.parts > 1)
      share(p.batch * p.heads, p.threads, [&](long head, long) { add_parts(head / p.heads, head % p.heads); });
    write_factors();
  }

 private:
  struct Buffers {
    typename Scores<T>::Buffers scores;
    float *keys, *values, *scratch;            // rows of the keys, panels of the values, of all heads
    float *queries, *grad_out, *maps, *mixed;  // of a tile of queries, in all heads
    float *grad_query, *grad_key, *grad_value, *vectors, *delta;
  };

  Buffers take() const {
    Arena& memory = arena();
    long own = parts_.parts == 1 ? p.heads * p.keys : 0;
    for (bool measuring : {true, false}) {
      memory.begin(measuring);
      Buffers to;
      to.scores = scores.take(memory);
      to.keys = memory.take<float>(p.heads * scores.width * depth);
      to.values = memory.take<float>(p.heads * scores.width * depth_v);
      to.scratch = memory.take<float>(64 * depth_v);
      to.queries = memory.take<float>(p.heads * parts_.tile * depth);
      to.grad_out = memory.take<float>(p.heads * parts_.tile * depth_v);
      to.maps = memory.take<float>(parts_.tile * step);
      to.mixed = memory.take<float>(p.heads * kMixKeys);
      to.grad_query = memory.take<float>(parts_.tile * depth);
      to.grad_key = memory.take<float>(own * depth);
      to.grad_value = memory.take<float>(own * depth_v);
      to.vectors = memory.take<float>(p.heads * p.heads * W);
      to.delta = memory.take<float>(p.heads * W);
      if (!measuring) return to;
    }
    __builtin_unreachable();
  }

  // Of one query there lie, head by head, first the gradients of the maps that meet the values, then the maps.
  void run_tile(Buffers& to, Products& products, long b, long first, long rows) const {
    long heads = p.heads;
    for (long h = 0; h < heads; ++h) {
      float *queries = to.queries + h * parts_.tile * depth, *grad_out = to.grad_out + h * parts_.tile * depth_v;
      float *slopes = to.maps + h * pitch, *maps = slopes + heads * pitch;
      Patch at{b, h, first, rows, 0, scores.width};
      scores.score(to.scores, at, queries, maps, step);
      scores.weigh_again(to.scores, at, maps, step);
      pack_plain(grad_out, rows, p.grad_out.rows<const T>(b, h).from(first), rows, p.value_dim);
      scores.multiply_panels(slopes, step, grad_out, rows, to.values + h * scores.width * depth_v, p.value_dim);
    }
    for (long i = 0; i < rows; ++i) {
      float *slopes = to.maps + i * step, *maps = slopes + heads * pitch;
      products.add(slopes, maps, pitch, scores.width);
      slope(to, slopes, b, first + i);
      mix_maps(maps, by.outer.data(), heads, pitch, scores.width, to.mixed);
    }
    for (long h = 0; h < heads; ++h) spread(to, b, h, first, rows);
  }

  // Gradients of the mixed maps of one query become gradients of its logits.
  void slope(Buffers& to, float* slopes, long b, long i) const {
    long heads = p.heads;
    const float *maps = slopes + heads * pitch, *highest = sums_of(p, b, 0) + i;
    Floats middle = splat(scores.mean());
    for (long h = 0; h < heads; ++h) store(to.delta + h * W, Floats{});
    for (long k = 0; k < scores.width; k += kMixKeys) {
      long some = std::min(kMixKeys, scores.width - k);
      product(heads, some, (m.training ? 2 : 1) * heads, by.slopes.data(), {2 * heads, 1, kWhole}, slopes + k, pitch,
              to.mixed, kMixKeys, false);
      for (long h = 0; h < heads; ++h) {
        Floats sum = load(to.delta + h * W);
        for (long n = 0; n < some; n += W) {
          Floats slope = load(to.mixed + h * kMixKeys + n);
          sum += slope * (load(maps + h * pitch + k + n) + middle);
          store(slopes + h * pitch + k + n, slope);
        }
        store(to.delta + h * W, sum);
      }
    }
    for (long h = 0; h < heads; ++h) {
      float* row = slopes + h * pitch;
      if (highest[h * p.queries] == kInfinity) {
        fill_zeros(row, scores.width);
        continue;
      }
      Floats mean = splat(sum_of(load(to.delta + h * W)));
      for (long k = 0; k < scores.width; k += W)
        store(row + k, (load(maps + h * pitch + k) + middle) * (load(row + k) - mean));
    }
  }

  // What a tile adds to the three gradients of one head.
  void spread(Buffers& to, long b, long h, long first, long rows) const {
    const float *slopes = to.maps + h * pitch, *maps = slopes + p.heads * pitch;
    const float *queries = to.queries + h * parts_.tile * depth, *grad_out = to.grad_out + h * parts_.tile * depth_v;
    const float* key = to.keys + h * scores.width * depth;
    float *grad_key = to.grad_key + h * p.keys * depth, *grad_value = to.grad_value + h * p.keys * depth_v;
    Operand across{1, step, kWhole}, along{step, 1, kWhole};
    for (long c = 0; c < scores.cut.chunks; ++c) {
      long begin = scores.cut.begin(c), keys = scores.cut.real(c);
      product(keys, depth_v, rows, maps + begin, across, grad_out, depth_v, grad_value + begin * depth_v, depth_v,
              true);
      product(keys, depth, rows, slopes + begin, across, queries, depth, grad_key + begin * depth, depth, true);
      product(rows, depth, keys, slopes + begin, along, key + begin * depth, depth, to.grad_query, depth, c > 0);
    }
    write(p.grad_query.rows<T>(b, h).from(first), to.grad_query, depth, rows, p.head_dim, (float)p.scale);
  }

  // All keys of a head have in common what the offset gives them, and the mean that the maps lack.
  void write_head(long b, long h, const float* grad_key, float* grad_value) const {
    double factor = m.offset[h] + (m.identity ? *m.identity / (double)p.keys : 0.0);
    const double* sums = &moments.grad_sums[(size_t)((b * p.heads + h) * p.value_dim)];
    for (long d = 0; d < p.value_dim; ++d) {
      float common = (float)(factor * sums[d]);
      for (long k = 0; k < p.keys; ++k) grad_value[k * depth_v + d] += common;
    }
    write(p.grad_key.rows<T>(b, h), grad_key, depth, p.keys, p.head_dim, (float)p.scale);
    write(p.grad_value.rows<T>(b, h), grad_value, depth_v, p.keys, p.value_dim, 1);
  }

  void add_parts(long b, long h) const {
    float *key = grads(b * parts_.parts) + h * p.keys * depth;
    float *value = grads(b * parts_.parts) + p.heads * p.keys * depth + h * p.keys * depth_v;
    for (long part = 1; part < parts_.parts; ++part) {
      long further = part * p.heads * p.keys * (depth + depth_v);
      for (long n = 0; n < p.keys * depth; ++n) key[n] += key[n + further];
      for (long n = 0; n < p.keys * depth_v; ++n) value[n] += value[n + further];
    }
    write_head(b, h, key, value);
  }

  void write_factors() const {
    long heads = p.heads;
    double count = (double)p.batch * (double)p.queries * (double)p.keys, identity = 0;
    for (long h = 0; h < heads; ++h) {
      m.grad_gain[h] = (float)moments.gain(h);
      m.grad_offset[h] = (float)moments.offset(h);
      identity += moments.identity(h);
      for (long g = 0; g < heads; ++g) {
        double outer = 0, inner = 0;
        for (long item = 0; item < items(); ++item) outer += products_[(size_t)((item * heads + h) * heads + g)];
        for (long f = 0; m.training && f < heads; ++f)
          inner += by.norm[(size_t)(h * heads + f)] * m.gram[f * heads + g];
        m.grad_theta[h * heads + g] = (float)((m.gain[h] * outer - by.second[(size_t)h] * count * inner) /
                                              std::sqrt(m.var[h] + m.eps));
      }
    }
    if (m.identity) *m.grad_identity = (float)identity;
  }

  float* grads(long item) const { return &grads_[(size_t)(item * p.heads * p.keys * (depth + depth_v))]; }

  const Problem& p;
  const Mixing& m;
  const MixedMoments<T>& moments;
  MixedMatrices by;
  Parts parts_;
  Scores<T> scores;
  long depth, depth_v, pitch, step;
  mutable std::vector<double> products_;  // (item, head, head)
  mutable std::vector<float> grads_;      // of key and value, where parts add to the same
};

template <class T>
static void mix_backward(const Problem& p, const Mixing& m) {
  Keep keep(p);
  MixedMoments<T> moments(p, m);
  share(moments.items(), p.threads, moments);
  MixedBackward<T> pass(p, m, keep, moments);
  share(pass.items(), p.threads, pass);
  pass.finish();
}

}  // namespace dropkey
