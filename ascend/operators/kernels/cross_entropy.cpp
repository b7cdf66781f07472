// Cross-entropy within a range; ../cross_entropy.py holds its equation. M targets, V vocabulary.

#include <cmath>
#include <cstring>

#include "arguments.h"
#include "parallel.h"

using taichu::Arguments;
using taichu::parallel_rows;

// Inputs logits (M, V), targets (M,), ranges (M, 2). Outputs loss (M,) and log-sum-exp (M,).
TAICHU_KERNEL cross_entropy(int, void** data, int* ranks, int64_t** shapes, const char**, void*,
                            void*) {
  Arguments a{data, ranks, shapes};
  const int64_t M = a.dim(0, 0), V = a.dim(0, 1);
  parallel_rows(M, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const float* x = a.f(0) + i * V;
      const int64_t low = a.n(2)[2 * i], high = a.n(2)[2 * i + 1];
      float largest = x[low], sum = 0;
      for (int64_t j = low; j < high; ++j) largest = x[j] > largest ? x[j] : largest;
      for (int64_t j = low; j < high; ++j) sum += std::exp(x[j] - largest);
      a.f(4)[i] = largest + std::log(sum);
      a.f(3)[i] = a.f(4)[i] - x[a.n(1)[i]];
    }
  }, 64);
  return 0;
}

// Inputs logits, targets, ranges, log-sum-exp, dLoss (M,). Output dLogits (M, V).
TAICHU_KERNEL cross_entropy_gradient(int, void** data, int* ranks, int64_t** shapes, const char**,
                                     void*, void*) {
  Arguments a{data, ranks, shapes};
  const int64_t M = a.dim(0, 0), V = a.dim(0, 1);
  parallel_rows(M, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const float *x = a.f(0) + i * V, sum = a.f(3)[i], weight = a.f(4)[i];
      float* dx = a.f(5) + i * V;
      const int64_t low = a.n(2)[2 * i], high = a.n(2)[2 * i + 1];
      std::memset(dx, 0, V * sizeof(float));
      if (weight == 0.0f) continue;
      for (int64_t j = low; j < high; ++j) dx[j] = weight * std::exp(x[j] - sum);
      dx[a.n(1)[i]] -= weight;
    }
  }, 64);
  return 0;
}
