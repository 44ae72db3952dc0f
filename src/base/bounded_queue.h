// SPDX-License-Identifier: Apache-2.0
// A bounded multi-producer multi-consumer queue that never blocks and never allocates after
// construction: push fails when it is full, pop when it is empty. Capacity rounds up to a power of
// two. Source: Dmitry Vyukov, "Bounded MPMC queue" (sequence number per cell).
//
//   BoundedQueue<Work> queue(1024);
//   if (!queue.try_push(std::move(work))) refuse();
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

namespace puna {

template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity)
      : mask_(std::bit_ceil(capacity < 2 ? size_t{2} : capacity) - 1),
        cells_(std::make_unique<Cell[]>(mask_ + 1)) {
    for (size_t i = 0; i <= mask_; ++i) cells_[i].sequence.store(i, std::memory_order_relaxed);
  }

  size_t capacity() const { return mask_ + 1; }

  // Takes `value` only when it returns true.
  bool try_push(T&& value) {
    size_t position = tail_.load(std::memory_order_relaxed);
    for (;;) {
      Cell& cell = cells_[position & mask_];
      const auto lag =
          static_cast<intptr_t>(cell.sequence.load(std::memory_order_acquire) - position);
      if (lag < 0) return false;
      if (lag > 0) {
        position = tail_.load(std::memory_order_relaxed);
      } else if (tail_.compare_exchange_weak(position, position + 1, std::memory_order_relaxed)) {
        cell.value = std::move(value);
        cell.sequence.store(position + 1, std::memory_order_release);
        return true;
      }
    }
  }

  std::optional<T> try_pop() {
    size_t position = head_.load(std::memory_order_relaxed);
    for (;;) {
      Cell& cell = cells_[position & mask_];
      const auto lag =
          static_cast<intptr_t>(cell.sequence.load(std::memory_order_acquire) - (position + 1));
      if (lag < 0) return std::nullopt;
      if (lag > 0) {
        position = head_.load(std::memory_order_relaxed);
      } else if (head_.compare_exchange_weak(position, position + 1, std::memory_order_relaxed)) {
        std::optional<T> value(std::move(cell.value));
        cell.value = T{};
        cell.sequence.store(position + mask_ + 1, std::memory_order_release);
        return value;
      }
    }
  }

 private:
  struct Cell {
    std::atomic<size_t> sequence;
    T value{};
  };
  const size_t mask_;
  const std::unique_ptr<Cell[]> cells_;
  alignas(64) std::atomic<size_t> tail_{0};
  alignas(64) std::atomic<size_t> head_{0};
};

}  // namespace puna
