// A residual sum and its root-mean-square normalisation; ../add_rms_norm.py holds the equation.
// N rows, D width.

#include <cmath>
#include <vector>

#include "arguments.h"
#include "lanes.h"
#include "parallel.h"

using taichu::add_scaled;
using taichu::Arguments;
using taichu::dot;
using taichu::parallel_rows;

// Inputs x and branch (N, D), gain (D,), epsilon (1,). Outputs the sum and y (N, D), 1 / rms (N,).
TAICHU_KERNEL add_rms_norm(int, void** data, int* ranks, int64_t** shapes, const char**, void*,
                           void*) {
  Arguments a{data, ranks, shapes};
  const int64_t N = a.dim(0, 0), D = a.dim(0, 1);
  const float *gain = a.f(2), epsilon = a.f(3)[0];
  parallel_rows(N, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const float *x = a.f(0) + i * D, *branch = a.f(1) + i * D;
      float *sum = a.f(4) + i * D, *y = a.f(5) + i * D;
      for (int64_t d = 0; d < D; ++d) sum[d] = x[d] + branch[d];
      const float inverse = 1.0f / std::sqrt(dot(sum, sum, D) / D + epsilon);
      for (int64_t d = 0; d < D; ++d) y[d] = sum[d] * inverse * gain[d];
      a.f(6)[i] = inverse;
    }
  });
  return 0;
}

// Inputs the sum (N, D), gain (D,), 1 / rms (N,), dSum and dY (N, D). Outputs dX, which is the
// branch's too (N, D), and dGain (D,).
TAICHU_KERNEL add_rms_norm_gradient(int, void** data, int* ranks, int64_t** shapes, const char**,
                                    void*, void*) {
  Arguments a{data, ranks, shapes};
  const int64_t N = a.dim(0, 0), D = a.dim(0, 1), block = 512, blocks = (N + block - 1) / block;
  const float* gain = a.f(1);
  std::vector<float> parts(blocks * D, 0.0f);  // a sum a block: the result does not depend on timing
  parallel_rows(
      N,
      [&](int64_t first, int64_t last) {
        float* part = parts.data() + first / block * D;
        for (int64_t i = first; i < last; ++i) {
          const float *x = a.f(0) + i * D, *dsum = a.f(3) + i * D, *dy = a.f(4) + i * D;
          float *dx = a.f(5) + i * D, mean = 0;
          const float inverse = a.f(2)[i];
          for (int64_t d = 0; d < D; ++d) mean += dy[d] * gain[d] * x[d];
          mean *= inverse * inverse / D;
          for (int64_t d = 0; d < D; ++d) {
            part[d] += dy[d] * x[d] * inverse;
            dx[d] = dsum[d] + inverse * (dy[d] * gain[d] - x[d] * mean);
          }
        }
      },
      block);
  for (int64_t d = 0; d < D; ++d) a.f(6)[d] = 0;
  for (int64_t i = 0; i < blocks; ++i) add_scaled(a.f(6), parts.data() + i * D, 1.0f, D);
  return 0;
}
