// SPDX-License-Identifier: Apache-2.0
#include "base/whole_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <system_error>

namespace puna {
namespace {

// errno of what failed, or 0.
int write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(file, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return written == 0 ? EIO : errno;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return ::fsync(file) == 0 ? 0 : errno;
}

}  // namespace

Result<> write_whole_file(const std::string& path, std::string_view text, mode_t mode) {
  // Of this call alone: others may write the same file at the same time.
  static std::atomic<uint64_t> calls{0};
  const std::string partial = fmt::format("{}.{}-{}.partial", path, ::getpid(), calls++);
  const int file = ::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  int error = file < 0 ? errno : write_all(file, text);
  if (file >= 0 && ::close(file) != 0 && error == 0) error = errno;
  if (error == 0 && ::rename(partial.c_str(), path.c_str()) != 0) error = errno;
  if (error == 0) return Ok{};
  if (file >= 0) ::unlink(partial.c_str());
  return Error(ErrorCode::kIo, "{}: can't be written: {}", path,
               std::generic_category().message(error));
}

}  // namespace puna
