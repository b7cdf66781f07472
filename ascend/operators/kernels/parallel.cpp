// What the threads of all kernels are told from outside.

#include "parallel.h"

// To be called before the first kernel runs; 0: as many as there are cores for this process.
extern "C" __attribute__((visibility("default"))) void limit_threads(int most) {
  taichu::most_threads = most;
}
