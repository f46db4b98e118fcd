// Attention of whole kernel libraries against each other, without Python: small enough to run inside of an emulator.
//
//   tile_kernel LIBRARY SAME NEAR   the first must give every bit of the second, and the third's numbers nearly
//
// As the first process of a system (/init of a RAM disk) it takes /amx.so, /emulated.so and /avx512.so, writes to the
// serial line, and turns the machine off. See docs/explanation/amx.md.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <termios.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "problem.h"

using namespace dropkey;
using Bits = std::vector<uint16_t>;  // bfloat16

struct Library {
  void (*forward)(const void*);
  void (*backward)(const void*);

  explicit Library(const char* path) {
    void* opened = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!opened) fprintf(stderr, "%s\n", dlerror()), exit(100);
    forward = (void (*)(const void*))dlsym(opened, "dropkey_forward");
    backward = (void (*)(const void*))dlsym(opened, "dropkey_backward");
    long refusal = ((int64_t(*)())dlsym(opened, "dropkey_refusal"))();
    if (refusal) fprintf(stderr, "%s: %s\n", path, strerror((int)refusal)), exit(101);
  }
};

struct Case {
  long batch, heads, kv_heads, queries, keys, dim, value_dim;
  bool causal;
  long threads;
  Pattern pattern;
  BiasKind bias;
  double ratio;
};

static const Case kCases[] = {
    {1, 2, 2, 16, 16, 64, 64, false, 1, kNone, kNoBias, 0},
    {1, 2, 2, 65, 65, 64, 64, false, 1, kElement, kNoBias, .3},
    {2, 3, 3, 65, 65, 64, 64, false, 2, kElement, kNoBias, .3},
    {1, 1, 1, 197, 197, 64, 64, false, 2, kElement, kNoBias, .3},
    {1, 4, 2, 50, 37, 32, 32, false, 2, kElement, kNoBias, .5},
    {1, 2, 2, 37, 37, 80, 48, true, 2, kElement, kNoBias, .2},
    {1, 2, 2, 65, 65, 64, 64, false, 2, kColumn, kNoBias, .3},
    {2, 2, 2, 65, 65, 64, 64, false, 2, kToken, kNoBias, .3},
    {1, 2, 2, 65, 65, 64, 64, false, 2, kBlock, kNoBias, .3},
    {1, 2, 2, 65, 65, 64, 64, false, 2, kCross, kNoBias, .3},
    {1, 2, 2, 49, 49, 24, 24, false, 2, kElement, kBoolBias, .3},
    {1, 2, 2, 49, 49, 64, 64, false, 2, kElement, kFloatBias, .3},
    {1, 2, 1, 70, 130, 16, 8, false, 2, kElement, kFloatBias, .3},
    {1, 1, 1, 1, 1, 64, 64, false, 1, kElement, kNoBias, .3},
    {1, 1, 1, 3, 5, 7, 9, false, 1, kElement, kNoBias, .3},
    {1, 1, 1, 100, 300, 64, 64, false, 2, kElement, kNoBias, .3},
    {2, 2, 2, 33, 17, 128, 128, true, 2, kColumn, kFloatBias, .3},
    {2, 4, 4, 197, 197, 64, 64, false, 4, kElement, kNoBias, .3},
    {1, 2, 2, 785, 785, 64, 64, false, 3, kToken, kNoBias, .3},
};

static float wide(uint16_t half) {
  uint32_t bits = (uint32_t)half << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static uint16_t narrow(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

struct Inputs {
  Bits query, key, value, grad_out;
  std::vector<float> bias;
  std::vector<uint8_t> allowed;

  explicit Inputs(const Case& c) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    auto fill = [&](Bits& bits, long heads, long rows, long width) {
      bits.resize(c.batch * heads * rows * width);
      for (auto& bit : bits) bit = narrow(normal(random));
    };
    fill(query, c.heads, c.queries, c.dim), fill(key, c.kv_heads, c.keys, c.dim);
    fill(value, c.kv_heads, c.keys, c.value_dim), fill(grad_out, c.heads, c.queries, c.value_dim);
    bias.resize(c.batch * c.heads * c.queries * c.keys), allowed.resize(bias.size());
    for (auto& each : bias) each = normal(random);
    for (auto& each : allowed) each = random() % 4 != 0;
  }
};

struct Outputs {
  Bits parts[4];  // out, and the gradients of query, key and value
  std::vector<float> grad_bias;
};

static Outputs run(const Library& library, const Case& c, Inputs& in, long threads) {
  Outputs out;
  const size_t sizes[] = {in.grad_out.size(), in.query.size(), in.key.size(), in.value.size()};
  for (int part = 0; part < 4; ++part) out.parts[part].resize(sizes[part]);
  out.grad_bias.resize(in.bias.size());
  std::vector<float> sums(2 * c.batch * c.heads * c.queries);
  int64_t seed = 12345, threshold = 1 << 26, side = (int64_t)std::sqrt((double)c.keys - 1);
  auto tensor = [](Bits& bits, long heads, long rows, long width) {
    return Tensor{bits.data(), heads * rows * width, rows * width, width};
  };
  auto biased = [&](void* data) { return Bias{data, c.heads * c.queries * c.keys, c.queries * c.keys, c.keys, 1}; };
  Problem p{};
  p.batch = c.batch, p.heads = c.heads, p.kv_heads = c.kv_heads, p.queries = c.queries, p.keys = c.keys;
  p.head_dim = c.dim, p.value_dim = c.value_dim, p.half = 1, p.causal = c.causal, p.threads = threads;
  p.scale = 1 / std::sqrt((double)c.dim), p.sums = sums.data();
  p.draw = {c.pattern, &c.ratio, &seed, &threshold, 3, side, side, c.keys - side * side};
  p.bias_kind = c.bias;
  if (c.bias == kBoolBias) p.bias = biased(in.allowed.data());
  if (c.bias == kFloatBias) p.bias = biased(in.bias.data()), p.grad_bias = biased(out.grad_bias.data());
  p.query = tensor(in.query, c.heads, c.queries, c.dim), p.key = tensor(in.key, c.kv_heads, c.keys, c.dim);
  p.value = tensor(in.value, c.kv_heads, c.keys, c.value_dim);
  p.grad_out = tensor(in.grad_out, c.heads, c.queries, c.value_dim);
  p.out = tensor(out.parts[0], c.heads, c.queries, c.value_dim);
  p.grad_query = tensor(out.parts[1], c.heads, c.queries, c.dim);
  p.grad_key = tensor(out.parts[2], c.kv_heads, c.keys, c.dim);
  p.grad_value = tensor(out.parts[3], c.kv_heads, c.keys, c.value_dim);
  library.forward(&p), library.backward(&p);
  return out;
}

static bool same(const Outputs& one, const Outputs& other) {
  for (int part = 0; part < 4; ++part)
    if (one.parts[part] != other.parts[part]) return false;
  return one.grad_bias == other.grad_bias;
}

// The largest difference as a share of the largest number, of all parts.
static double apart(const Outputs& one, const Outputs& other) {
  double result = 0;
  auto compare = [&](size_t count, auto a, auto b) {
    double most = 0, largest = 0;
    for (size_t i = 0; i < count; ++i) {
      if (!std::isfinite(a(i))) result = INFINITY;
      most = std::max(most, (double)std::fabs(a(i) - b(i))), largest = std::max(largest, (double)std::fabs(b(i)));
    }
    if (largest > 0) result = std::max(result, most / largest);
  };
  for (int part = 0; part < 4; ++part)
    compare(one.parts[part].size(), [&](size_t i) { return wide(one.parts[part][i]); },
            [&](size_t i) { return wide(other.parts[part][i]); });
  compare(one.grad_bias.size(), [&](size_t i) { return one.grad_bias[i]; },
          [&](size_t i) { return other.grad_bias[i]; });
  return result;
}

static int compare_all(const Library& library, const Library& equal, const Library& near) {
  constexpr double kRounding = 0.02;  // a few units in the last place of bfloat16
  int wrong = 0;
  for (auto& c : kCases) {
    Inputs in(c);
    Outputs ours = run(library, c, in, c.threads);
    bool exact = same(ours, run(equal, c, in, c.threads)), alone = same(ours, run(library, c, in, 1));
    double distance = apart(ours, run(near, c, in, c.threads));
    bool right = exact && alone && distance < kRounding;
    wrong += !right;
    printf("B %ld H %ld/%ld N %ld/%ld D %ld/%ld causal %d threads %ld pattern %ld bias %ld: ", c.batch, c.heads,
           c.kv_heads, c.queries, c.keys, c.dim, c.value_dim, c.causal, c.threads, (long)c.pattern, (long)c.bias);
    printf("%s, one thread %s, off by %.1e  %s\n", exact ? "same bits" : "OTHER BITS", alone ? "the same" : "DIFFERS",
           distance, right ? "ok" : "WRONG");
  }
  rusage used;
  getrusage(RUSAGE_SELF, &used);
  printf("%zu cases, %d wrong; interrupted %ld times\n", std::size(kCases), wrong, used.ru_nivcsw);
  return wrong;
}

static void first_process() {
  mount("proc", "/proc", "proc", 0, nullptr);
  int serial = open("/dev/ttyS0", O_RDWR);
  for (int stream : {0, 1, 2}) dup2(serial, stream);
  setvbuf(stdout, nullptr, _IOLBF, 0);
  compare_all(Library("/amx.so"), Library("/emulated.so"), Library("/avx512.so"));
  tcdrain(1), sleep(3);
  reboot(RB_POWER_OFF);
}

int main(int count, char** names) {
  if (getpid() == 1) first_process();
  if (count != 4) return fprintf(stderr, "usage: tile_kernel LIBRARY SAME NEAR\n"), 102;
  return compare_all(Library(names[1]), Library(names[2]), Library(names[3]));
}
