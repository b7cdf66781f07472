// Root-mean-square normalisation; ../rms_norm.py holds its equation. N rows, D width.

#include <cmath>
#include <vector>

#include "arguments.h"
#include "lanes.h"
#include "parallel.h"

using taichu::add_scaled;
using taichu::Arguments;
using taichu::dot;
using taichu::parallel_rows;

// Inputs x (N, D), gain (D,), epsilon (1,). Outputs y (N, D) and 1 / rms (N,).
TAICHU_KERNEL rms_norm(int, void** data, int* ranks, int64_t** shapes, const char**, void*, void*) {
  Arguments a{data, ranks, shapes};
  const int64_t N = a.dim(0, 0), D = a.dim(0, 1);
  const float *gain = a.f(1), epsilon = a.f(2)[0];
  parallel_rows(N, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const float* x = a.f(0) + i * D;
      float* y = a.f(3) + i * D;
      const float inverse = 1.0f / std::sqrt(dot(x, x, D) / D + epsilon);
      for (int64_t d = 0; d < D; ++d) y[d] = x[d] * inverse * gain[d];
      a.f(4)[i] = inverse;
    }
  });
  return 0;
}

// Inputs x (N, D), gain (D,), 1 / rms (N,), dY (N, D). Outputs dX (N, D), dGain (D,).
TAICHU_KERNEL rms_norm_gradient(int, void** data, int* ranks, int64_t** shapes, const char**, void*,
                                void*) {
  Arguments a{data, ranks, shapes};
  const int64_t N = a.dim(0, 0), D = a.dim(0, 1), block = 512, blocks = (N + block - 1) / block;
  const float* gain = a.f(1);
  std::vector<float> parts(blocks * D, 0.0f);  // a sum a block: the result does not depend on timing
  parallel_rows(
      N,
      [&](int64_t first, int64_t last) {
        float* part = parts.data() + first / block * D;
        for (int64_t i = first; i < last; ++i) {
          const float *x = a.f(0) + i * D, *dy = a.f(3) + i * D, inverse = a.f(2)[i];
          float *dx = a.f(4) + i * D, mean = 0;
          for (int64_t d = 0; d < D; ++d) mean += dy[d] * gain[d] * x[d];
          mean *= inverse * inverse / D;
          for (int64_t d = 0; d < D; ++d) {
            part[d] += dy[d] * x[d] * inverse;
            dx[d] = inverse * (dy[d] * gain[d] - x[d] * mean);
          }
        }
      },
      block);
  for (int64_t d = 0; d < D; ++d) a.f(5)[d] = 0;
  for (int64_t i = 0; i < blocks; ++i) add_scaled(a.f(5), parts.data() + i * D, 1.0f, D);
  return 0;
}
