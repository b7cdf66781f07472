// A small pool of threads that sleep while there is nothing to do (an OpenMP team would spin and
// take the cores from the framework's own threads).
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#endif

namespace taichu {

// The most threads that computing may take, 0 for no limit; to be set before the first kernel runs.
inline std::atomic<int> most_threads{0};

// By default the cores that this process may run on; hardware_concurrency counts the machine's.
inline int thread_count() {
  if (int most = most_threads) return most;
#ifdef __linux__
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0) return CPU_COUNT(&cores);
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

class Pool {
 public:
  static Pool& instance() {
    static Pool* pool = new Pool();  // never destroyed: its threads may outlive static objects
    return *pool;
  }

  // Calls work(i) for every i in [0, count), on all threads; returns when all are done. A thread
  // that wakes up too late to help is not waited for.
  void run(int64_t count, const std::function<void(int64_t)>& work) {
    std::unique_lock<std::mutex> alone(entrance_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work;
      count_ = count;
      next_ = 0;
    }
    wake_.notify_all();
    drain();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return helping_ == 0; });
    work_ = nullptr;
  }

 private:
  Pool() {
    for (int i = thread_count(); i > 1; --i) {
      threads_.emplace_back([this] { serve(); });
      threads_.back().detach();
    }
  }

  void drain() {
    for (int64_t i = next_++; i < count_; i = next_++) (*work_)(i);
  }

  void serve() {
#ifdef __linux__
    pthread_setname_np(pthread_self(), "taichu");  // as debuggers and top show it
#endif
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return work_ && next_ < count_; });
      ++helping_;
      lock.unlock();
      drain();
      lock.lock();
      if (--helping_ == 0) done_.notify_one();
    }
  }

  std::mutex entrance_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  const std::function<void(int64_t)>* work_ = nullptr;
  std::atomic<int64_t> next_{0};
  int64_t count_ = 0;
  int helping_ = 0;
};

// Splits [0, rows) into blocks and calls work(first, last) for each.
inline void parallel_rows(int64_t rows, const std::function<void(int64_t, int64_t)>& work,
                          int64_t block = 128) {
  int64_t blocks = (rows + block - 1) / block;
  if (blocks <= 1) return work(0, rows);
  Pool::instance().run(blocks, [&](int64_t i) {
    work(i * block, std::min(rows, (i + 1) * block));
  });
}

}  // namespace taichu
