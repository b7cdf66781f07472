// Scaled dot-product attention over packed rows; ../attention.py holds its equation. Only pairs of
// tokens of one segment are computed, a block of queries at a time: up to the last key that one of
// them sees. B rows, L tokens, N = B * L, H heads, G key/value heads, K head size.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "arguments.h"
#include "lanes.h"
#include "parallel.h"

using taichu::Arguments;
using taichu::dot;
using taichu::Matrix;
using taichu::padded;
using taichu::parallel_rows;
using taichu::product;

namespace {

constexpr int64_t QUERIES = 32;  // of a block

struct Shape {
  int64_t B, L, H, G, K;
  int64_t share() const { return H / G; }         // heads that read the same keys
  int64_t wide() const { return H * K; }          // floats of a token's queries
  int64_t narrow() const { return G * K; }        // and of its keys
};

// n tokens of one segment, the first of them `first` of N.
struct Run {
  int64_t first, n;
  bool padding;
};

std::vector<Run> runs_of(const int32_t* segment, const Shape& s) {
  std::vector<Run> runs;
  for (int64_t row = 0; row < s.B * s.L; row += s.L) {
    for (int64_t begin = row, end; begin < row + s.L; begin = end) {
      for (end = begin + 1; end < row + s.L && segment[end] == segment[begin];) ++end;
      runs.push_back({begin, end - begin, segment[begin] == 0});
    }
  }
  return runs;
}

// How many of a run's tokens each of them sees: up to itself, or to its span's end.
void reach(const int32_t* span, int64_t n, int64_t* seen) {
  for (int64_t i = n - 1; i >= 0; --i) {
    const bool joined = i + 1 < n && span[i] > 0 && span[i] == span[i + 1];
    seen[i] = joined ? seen[i + 1] : i + 1;
  }
}

// Room for work, its content undefined.
struct Room {
  std::unique_ptr<float[]> keys, values, p, ds;
  std::vector<int64_t> seen;

  Room(int64_t longest, int64_t K)
      : keys(new float[K * padded(longest)]),
        values(new float[K * padded(longest)]),
        p(new float[QUERIES * padded(longest)]),
        ds(new float[QUERIES * padded(longest)]),
        seen(longest) {}
};

// Calls work(run, g, room) for each run and group of heads that share keys, in parallel. A thread
// goes through the heads of a run one after the other: a token's heads are neighbours in memory.
template <typename Work>
void for_each_run(const int32_t* segment, const int32_t* span, const Shape& s, const Work& work) {
  const std::vector<Run> runs = runs_of(segment, s);
  int64_t longest = 0;
  for (const Run& run : runs) longest = std::max(longest, run.n);
  const int64_t units = runs.size() * s.G, block = std::max<int64_t>(1, units / 64);
  parallel_rows(
      units,
      [&](int64_t begin, int64_t end) {
        Room room(longest, s.K);
        for (int64_t unit = begin; unit < end; ++unit) {
          const Run& run = runs[unit / s.G];
          reach(span + run.first, run.n, room.seen.data());
          work(run, unit % s.G, room);
        }
      },
      block);
}

typedef float Four __attribute__((vector_size(4 * sizeof(float)), aligned(sizeof(float))));

inline Four four(const float* x) { return *reinterpret_cast<const Four*>(x); }
inline void store_four(float* out, Four x) { *reinterpret_cast<Four*>(out) = x; }

// Four rows of four floats of x, `row` floats from one to the next -> four columns.
inline void transpose_four(const float* x, int64_t row, int64_t width, float* columns) {
#if __has_builtin(__builtin_shufflevector)
  const Four a = four(x), b = four(x + row), c = four(x + 2 * row), d = four(x + 3 * row);
  const Four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const Four cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  store_four(columns, __builtin_shufflevector(ab, cd, 0, 1, 4, 5));
  store_four(columns + width, __builtin_shufflevector(ab, cd, 2, 3, 6, 7));
  const Four ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Four cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store_four(columns + 2 * width, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5));
  store_four(columns + 3 * width, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7));
#else
  for (int64_t k = 0; k < 4; ++k)
    for (int64_t i = 0; i < 4; ++i) columns[k * width + i] = x[i * row + k];
#endif
}

// x (n, K) -> columns (K, width), undefined past n.
void transpose(const float* x, int64_t row, int64_t n, int64_t K, int64_t width, float* columns) {
  const int64_t whole_n = n / 4 * 4, whole_K = K / 4 * 4;
  for (int64_t i = 0; i < whole_n; i += 4)
    for (int64_t k = 0; k < whole_K; k += 4)
      transpose_four(x + i * row + k, row, width, columns + k * width + i);
  for (int64_t k = 0; k < K; ++k)
    for (int64_t i = k < whole_K ? whole_n : 0; i < n; ++i) columns[k * width + i] = x[i * row + k];
}

// Zeros for n tokens' vectors of `size` floats, `row` floats from one to the next.
void clear(float* x, int64_t row, int64_t n, int64_t size) {
  for (int64_t i = 0; i < n; ++i) std::memset(x + i * row, 0, size * sizeof(float));
}

}  // namespace

// Inputs q (N, H, K), k and v (N, G, K), segment and span (B, L).
// Outputs o (N, H, K) and the log-sum-exp (N, H). Padding (segment 0) gives zeros.
TAICHU_KERNEL attention(int, void** data, int* ranks, int64_t** shapes, const char**, void*, void*) {
  Arguments a{data, ranks, shapes};
  const Shape s{a.dim(3, 0), a.dim(3, 1), a.dim(0, 1), a.dim(1, 1), a.dim(0, 2)};
  const float scale = 1.0f / std::sqrt(static_cast<float>(s.K));
  for_each_run(a.n(3), a.n(4), s, [&](const Run& run, int64_t g, Room& room) {
    const int64_t width = padded(run.n), group = run.first * s.narrow() + g * s.K;
    for (int64_t h = g * s.share(); h < (g + 1) * s.share(); ++h) {
      const int64_t head = run.first * s.wide() + h * s.K;
      if (run.padding) {
        clear(a.f(5) + head, s.wide(), run.n, s.K);
        clear(a.f(6) + run.first * s.H + h, s.H, run.n, 1);
        continue;
      }
      if (h == g * s.share())
        transpose(a.f(1) + group, s.narrow(), run.n, s.K, width, room.keys.get());
      for (int64_t i = 0; i < run.n; i += QUERIES) {
        const int64_t m = std::min(QUERIES, run.n - i), at = head + i * s.wide();
        const int64_t* own = room.seen.data() + i;
        const int64_t seen = *std::max_element(own, own + m);
        float* p = room.p.get();
        product<false>(m, s.K, padded(seen), {a.f(0) + at, s.wide()}, {room.keys.get(), width}, p,
                       width);
        for (int64_t r = 0; r < m; ++r) {
          float *line = p + r * width, largest = line[0], sum = 0;
          for (int64_t j = 1; j < own[r]; ++j) largest = std::max(largest, line[j]);
          for (int64_t j = 0; j < padded(own[r]); ++j) line[j] = std::exp((line[j] - largest) * scale);
          for (int64_t j = own[r]; j < seen; ++j) line[j] = 0;
          for (int64_t j = 0; j < own[r]; ++j) sum += line[j];
          for (int64_t j = 0; j < own[r]; ++j) line[j] /= sum;
          a.f(6)[(run.first + i + r) * s.H + h] = largest * scale + std::log(sum);
        }
        product<false>(m, seen, s.K, {p, width}, {a.f(2) + group, s.narrow()}, a.f(5) + at,
                       s.wide());
      }
    }
  });
  return 0;
}

// Inputs q, k, v, segment, span, o, log-sum-exp, dO. Outputs dQ, dK, dV.
TAICHU_KERNEL attention_gradient(int, void** data, int* ranks, int64_t** shapes, const char**,
                                 void*, void*) {
  Arguments a{data, ranks, shapes};
  const Shape s{a.dim(3, 0), a.dim(3, 1), a.dim(0, 1), a.dim(1, 1), a.dim(0, 2)};
  const float scale = 1.0f / std::sqrt(static_cast<float>(s.K));
  for_each_run(a.n(3), a.n(4), s, [&](const Run& run, int64_t g, Room& room) {
    const int64_t width = padded(run.n), group = run.first * s.narrow() + g * s.K;
    const float* k = a.f(1) + group;
    float *dk = a.f(9) + group, *dv = a.f(10) + group, *p = room.p.get(), *ds = room.ds.get();
    if (run.padding) {
      clear(dk, s.narrow(), run.n, s.K);
      clear(dv, s.narrow(), run.n, s.K);
    } else {
      transpose(k, s.narrow(), run.n, s.K, width, room.keys.get());
      transpose(a.f(2) + group, s.narrow(), run.n, s.K, width, room.values.get());
    }
    bool begun = false;  // dK and dV: the last block, the first one done, sees all keys
    for (int64_t h = g * s.share(); h < (g + 1) * s.share(); ++h) {
      const int64_t head = run.first * s.wide() + h * s.K;
      if (run.padding) {
        clear(a.f(8) + head, s.wide(), run.n, s.K);
        continue;
      }
      for (int64_t i = (run.n - 1) / QUERIES * QUERIES; i >= 0; i -= QUERIES) {
        const int64_t m = std::min(QUERIES, run.n - i), at = head + i * s.wide();
        const int64_t* own = room.seen.data() + i;
        const int64_t seen = *std::max_element(own, own + m);
        const Matrix q{a.f(0) + at, s.wide()}, o{a.f(5) + at, s.wide()}, d{a.f(7) + at, s.wide()};
        product<false>(m, s.K, padded(seen), q, {room.keys.get(), width}, p, width);
        product<false>(m, s.K, padded(seen), d, {room.values.get(), width}, ds, width);
        for (int64_t r = 0; r < m; ++r) {
          float *line = p + r * width, *dline = ds + r * width;
          const float log_sum = a.f(6)[(run.first + i + r) * s.H + h];
          const float delta = dot(d.data + r * d.row, o.data + r * o.row, s.K);
          for (int64_t j = 0; j < padded(own[r]); ++j) line[j] = std::exp(line[j] * scale - log_sum);
          for (int64_t j = own[r]; j < seen; ++j) line[j] = 0;
          for (int64_t j = 0; j < seen; ++j) dline[j] = line[j] * (dline[j] - delta) * scale;
        }
        product<false>(m, seen, s.K, {ds, width}, {k, s.narrow()}, a.f(8) + at, s.wide());
        const auto add = begun ? product<true> : product<false>;
        add(seen, m, s.K, {ds, 1, width}, q, dk, s.narrow());
        add(seen, m, s.K, {p, 1, width}, d, dv, s.narrow());
        begun = true;
      }
    }
  });
  return 0;
}
