// What MindSpore hands to an ahead-of-time custom operator: inputs first, then outputs.
#pragma once

#include <cstdint>

#define TAICHU_KERNEL extern "C" __attribute__((visibility("default"))) int

namespace taichu {

struct Arguments {
  void** data;
  int* ranks;
  int64_t** shapes;

  template <typename T>
  T* as(int i) const { return static_cast<T*>(data[i]); }
  float* f(int i) const { return as<float>(i); }
  int32_t* n(int i) const { return as<int32_t>(i); }
  int64_t dim(int i, int axis) const { return shapes[i][axis < 0 ? ranks[i] + axis : axis]; }
  int64_t size(int i) const {
    int64_t count = 1;
    for (int axis = 0; axis < ranks[i]; ++axis) count *= shapes[i][axis];
    return count;
  }
};

}  // namespace taichu
