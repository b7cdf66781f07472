// The gated activation of SwiGLU; ../swiglu.py holds its equation. N tokens, F hidden width.

#include <cmath>

#include "arguments.h"
#include "parallel.h"

using taichu::Arguments;
using taichu::parallel_rows;

// Inputs gate and up (N, F). Output silu(gate) * up.
TAICHU_KERNEL swiglu(int, void** data, int* ranks, int64_t** shapes, const char**, void*, void*) {
  Arguments a{data, ranks, shapes};
  const float *gate = a.f(0), *up = a.f(1);
  float* y = a.f(2);
  parallel_rows(a.size(0), [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) y[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
  }, 65536);
  return 0;
}

// Inputs gate, up, dY. Outputs dGate, dUp.
TAICHU_KERNEL swiglu_gradient(int, void** data, int* ranks, int64_t** shapes, const char**, void*,
                              void*) {
  Arguments a{data, ranks, shapes};
  const float *gate = a.f(0), *up = a.f(1), *dy = a.f(2);
  float *dgate = a.f(3), *dup = a.f(4);
  parallel_rows(a.size(0), [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const float sigmoid = 1.0f / (1.0f + std::exp(-gate[i])), swish = gate[i] * sigmoid;
      dgate[i] = dy[i] * up[i] * (sigmoid + swish - swish * sigmoid);
      dup[i] = dy[i] * swish;
    }
  }, 65536);
  return 0;
}
