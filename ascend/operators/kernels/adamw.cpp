// AdamW behind a clipping of the gradients; ../adamw.py holds its equation.

#include <algorithm>
#include <atomic>
#include <cmath>
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

// AdamW over n parameters after clipping by global norm, in place. Inputs: n parameters, n first
// moments, n second moments, n gradients, decayed (n,), then numbers (7,): rate, beta1, beta2,
// epsilon, weight decay, clip, and the number of this step from 1. Output: global norm (1,).
TAICHU_KERNEL adamw(int count, void** data, int* ranks, int64_t** shapes, const char**, void*, void*) {
  Arguments a{data, ranks, shapes};
  const int64_t n = (count - 3) / 4;
  const float *decayed = a.f(4 * n), *number = a.f(4 * n + 1);
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t size = a.size(3 * n + i), block = 65536, blocks = (size + block - 1) / block;
    const float* g = a.f(3 * n + i);
    std::vector<double> parts(blocks, 0.0);
    parallel_rows(size, [&](int64_t first, int64_t last) {
      parts[first / block] = dot(g + first, g + first, last - first);
    }, block);
    for (double part : parts) squares += part;
  }
  const float norm = static_cast<float>(std::sqrt(squares)), rate = number[0], beta1 = number[1];
  const float beta2 = number[2], epsilon = number[3], step = number[6];
  const float factor = std::min(1.0f, number[5] / (norm + 1e-6f));
  const float first_correction = 1.0f - std::pow(beta1, step);
  const float second_correction = 1.0f - std::pow(beta2, step);
  for (int64_t i = 0; i < n; ++i) {
    float *p = a.f(i), *m = a.f(n + i), *v = a.f(2 * n + i);
    const float *g = a.f(3 * n + i), keep = 1.0f - rate * number[4] * decayed[i];
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
  a.f(4 * n + 2)[0] = norm;
  ++updates_done;
  return 0;
}
