// SPDX-License-Identifier: Apache-2.0
// The program's operator new: malloc, and a count of what the sealed step loop takes
// (base/allocation_seal.h). Linked into `puna` alone.
#include <cstdlib>
#include <new>

#include "base/allocation_seal.h"
#include "base/sanitizers.h"

#if !PUNA_SANITIZED

void* operator new(size_t bytes) {
  puna::note_allocation();
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new(size_t bytes, std::align_val_t alignment) {
  puna::note_allocation();
  const auto unit = static_cast<size_t>(alignment);
  void* memory = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

#endif
