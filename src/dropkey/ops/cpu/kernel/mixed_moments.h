// What the backward pass of Re-attention knows before it computes a map.
#pragma once
#include "mixing.h"
#include "rows.h"

namespace dropkey {

// What the gradient of `out` and the saved tensors say of each head of each image.
template <class T>
class MixedMoments {
 public:
  MixedMoments(const Problem& problem, const Mixing& mixing)
      : p(problem), m(mixing), grad_sums((size_t)(items() * p.value_dim)), dots_((size_t)items()) {}

  long items() const { return p.batch * p.heads; }

  void operator()(long item, long) const {
    long b = item / p.heads, h = item % p.heads;
    Rows<const T> grad_out = p.grad_out.rows<const T>(b, h), value = p.value.rows<const T>(b, h);
    std::vector<double> values((size_t)p.value_dim);
    double* sums = &grad_sums[(size_t)(item * p.value_dim)];
    add_rows(sums, grad_out.data, grad_out.step, p.queries, p.value_dim);
    add_rows(values.data(), value.data, value.step, p.keys, p.value_dim);
    Dots& to = dots_[(size_t)item];
    to.mixed = dot(grad_out, m.mixed.rows<const T>(b, h));
    if (m.identity) to.plain = dot(grad_out, m.plain.rows<const T>(b, h));
    for (long d = 0; d < p.value_dim; ++d) to.sums += sums[d] * values[(size_t)d];
  }

  // The gradients of the three factors of a head, added in the order of the images.
  double gain(long h) const { return sum(h, &Dots::mixed); }
  double offset(long h) const { return sum(h, &Dots::sums); }
  double identity(long h) const { return sum(h, &Dots::plain); }

  const Problem& p;
  const Mixing& m;
  mutable std::vector<double> grad_sums;  // (batch, head, value_dim): over the queries

 private:
  struct Dots {
    double mixed = 0, plain = 0, sums = 0;
  };

  double dot(Rows<const T> a, Rows<const T> b) const {
    double total = 0;
    for (long i = 0; i < p.queries; ++i) {
      const T *left = a.row(i), *right = b.row(i);
      Floats sum = {};
      long whole = p.value_dim / W * W;
      for (long d = 0; d < whole; d += W) sum += load(left + d) * load(right + d);
      if (whole < p.value_dim)
        sum += load_part(left + whole, p.value_dim - whole) * load_part(right + whole, p.value_dim - whole);
      total += sum_of(sum);
    }
    return total;
  }

  double sum(long h, double Dots::*of) const {
    double total = 0;
    for (long b = 0; b < p.batch; ++b) total += dots_[(size_t)(b * p.heads + h)].*of;
    return total;
  }

  mutable std::vector<Dots> dots_;
};

// The matrices of the backward pass, (head, head) each.
struct MixedMatrices {
  std::vector<float> outer;   // from centered maps to those that meet the values; [h][g]
  std::vector<float> slopes;  // (head, 2 heads): outer transposed, and inner, the gradient by way of the variance
  std::vector<double> norm, second;  // see normalizing; mean of dX * normalized x of each head, 0 in evaluation

  template <class T>
  MixedMatrices(const Problem& p, const Mixing& m, const MixedMoments<T>& moments)
      : outer((size_t)(p.heads * p.heads)), slopes((size_t)(2 * p.heads * p.heads)), norm(normalizing(p, m)),
        second((size_t)p.heads) {
    long heads = p.heads;
    double count = (double)p.batch * (double)p.queries * (double)p.keys;
    for (long h = 0; m.training && h < heads; ++h) second[(size_t)h] = m.gain[h] * moments.gain(h) / count;
    for (long h = 0; h < heads; ++h)
      for (long g = 0; g < heads; ++g) {
        double same = h == g && m.identity ? *m.identity : 0, inner = 0;
        for (long f = 0; f < heads; ++f)
          inner -= second[(size_t)f] * norm[(size_t)(f * heads + h)] * norm[(size_t)(f * heads + g)];
        outer[(size_t)(h * heads + g)] = (float)(m.gain[h] * norm[(size_t)(h * heads + g)] + same);
        slopes[(size_t)(g * 2 * heads + h)] = outer[(size_t)(h * heads + g)];
        slopes[(size_t)(h * 2 * heads + heads + g)] = (float)inner;
      }
  }
};

}  // namespace dropkey
