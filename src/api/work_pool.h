// SPDX-License-Identifier: Apache-2.0
// A few threads for work that would hold up an I/O thread: parsing and tokenising long bodies. Its
// queue is bounded by the number of connections, each of which has at most one job.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace puna::api {

class WorkPool {
 public:
  explicit WorkPool(int threads);
  ~WorkPool() { stop(); }

  // False: stopped, and the job was not taken.
  bool post(std::function<void()> job);
  // Runs what is queued, then ends the threads.
  void stop();

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<std::function<void()>> jobs_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace puna::api
