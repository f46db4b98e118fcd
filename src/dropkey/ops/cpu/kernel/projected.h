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
      : p(problem), j(projection), inner(p.heads * p.head_dim), out_panels(j.panels + 3 * inner * j.width) {}

  void forward() const {
    long outs = count(j.out_width);
    share(3 * p.heads + outs + p.batch, p.threads, [&](long item, long) {
      if (item < 3 * p.heads)
        pack_outputs(head_panel(item), weight(item * p.head_dim), p.head_dim, j.width);
      else if (item < 3 * p.heads + outs)
        pack_out(item - 3 * p.heads);
      else
        gather(item - 3 * p.heads - outs);
    });
    Keep keep(p);
    Forward<float, float> attend(p, keep);
    long parts = attend.items() / (p.batch * p.heads);
    auto head = [&](long item, long) {
      project(item / p.heads, item % p.heads);
      for (long part = 0; part < parts; ++part) attend(item * parts + part, -1);
    };
    share(p.batch * p.heads, p.threads, head, p.heads);
    auto output = [&](long item, long) {
      long b = item / outs, n = item % outs, first = n * kPanel;
      apply_panel({j.y + b * p.queries * j.out_width + first, j.out_width}, {p.out.rows<float>(b, 0).data, inner},
                  p.queries, out_panels + first * inner, lanes(j.out_width, n), inner,
                  j.out_bias ? j.out_bias + first : nullptr);
    };
    share(p.batch * outs, p.threads, output, outs);
  }

  void backward() const {
    long ins = j.grad_x ? count(j.width) : 0;
    share(p.heads + ins, p.threads, [&](long item, long) {
      if (item < p.heads)
        pack_inputs(out_panels + item * p.head_dim * j.out_width, {j.out_weight + item * p.head_dim, inner}, p.head_dim,
                    j.out_width);
      else
        pack_in(item - p.heads);
    });
    Keep keep(p);
    Backward<float, float> attend(p, keep);
    auto head = [&](long item, long after) {
      long b = item / p.heads, h = item % p.heads;
      apply_panel(p.grad_out.rows<float>(b, h), {j.grad_y + b * p.queries * j.out_width, j.out_width}, p.queries,
                  out_panels + h * p.head_dim * j.out_width, p.head_dim, j.out_width, nullptr);
      attend(item, after);
    };
    share(p.batch * p.heads, p.threads, head, p.heads);
    share(p.batch * ins, p.threads, [&](long item, long) { reduce(item / ins, item % ins); }, ins);
    weigh();
  }

 private:
  static long count(long columns) { return (columns + kPanel - 1) / kPanel; }
  static long lanes(long columns, long panel) { return std::min(kPanel, columns - panel * kPanel); }

  Rows<const float> weight(long row) const { return {j.weight + row * j.width, j.width}; }
  float* head_panel(long head) const { return j.panels + head * p.head_dim * j.width; }
  float* in_panel(long panel) const { return j.panels + panel * kPanel * 3 * inner; }

  void pack_out(long panel) const {
    long first = panel * kPanel * inner;
    pack_outputs(out_panels + first, {j.out_weight + first, inner}, lanes(j.out_width, panel), inner);
  }

  void pack_in(long panel) const {
    pack_inputs(in_panel(panel), {j.weight + panel * kPanel, j.width}, lanes(j.width, panel), 3 * inner);
  }

  void gather(long b) const {
    for (long i = b * p.keys; i < (b + 1) * p.keys; ++i)
      std::memcpy(j.kept + i * j.width, j.x + j.rows[i] * j.width, (size_t)j.width * sizeof(float));
  }

  void project(long b, long h) const {
    Rows<const float> all{j.x + b * p.queries * j.width, j.width}, kept{j.kept + b * p.keys * j.width, j.width};
    project_rows(p.query.rows<float>(b, h), all, p.queries, h);
    project_rows(p.key.rows<float>(b, h), kept, p.keys, p.heads + h);
    project_rows(p.value.rows<float>(b, h), kept, p.keys, 2 * p.heads + h);
  }

  void project_rows(Rows<float> to, Rows<const float> from, long rows, long head) const {
    apply_panel(to, from, rows, head_panel(head), p.head_dim, j.width, j.bias ? j.bias + head * p.head_dim : nullptr);
  }

  // A panel of the gradient of x, of one image: through the queries of all tokens, keys and values of the kept ones.
  void reduce(long b, long panel) const {
    Arena& memory = arena();
    float* part = nullptr;
    for (bool measuring : {true, false}) {
      memory.begin(measuring);
      part = memory.take<float>(p.keys * kPanel);
    }
    long wide = lanes(j.width, panel);
    Rows<float> to{j.grad_x + panel * kPanel, j.width};
    apply_panel(to.from(b * p.queries), {p.grad_query.rows<float>(b, 0).data, inner}, p.queries, in_panel(panel), wide,
                inner, nullptr);
    apply_panel({part, wide}, {p.grad_key.rows<float>(b, 0).data, 2 * inner}, p.keys, in_panel(panel) + inner * wide, wide,
                2 * inner, nullptr);
    for (long i = 0; i < p.keys; ++i) {
      float* row = to.row(j.rows[b * p.keys + i]);
      for (long d = 0; d < wide; d += W) store(row + d, load(row + d) + load(part + i * wide + d));
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
    long height = 192, items = 0;  // of a tile: the larger, the less is packed
    for (; height >= 48; height /= 2) {
      items = 0;
      for (const WeightGradient& layer : layers) items += layer.items(height);
      if (items >= 3 * p.threads || height == 48) break;
    }
    share(items, p.threads, [&](long item, long) {
      for (const WeightGradient& layer : layers) {
        if (item < layer.items(height)) return layer.run(item, height);
        item -= layer.items(height);
      }
    });
  }

  const Problem& p;
  const Projection& j;
  long inner;
  float* out_panels;
};

}  // namespace dropkey
