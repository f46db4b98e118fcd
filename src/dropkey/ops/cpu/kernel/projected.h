// Self-attention with its linear layers, where only some tokens have keys: what the token pattern leaves to compute.
// Who attends with a head has projected it just before, so that query, key and value come from the cache.
#pragma once
#include "backward.h"
#include "forward.h"
#include "linear.h"

namespace dropkey {

// Beside the problem, whose query, key and value are what is projected; all float32 and contiguous, C the width of the
// layer, E that of the heads together, O that of the output.
struct Projection {
  int64_t width, out_width;
  float *x, *weight, *bias;             // (B * N, C); (3 * E, C): query, key, value; (3 * E) or null
  const int64_t* rows;                  // (B, K): the tokens that have keys, as rows of x
  float* kept;                          // (B * K, C): those rows
  float *out_weight, *out_bias, *y;     // (O, E); (O) or null; (B * N, O)
  float* panels;                        // (3 * E * C + O * E): both weights, packed
  float *grad_y, *grad_x;               // this and the following may be null where they are not asked for
  float *grad_weight, *grad_bias, *grad_out_weight, *grad_out_bias;
};

class Projected {
 public:
  Projected(const Problem& problem, const Projection& projection)
      : p(problem), j(projection), inner(p.heads * p.head_dim) {}

  void forward() const {
    Panels heads{j.panels, 3 * inner, p.head_dim, j.width}, outs{heads.end(), j.out_width, kPanel, inner};
    share(heads.count() + outs.count() + p.batch, p.threads, [&](long item, long) {
      if (item < heads.count()) return heads.pack_outputs(item, j.weight);
      item -= heads.count();
      item < outs.count() ? outs.pack_outputs(item, j.out_weight) : gather(item - outs.count());
    });
    Keep keep(p);
    Forward<float, float> attention(p, keep);
    long parts = attention.items() / (p.batch * p.heads);
    auto attend = [&](long item, long) {
      project(heads, item / p.heads, item % p.heads);
      for (long part = 0; part < parts; ++part) attention(item * parts + part, -1);
    };
    share(p.batch * p.heads, p.threads, attend, p.heads);
    auto output = [&](long item, long) {
      long b = item / outs.count(), n = item % outs.count();
      outs.apply(n, {j.y + b * p.queries * j.out_width + n * kPanel, j.out_width}, joined(p.out, b, inner), p.queries,
                 j.out_bias, outs.at((n + 1) % outs.count()));
    };
    share(p.batch * outs.count(), p.threads, output, outs.count());
  }

  void backward() const {
    Panels heads{j.panels, inner, p.head_dim, j.out_width};
    Panels ins[] = {{heads.end(), j.width, kPanel, inner}, {heads.end() + inner * j.width, j.width, kPanel, 2 * inner}};
    long in_count = j.grad_x ? ins[0].count() : 0;
    share(p.heads + 2 * in_count, p.threads, [&](long item, long) {
      if (item < p.heads) return heads.pack_inputs(item, j.out_weight);
      item -= p.heads;
      ins[item % 2].pack_inputs(item / 2, j.weight + item % 2 * inner * j.width);
    });
    Keep keep(p);
    Backward<float, float> attention(p, keep);
    auto attend = [&](long item, long after) {
      long b = item / p.heads, h = item % p.heads;
      heads.apply(h, p.grad_out.rows<float>(b, h), {j.grad_y + b * p.queries * j.out_width, j.out_width}, p.queries,
                  nullptr, heads.at((h + 1) % p.heads));
      attention(item, after);
    };
    share(p.batch * p.heads, p.threads, attend, p.heads);
    auto reduce = [&](long item, long) { reduce_panel(ins, item / in_count, item % in_count); };
    share(p.batch * in_count, p.threads, reduce, in_count);
    weigh();
  }

 private:
  // Rows of one image with the heads of `tensor` next to each other, `columns` in all.
  static Rows<const float> joined(const Tensor& tensor, long b, long columns) {
    return {tensor.rows<const float>(b, 0).data, columns};
  }

  void gather(long b) const {
    for (long i = b * p.keys; i < (b + 1) * p.keys; ++i)
      std::memcpy(j.kept + i * j.width, j.x + j.rows[i] * j.width, (size_t)j.width * sizeof(float));
  }

  void project(const Panels& heads, long b, long h) const {
    Rows<const float> all{j.x + b * p.queries * j.width, j.width}, kept{j.kept + b * p.keys * j.width, j.width};
    long key = p.heads + h, value = 2 * p.heads + h;
    heads.apply(h, p.query.rows<float>(b, h), all, p.queries, j.bias, heads.at(key));
    heads.apply(key, p.key.rows<float>(b, h), kept, p.keys, j.bias, heads.at(value));
    heads.apply(value, p.value.rows<float>(b, h), kept, p.keys, j.bias, heads.at((h + 1) % p.heads));
  }

  // A panel of the gradient of x, of one image: through the queries of all tokens, keys and values of the kept ones.
  void reduce_panel(const Panels* ins, long b, long n) const {
    Arena& memory = arena();
    float* part = nullptr;
    for (bool measuring : {true, false}) {
      memory.begin(measuring);
      part = memory.take<float>(p.keys * kPanel);
    }
    long lanes = ins[0].lanes(n);
    Rows<float> to{j.grad_x + n * kPanel, j.width};
    ins[0].apply(n, to.from(b * p.queries), joined(p.grad_query, b, inner), p.queries, nullptr, ins[1].at(n));
    ins[1].apply(n, {part, lanes}, joined(p.grad_key, b, 2 * inner), p.keys, nullptr,
                 ins[0].at((n + 1) % ins[0].count()));
    for (long i = 0; i < p.keys; ++i) {
      float* row = to.row(j.rows[b * p.keys + i]);
      for (long d = 0; d < lanes; d += W) store(row + d, load(row + d) + load(part + i * lanes + d));
    }
  }

  // The longest sums first, so that all threads end together.
  void weigh() const {
    std::vector<WeightGradient> layers;
    long tokens = p.batch * p.queries, keys = p.batch * p.keys;
    float *query = p.grad_query.rows<float>(0, 0).data, *kv = p.grad_key.rows<float>(0, 0).data;
    if (j.grad_out_weight)
      layers.push_back({{j.grad_y, j.out_width}, {p.out.rows<float>(0, 0).data, inner}, tokens, j.grad_out_weight,
                        j.grad_out_bias});
    if (j.grad_weight) {
      layers.push_back({{query, inner}, {j.x, j.width}, tokens, j.grad_weight, j.grad_bias});
      layers.push_back({{kv, 2 * inner}, {j.kept, j.width}, keys, j.grad_weight + inner * j.width,
                        j.grad_bias ? j.grad_bias + inner : nullptr});
    }
    auto items = [&](long height) {
      long all = 0;
      for (const WeightGradient& layer : layers) all += layer.items(height);
      return all;
    };
    long height = 384;  // of a tile: the higher, the less is packed
    while (height > 48 && items(height) < 2 * p.threads) height /= 2;
    share(items(height), p.threads, [&](long item, long) {
      for (const WeightGradient& layer : layers) {
        if (item < layer.items(height)) return layer.run(item, height);
        item -= layer.items(height);
      }
    });
  }

  const Problem& p;
  const Projection& j;
  long inner;
};

}  // namespace dropkey
