// The compiled CPU forms of the operators, all float32. Each follows the equation of its Python
// twin's plain form, to which the tests compare it. Sizes: B rows, L tokens, N = B * L, H heads,
// G key/value heads, K head size, D width, V vocabulary.

#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "arguments.h"
#include "parallel.h"

using taichu::Arguments;
using taichu::parallel_rows;
using taichu::Pool;

namespace {

// One row's keys: the segment it belongs to starts at `start`; token i sees [start, last[i]).
struct Reach {
  std::vector<int64_t> start, last;

  Reach(const int32_t* segment, const int32_t* span, int64_t L) : start(L), last(L) {
    for (int64_t i = 0; i < L; ++i) {
      start[i] = i && segment[i] == segment[i - 1] ? start[i - 1] : i;
    }
    for (int64_t i = L - 1; i >= 0; --i) {
      bool joined = i + 1 < L && span[i] > 0 && span[i] == span[i + 1] && segment[i] == segment[i + 1];
      last[i] = joined ? last[i + 1] : i + 1;
    }
  }
};

constexpr int64_t LANES = 16;  // columns are padded to this many, so that inner loops have fixed bounds
// as many floats in registers (a vector extension of GCC and Clang, on every architecture)
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float))));

inline Lanes load(const float* x) { return *reinterpret_cast<const Lanes*>(x); }
inline void store(float* out, Lanes x) { *reinterpret_cast<Lanes*>(out) = x; }

inline int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

// x (n, K) with `stride` floats from row to row -> columns (K, width), zeros past n.
void transpose_head(const float* x, int64_t stride, int64_t n, int64_t K, int64_t width, float* out) {
  for (int64_t k = 0; k < K; ++k) {
    for (int64_t i = 0; i < n; ++i) out[k * width + i] = x[i * stride + k];
    for (int64_t i = n; i < width; ++i) out[k * width + i] = 0;
  }
}

// scores[j] = sum_k a[k] * columns[k][j] for j in [0, padded(n))
inline void products(const float* a, const float* columns, int64_t n, int64_t K, int64_t width,
                     float* scores) {
  for (int64_t j = 0; j < n; j += LANES) {
    Lanes even = {}, odd = {};
    for (int64_t k = 0; k + 1 < K; k += 2) {
      even += a[k] * load(columns + k * width + j);
      odd += a[k + 1] * load(columns + (k + 1) * width + j);
    }
    if (K % 2) even += a[K - 1] * load(columns + (K - 1) * width + j);
    store(scores + j, even + odd);
  }
}

// out[k] = sum_j weights[j] * rows[j * stride + k]
inline void weighted_sum(const float* weights, const float* rows, int64_t stride, int64_t n, int64_t K,
                         float* out) {
  int64_t k = 0;
  for (; k + 2 * LANES <= K; k += 2 * LANES) {
    Lanes low = {}, high = {};
    for (int64_t j = 0; j < n; ++j) {
      low += weights[j] * load(rows + j * stride + k);
      high += weights[j] * load(rows + j * stride + k + LANES);
    }
    store(out + k, low);
    store(out + k + LANES, high);
  }
  for (; k + LANES <= K; k += LANES) {
    Lanes sum = {};
    for (int64_t j = 0; j < n; ++j) sum += weights[j] * load(rows + j * stride + k);
    store(out + k, sum);
  }
  for (; k < K; ++k) {
    out[k] = 0;
    for (int64_t j = 0; j < n; ++j) out[k] += weights[j] * rows[j * stride + k];
  }
}

inline float dot(const float* a, const float* b, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

inline void add_scaled(float* out, const float* x, float factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] += factor * x[i];
}

struct AttentionShape {
  int64_t B, L, H, G, K;
};

}  // namespace

// Inputs q (N, H, K), k and v (N, G, K), segment and span (B, L).
// Outputs o (N, H, K) and the log-sum-exp (N, H). Padding (segment 0) gives zeros.
TAICHU_KERNEL attention(int, void** data, int* ranks, int64_t** shapes, const char**, void*, void*) {
  Arguments a{data, ranks, shapes};
  const AttentionShape s{a.dim(3, 0), a.dim(3, 1), a.dim(0, 1), a.dim(1, 1), a.dim(0, 2)};
  const int64_t share = s.H / s.G, step = s.G * s.K;
  const float scale = 1.0f / std::sqrt(static_cast<float>(s.K));
  Pool::instance().run(s.B * s.G, [&](int64_t unit) {
    const int64_t b = unit / s.G, g = unit % s.G, row = b * s.L;
    const int32_t* segment = a.n(3) + row;
    const Reach reach(segment, a.n(4) + row, s.L);
    std::vector<float> keys(s.K * padded(s.L)), p(padded(s.L));
    for (int64_t begin = 0, end; begin < s.L; begin = end) {
      for (end = begin + 1; end < s.L && segment[end] == segment[begin];) ++end;
      const int64_t n = end - begin, first = row + begin, width = padded(n);
      if (segment[begin] == 0) {
        for (int64_t i = 0; i < n; ++i) {
          const int64_t at = (first + i) * s.H + g * share;
          std::memset(a.f(5) + at * s.K, 0, share * s.K * sizeof(float));
          std::memset(a.f(6) + at, 0, share * sizeof(float));
        }
        continue;
      }
      transpose_head(a.f(1) + (first * s.G + g) * s.K, step, n, s.K, width, keys.data());
      const float* v = a.f(2) + (first * s.G + g) * s.K;
      for (int64_t i = 0; i < n; ++i) {
        const int64_t seen = reach.last[begin + i] - begin;
        for (int64_t h = g * share; h < (g + 1) * share; ++h) {
          const int64_t at = (first + i) * s.H + h;
          products(a.f(0) + at * s.K, keys.data(), seen, s.K, width, p.data());
          float largest = p[0], sum = 0;
          for (int64_t j = 1; j < seen; ++j) largest = p[j] > largest ? p[j] : largest;
          for (int64_t j = 0; j < padded(seen); ++j) p[j] = std::exp((p[j] - largest) * scale);
          for (int64_t j = 0; j < seen; ++j) sum += p[j];
          for (int64_t j = 0; j < seen; ++j) p[j] /= sum;
          weighted_sum(p.data(), v, step, seen, s.K, a.f(5) + at * s.K);
          a.f(6)[at] = largest * scale + std::log(sum);
        }
      }
    }
  });
  return 0;
}

// Inputs q, k, v, segment, span, o, log-sum-exp, dO. Outputs dQ, dK, dV.
TAICHU_KERNEL attention_gradient(int, void** data, int* ranks, int64_t** shapes, const char**,
                                 void*, void*) {
  Arguments a{data, ranks, shapes};
  const AttentionShape s{a.dim(3, 0), a.dim(3, 1), a.dim(0, 1), a.dim(1, 1), a.dim(0, 2)};
  const int64_t share = s.H / s.G, step = s.G * s.K, wide = s.H * s.K;
  const float scale = 1.0f / std::sqrt(static_cast<float>(s.K));
  Pool::instance().run(s.B * s.G, [&](int64_t unit) {
    const int64_t b = unit / s.G, g = unit % s.G, row = b * s.L;
    const int32_t* segment = a.n(3) + row;
    const Reach reach(segment, a.n(4) + row, s.L);
    std::vector<float> keys(s.K * padded(s.L)), values(s.K * padded(s.L)), p, ds, sum(s.K);
    for (int64_t begin = 0, end; begin < s.L; begin = end) {
      for (end = begin + 1; end < s.L && segment[end] == segment[begin];) ++end;
      const int64_t n = end - begin, first = row + begin, width = padded(n);
      const int64_t group = (first * s.G + g) * s.K;
      const float *k = a.f(1) + group, *v = a.f(2) + group;
      float *dk = a.f(9) + group, *dv = a.f(10) + group;
      for (int64_t i = 0; i < n; ++i) {
        std::memset(dk + i * step, 0, s.K * sizeof(float));
        std::memset(dv + i * step, 0, s.K * sizeof(float));
        if (segment[begin] == 0)
          std::memset(a.f(8) + ((first + i) * s.H + g * share) * s.K, 0, share * s.K * sizeof(float));
      }
      if (segment[begin] == 0) continue;
      transpose_head(k, step, n, s.K, width, keys.data());
      transpose_head(v, step, n, s.K, width, values.data());
      // softmax and its gradient, token i's in column i: the sums over i below run along rows
      p.assign(n * width, 0.0f);
      ds.assign(n * width, 0.0f);
      std::vector<float> line(width), dline(width);
      for (int64_t h = g * share; h < (g + 1) * share; ++h) {
        const int64_t start = (first * s.H + h) * s.K;
        const float *q = a.f(0) + start, *o = a.f(5) + start, *d = a.f(7) + start;
        for (int64_t i = 0; i < n; ++i) {
          const int64_t seen = reach.last[begin + i] - begin;
          products(q + i * wide, keys.data(), seen, s.K, width, line.data());
          products(d + i * wide, values.data(), seen, s.K, width, dline.data());
          const float log_sum = a.f(6)[(first + i) * s.H + h];
          const float delta = dot(d + i * wide, o + i * wide, s.K);
          for (int64_t j = 0; j < padded(seen); ++j) line[j] = std::exp(line[j] * scale - log_sum);
          for (int64_t j = 0; j < seen; ++j) dline[j] = line[j] * (dline[j] - delta) * scale;
          weighted_sum(dline.data(), k, step, seen, s.K, a.f(8) + start + i * wide);
          for (int64_t j = 0; j < seen; ++j) {
            p[j * width + i] = line[j];
            ds[j * width + i] = dline[j];
          }
          for (int64_t j = seen; j < n; ++j) p[j * width + i] = ds[j * width + i] = 0;
        }
        for (int64_t j = 0; j < n; ++j) {
          weighted_sum(ds.data() + j * width, q, wide, n, s.K, sum.data());
          add_scaled(dk + j * step, sum.data(), 1.0f, s.K);
          weighted_sum(p.data() + j * width, d, wide, n, s.K, sum.data());
          add_scaled(dv + j * step, sum.data(), 1.0f, s.K);
        }
      }
    }
  });
  return 0;
}

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
