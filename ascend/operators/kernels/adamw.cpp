// AdamW behind a clipping of the gradients; ../adamw.py holds its equation.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "arguments.h"
#include "lanes.h"
#include "parallel.h"

using taichu::Arguments;
using taichu::dot;
using taichu::parallel_rows;

static std::atomic<int64_t> updates_done{0};

// How many updates `adamw` has finished in this process: what a caller may sleep on.
extern "C" __attribute__((visibility("default"))) int64_t updates() { return updates_done; }

// Whether a number is finite; -ffast-math takes every number to be.
static bool finite(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7f800000u) != 0x7f800000u;
}

// AdamW over n parameters after clipping by global norm, in place. Inputs: n parameters, n first
// moments, n second moments, steps made (1,) int32, n gradients, (2, n) decays and factors of
// the rate, then numbers (6,): beta1, beta2, epsilon, clip, rate, and the scale of the gradients.
// Output: global norm (1,). Where that is not finite, nothing is written.
TAICHU_KERNEL adamw(int count, void** data, int* ranks, int64_t** shapes, const char**, void*, void*) {
  Arguments a{data, ranks, shapes};
  const int64_t n = (count - 4) / 4, gradients = 3 * n + 1;
  const float *decay = a.f(4 * n + 1), *rate_factor = decay + n, *number = a.f(4 * n + 2);
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t size = a.size(gradients + i), block = 65536, blocks = (size + block - 1) / block;
    const float* g = a.f(gradients + i);
    std::vector<double> parts(blocks, 0.0);
    parallel_rows(size, [&](int64_t first, int64_t last) {
      parts[first / block] = dot(g + first, g + first, last - first);
    }, block);
    for (double part : parts) squares += part;
  }
  const float beta1 = number[0], beta2 = number[1], epsilon = number[2];
  const float scale = number[5], norm = static_cast<float>(std::sqrt(squares)) / scale;
  a.f(4 * n + 3)[0] = norm;
  if (!finite(norm)) {
    ++updates_done;
    return 0;
  }
  const float step = static_cast<float>(++a.n(3 * n)[0]);
  const float factor = std::min(1.0f, number[3] / (norm + 1e-6f)) / scale;
  const float first_correction = 1.0f - std::pow(beta1, step);
  const float second_correction = 1.0f - std::pow(beta2, step);
  for (int64_t i = 0; i < n; ++i) {
    float *p = a.f(i), *m = a.f(n + i), *v = a.f(2 * n + i);
    const float *g = a.f(gradients + i), rate = number[4] * rate_factor[i];
    const float keep = 1.0f - rate * decay[i];
    parallel_rows(a.size(i), [=](int64_t first, int64_t last) {
      for (int64_t x = first; x < last; ++x) {
        const float gradient = g[x] * factor;
        m[x] = beta1 * m[x] + (1.0f - beta1) * gradient;
        v[x] = beta2 * v[x] + (1.0f - beta2) * gradient * gradient;
        p[x] = p[x] * keep - rate * (m[x] / first_correction) /
                                 (std::sqrt(v[x] / second_correction) + epsilon);
      }
    }, 65536);
  }
  ++updates_done;
  return 0;
}
