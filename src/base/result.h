// SPDX-License-Identifier: Apache-2.0
// Errors as values. Everything that input can cause (files, HTTP, flags, model contents) returns a
// Result<T>; broken invariants use CHECK (base/check.h). No exception crosses a folder.
//
//   Result<Model> open(const std::string& path) {
//     ASSIGN_OR_RETURN(MappedFile file, MappedFile::open(path));
//     if (file.size() < 24) return Error(ErrorCode::kCorrupt, "{}: too short", path);
//     ...
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/check.h"

namespace puna {

enum class ErrorCode : uint8_t {
  kInvalidArgument,    // the caller's value is wrong: HTTP 400, exit code 2
  kNotFound,           // a named thing does not exist: HTTP 404
  kUnsupported,        // well-formed, but Puna does not do it
  kCorrupt,            // a file's bytes contradict its format
  kResourceExhausted,  // does not fit (memory, queue): HTTP 429 where it can pass
  kUnavailable,        // not ready, draining: HTTP 503
  kIo,                 // the operating system refused
  kInternal,
};

std::string_view error_code_name(ErrorCode code);

// A code and a message that names the thing, the value, the limit and the way out.
class Error {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
  template <typename First, typename... Rest>
  Error(ErrorCode code, fmt::format_string<First, Rest...> format, First&& first, Rest&&... rest)
      : code_(code),
        message_(fmt::format(format, std::forward<First>(first), std::forward<Rest>(rest)...)) {}

  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }

  // The same error with "context: " in front of its message.
  Error with_context(std::string_view context) && {
    message_ = fmt::format("{}: {}", context, message_);
    return std::move(*this);
  }

 private:
  ErrorCode code_;
  std::string message_;
};

// kIo, with errno: "path: creating it failed: No space left on device".
Error system_error(std::string_view path, std::string_view action);

struct Ok {};

// Either a T or an Error. Result<> (T = Ok) is the result of an action without a value.
template <typename T = Ok>
class [[nodiscard]] Result {
 public:
  // Implicit, so that a function returns its value or its error as it is.
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & {
    CHECK(ok());
    return std::get<0>(state_);
  }
  const T& value() const& {
    CHECK(ok());
    return std::get<0>(state_);
  }
  T&& value() && {
    CHECK(ok());
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const& {
    CHECK(!ok());
    return std::get<1>(state_);
  }
  Error&& error() && {
    CHECK(!ok());
    return std::get<1>(std::move(state_));
  }

 private:
  std::variant<T, Error> state_;
};

}  // namespace puna

#define PUNA_CONCAT_INNER(a, b) a##b
#define PUNA_CONCAT(a, b) PUNA_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expression)                           \
  do {                                                        \
    if (auto puna_result = (expression); !puna_result.ok()) { \
      return std::move(puna_result).error();                  \
    }                                                         \
  } while (false)

#define ASSIGN_OR_RETURN(declaration, expression) \
  ASSIGN_OR_RETURN_NAMED(PUNA_CONCAT(puna_result_, __LINE__), declaration, expression)
#define ASSIGN_OR_RETURN_NAMED(name, declaration, expression) \
  auto name = (expression);                                   \
  if (!name.ok()) return std::move(name).error();             \
  declaration = std::move(name).value()
