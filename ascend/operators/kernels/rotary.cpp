// Rotary position, of heads as they are or normalised first; ../rotary.py holds the equations.
// N tokens, H heads, K head size.

#include <cmath>
#include <vector>

#include "arguments.h"
#include "lanes.h"
#include "parallel.h"

using taichu::add_scaled;
using taichu::Arguments;
using taichu::dot;
using taichu::parallel_rows;

namespace {

// One head: each pair (x[k], x[k + half]) by its angle, or by the opposite one. x may be y.
inline void turn(const float* x, const float* cosine, const float* sine, float direction,
                 int64_t half, float* y) {
  for (int64_t k = 0; k < half; ++k) {
    const float s = direction * sine[k], low = x[k], high = x[k + half];
    y[k] = low * cosine[k] - high * s;
    y[k + half] = high * cosine[k] + low * s;
  }
}

}  // namespace

// Inputs x (N, H, K), cos and sin (N, K / 2), direction (1,): 1 or -1. Output y (N, H, K).
TAICHU_KERNEL rotary(int, void** data, int* ranks, int64_t** shapes, const char**, void*, void*) {
  Arguments a{data, ranks, shapes};
  const int64_t N = a.dim(0, 0), H = a.dim(0, 1), K = a.dim(0, 2), half = K / 2;
  const float direction = a.f(3)[0];
  parallel_rows(N, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      for (int64_t h = 0; h < H; ++h) {
        const int64_t at = (i * H + h) * K;
        turn(a.f(0) + at, a.f(1) + i * half, a.f(2) + i * half, direction, half, a.f(4) + at);
      }
    }
  });
  return 0;
}

// Inputs x (N, H, K), gain (K,), cos and sin (N, K / 2), epsilon (1,).
// Outputs y (N, H, K) and 1 / rms (N, H).
TAICHU_KERNEL normed_rotary(int, void** data, int* ranks, int64_t** shapes, const char**, void*,
                            void*) {
  Arguments a{data, ranks, shapes};
  const int64_t N = a.dim(0, 0), H = a.dim(0, 1), K = a.dim(0, 2), half = K / 2;
  const float *gain = a.f(1), epsilon = a.f(4)[0];
  parallel_rows(N, [&](int64_t first, int64_t last) {
    std::vector<float> scaled(K);
    for (int64_t i = first; i < last; ++i) {
      for (int64_t h = 0; h < H; ++h) {
        const int64_t at = (i * H + h) * K;
        const float *x = a.f(0) + at, inverse = 1.0f / std::sqrt(dot(x, x, K) / K + epsilon);
        for (int64_t k = 0; k < K; ++k) scaled[k] = x[k] * inverse * gain[k];
        turn(scaled.data(), a.f(2) + i * half, a.f(3) + i * half, 1.0f, half, a.f(5) + at);
        a.f(6)[i * H + h] = inverse;
      }
    }
  });
  return 0;
}

// Inputs x (N, H, K), gain (K,), cos and sin (N, K / 2), 1 / rms (N, H), dY (N, H, K).
// Outputs dX (N, H, K), dGain (K,).
TAICHU_KERNEL normed_rotary_gradient(int, void** data, int* ranks, int64_t** shapes, const char**,
                                     void*, void*) {
  Arguments a{data, ranks, shapes};
  const int64_t N = a.dim(0, 0), H = a.dim(0, 1), K = a.dim(0, 2), half = K / 2;
  const int64_t block = 128, blocks = (N + block - 1) / block;
  const float* gain = a.f(1);
  std::vector<float> parts(blocks * K, 0.0f);  // a sum a block: the result does not depend on timing
  parallel_rows(
      N,
      [&](int64_t first, int64_t last) {
        std::vector<float> part(K, 0.0f), d(K);
        for (int64_t i = first; i < last; ++i) {
          for (int64_t h = 0; h < H; ++h) {
            const int64_t at = (i * H + h) * K;
            const float *x = a.f(0) + at, inverse = a.f(4)[i * H + h];
            float *dx = a.f(6) + at, mean = 0;
            turn(a.f(5) + at, a.f(2) + i * half, a.f(3) + i * half, -1.0f, half, d.data());
            for (int64_t k = 0; k < K; ++k) mean += d[k] * gain[k] * x[k];
            mean *= inverse * inverse / K;
            for (int64_t k = 0; k < K; ++k) {
              part[k] += d[k] * x[k] * inverse;
              dx[k] = inverse * (d[k] * gain[k] - x[k] * mean);
            }
          }
        }
        add_scaled(parts.data() + first / block * K, part.data(), 1.0f, K);
      },
      block);
  for (int64_t k = 0; k < K; ++k) a.f(7)[k] = 0;
  for (int64_t i = 0; i < blocks; ++i) add_scaled(a.f(7), parts.data() + i * K, 1.0f, K);
  return 0;
}
