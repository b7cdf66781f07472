// Rotary position; ../rotary.py holds its equation. N tokens, H heads, K head size.

#include "arguments.h"
#include "parallel.h"

using taichu::Arguments;
using taichu::parallel_rows;

// Inputs x (N, H, K), cos and sin (N, K / 2), direction (1,): 1 or -1. Output y (N, H, K).
TAICHU_KERNEL rotary(int, void** data, int* ranks, int64_t** shapes, const char**, void*, void*) {
  Arguments a{data, ranks, shapes};
  const int64_t N = a.dim(0, 0), H = a.dim(0, 1), K = a.dim(0, 2), half = K / 2;
  const float direction = a.f(3)[0];
  parallel_rows(N, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const float *cosine = a.f(1) + i * half, *sine = a.f(2) + i * half;
      for (int64_t h = 0; h < H; ++h) {
        const float* x = a.f(0) + (i * H + h) * K;
        float* y = a.f(4) + (i * H + h) * K;
        for (int64_t k = 0; k < half; ++k) {
          const float turn = direction * sine[k];
          y[k] = x[k] * cosine[k] - x[k + half] * turn;
          y[k + half] = x[k + half] * cosine[k] + x[k] * turn;
        }
      }
    }
  });
  return 0;
}
