// Vectors of floats as the machine has them, and small matrix products of them.
#pragma once

#include <cstdint>

namespace taichu {

// As many floats as a product keeps in registers: one register of AVX-512, or two of smaller ones.
#ifdef __AVX512F__
constexpr int64_t LANES = 16;
#else
constexpr int64_t LANES = 8;
#endif

// a vector extension of GCC and Clang, on every architecture
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float))));

inline Lanes load(const float* x) { return *reinterpret_cast<const Lanes*>(x); }
inline void store(float* out, Lanes x) { *reinterpret_cast<Lanes*>(out) = x; }

// The smallest multiple of LANES that holds n.
inline int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

inline float dot(const float* a, const float* b, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

inline void add_scaled(float* out, const float* x, float factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] += factor * x[i];
}

// A matrix in memory: element (i, j) stands at data[i * row + j * column].
struct Matrix {
  const float* data;
  int64_t row, column = 1;
};

// R rows and C times LANES columns of out (+)= a b; `inner` is the length of the sums.
template <int R, int C, bool ADD>
inline void product_tile(int64_t inner, Matrix a, Matrix b, float* out, int64_t out_row) {
  Lanes sum[R][C] = {};
  for (int64_t t = 0; t < inner; ++t) {
    for (int c = 0; c < C; ++c) {
      const Lanes x = load(b.data + t * b.row + c * LANES);
      for (int r = 0; r < R; ++r) sum[r][c] += a.data[r * a.row + t * a.column] * x;
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) {
      float* at = out + r * out_row + c * LANES;
      store(at, ADD ? load(at) + sum[r][c] : sum[r][c]);
    }
  }
}

template <int R, bool ADD>
inline void product_rows(int64_t inner, int64_t columns, Matrix a, Matrix b, float* out,
                         int64_t out_row) {
  int64_t j = 0;
  for (; j + 2 * LANES <= columns; j += 2 * LANES)
    product_tile<R, 2, ADD>(inner, a, {b.data + j, b.row}, out + j, out_row);
  for (; j + LANES <= columns; j += LANES)
    product_tile<R, 1, ADD>(inner, a, {b.data + j, b.row}, out + j, out_row);
  for (; j < columns; ++j) {
    for (int r = 0; r < R; ++r) {
      float sum = ADD ? out[r * out_row + j] : 0;
      for (int64_t t = 0; t < inner; ++t)
        sum += a.data[r * a.row + t * a.column] * b.data[t * b.row + j];
      out[r * out_row + j] = sum;
    }
  }
}

// out (+)= a b: a (rows, inner) in any order, b (inner, columns) and out row by row.
template <bool ADD>
inline void product(int64_t rows, int64_t inner, int64_t columns, Matrix a, Matrix b, float* out,
                    int64_t out_row) {
  for (; rows >= 4; rows -= 4, a.data += 4 * a.row, out += 4 * out_row)
    product_rows<4, ADD>(inner, columns, a, b, out, out_row);
  if (rows == 3) product_rows<3, ADD>(inner, columns, a, b, out, out_row);
  if (rows == 2) product_rows<2, ADD>(inner, columns, a, b, out, out_row);
  if (rows == 1) product_rows<1, ADD>(inner, columns, a, b, out, out_row);
}

}  // namespace taichu
