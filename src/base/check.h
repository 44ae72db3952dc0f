// SPDX-License-Identifier: Apache-2.0
// CHECK ends the process when an invariant of Puna's own code is broken. Nothing that a client or a
// file can send may reach one: input errors are Result<T> (base/result.h). On in every build.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace puna {

[[noreturn]] inline void check_failed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace puna

#define CHECK(condition)                                    \
  do {                                                      \
    if (!(condition)) [[unlikely]]                          \
      ::puna::check_failed(__FILE__, __LINE__, #condition); \
  } while (false)
#define CHECK_EQ(a, b) CHECK((a) == (b))
#define CHECK_NE(a, b) CHECK((a) != (b))
#define CHECK_LE(a, b) CHECK((a) <= (b))
#define CHECK_LT(a, b) CHECK((a) < (b))
#define CHECK_GE(a, b) CHECK((a) >= (b))
#define CHECK_GT(a, b) CHECK((a) > (b))
