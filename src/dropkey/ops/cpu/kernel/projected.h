// Self-attention with its linear layers, where only some tokens have keys: what the token pattern leaves to compute.
// Who attends with a head has projected it just before, so that query, key and value come from the cache.
#pragma once
#include "backward.h"
#include "forward.h"
#include "linear.h"

namespace dropkey {

// What one call is about, all float32 and contiguous. N tokens in each of B images, K of them with keys; C the width of
// the layer, E = heads * head_dim, O the width of the output. The binding packs it as 8-byte fields in this very order.
struct Projection {
  int64_t batch, tokens, keys, heads, head_dim, width, out_width, threads;
  double scale;
  float *x, *weight, *bias;                   // (B * N, C); (3 * E, C): query, key, value; (3 * E) or null
  float *out_weight, *out_bias;               // (O, E); (O) or null
  const int64_t* rows;                        // (B, K): the tokens that have keys, as rows of x
  float *kept, *query, *kv, *out;             // (B * K, C): the chosen rows; (B, H, N, D); (2, B, H, K, D); (B, N, E)
  float *sums, *y;                            // as in a problem; (B * N, O)
  float* panels;                              // (3 * E * C + O * E): both weights, packed
  float *grad_y, *grad_query, *grad_kv;       // (B * N, O); (B, N, E); (B, K, 2 * E)
  float *grad_x, *grad_weight, *grad_bias, *grad_out_weight, *grad_out_bias;  // null where they are not asked for
};

class Projected {
 public:
  explicit Projected(const Projection& projection)
      : j(projection), inner(j.heads * j.head_dim), p(attention_of(j, inner)) {}

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
      outs.apply(n, {j.y + b * p.queries * j.out_width + n * kPanel, j.out_width}, joined(p.out, b), p.queries,
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
    auto attend = [&](long item, long after) {
      long b = item / p.heads, h = item % p.heads;
      Problem mine = p;  // but for the gradient of what this head gave, which nobody else reads
      mine.grad_out = {own_rows(), 0, 0, p.head_dim};
      heads.apply(h, mine.grad_out.rows<float>(b, h), {j.grad_y + b * p.queries * j.out_width, j.out_width}, p.queries,
                  nullptr, heads.at((h + 1) % p.heads));
      Backward<float, float>(mine, keep)(item, after);
    };
    share(p.batch * p.heads, p.threads, attend, p.heads);
    auto reduce = [&](long item, long) { reduce_panel(ins, item / in_count, item % in_count); };
    share(p.batch * in_count, p.threads, reduce, in_count);
    weigh();
  }

 private:
  // The attention in the middle, which draws nothing: what was drawn is which tokens have keys.
  static Problem attention_of(const Projection& j, long inner) {
    auto by_heads = [&](float* data, long rows) {
      return Tensor{data, j.heads * rows * j.head_dim, rows * j.head_dim, j.head_dim};
    };
    auto by_images = [&](float* data, long rows, long width) { return Tensor{data, rows * width, j.head_dim, width}; };
    Problem p{};
    p.batch = j.batch, p.heads = p.kv_heads = j.heads, p.queries = j.tokens, p.keys = j.keys;
    p.head_dim = p.value_dim = j.head_dim, p.threads = j.threads, p.scale = j.scale, p.draw.pattern = kNone;
    p.query = by_heads(j.query, j.tokens), p.out = by_images(j.out, j.tokens, inner);
    p.key = by_heads(j.kv, j.keys), p.value = by_heads(j.kv + j.batch * j.keys * inner, j.keys);
    p.grad_query = by_images(j.grad_query, j.tokens, inner);
    p.grad_key = by_images(j.grad_kv, j.keys, 2 * inner);
    p.grad_value = by_images(j.grad_kv + inner, j.keys, 2 * inner);
    p.sums = j.sums;
    return p;
  }

  // Rows of one image with all heads next to each other.
  static Rows<const float> joined(const Tensor& tensor, long b) { return tensor.rows<const float>(b, 0); }

  // Room for one head's rows, of this thread until it asks again.
  float* own_rows() const {
    Arena& memory = arena(1);
    float* rows = nullptr;
    for (bool measuring : {true, false}) {
      memory.begin(measuring);
      rows = memory.take<float>(p.queries * p.head_dim);
    }
    return rows;
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
    ins[0].apply(n, to.from(b * p.queries), joined(p.grad_query, b), p.queries, nullptr, ins[1].at(n));
    ins[1].apply(n, {part, lanes}, joined(p.grad_key, b), p.keys, nullptr,
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
    if (j.grad_out_weight)
      layers.push_back({{j.grad_y, j.out_width}, {j.out, inner}, tokens, j.grad_out_weight,
                        j.grad_out_bias});
    if (j.grad_weight) {
      layers.push_back({{j.grad_query, inner}, {j.x, j.width}, tokens, j.grad_weight, j.grad_bias});
      layers.push_back({{j.grad_kv, 2 * inner}, {j.kept, j.width}, keys, j.grad_weight + inner * j.width,
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

  const Projection& j;
  long inner;
  Problem p;
};

}  // namespace dropkey
