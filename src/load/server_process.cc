// SPDX-License-Identifier: Apache-2.0
#include "load/server_process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "load/text_numbers.h"

namespace puna::load {
namespace {

constexpr std::string_view kListening = "listening on ";
constexpr TimeNs kPollNs = 20 * kNsPerMs;

// The child starts with no signal blocked, whatever this thread blocks.
Result<pid_t> spawn(const std::vector<std::string>& flags, int stdout_fd) {
  std::vector<std::string> words = {"puna", "serve", "--port", "0"};
  words.insert(words.end(), flags.begin(), flags.end());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t none;
  sigemptyset(&none);
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, stdout_fd, STDOUT_FILENO);
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t pid = 0;
  const int code =
      ::posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (code != 0) return Error(ErrorCode::kIo, "starting puna serve: error {}", code);
  return pid;
}

}  // namespace

Result<std::unique_ptr<ServerProcess>> ServerProcess::start(
    const std::vector<std::string>& serve_flags, TimeNs timeout_ns) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return Error(ErrorCode::kIo, "no pipe: errno {}", errno);
  Result<pid_t> pid = spawn(serve_flags, ends[1]);
  ::close(ends[1]);
  if (!pid.ok()) {
    ::close(ends[0]);
    return std::move(pid).error();
  }
  std::unique_ptr<ServerProcess> server(new ServerProcess(*pid, ends[0]));
  RETURN_IF_ERROR(server->wait_for_url(timeout_ns));
  return server;
}

ServerProcess::~ServerProcess() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  ::close(output_fd_);
}

Result<> ServerProcess::wait_for_url(TimeNs timeout_ns) {
  const SteadyClock clock;
  const TimeNs end_ns = clock.now_ns() + timeout_ns;
  std::string output;
  while (clock.now_ns() < end_ns) {
    pollfd wanted{.fd = output_fd_, .events = POLLIN, .revents = 0};
    if (::poll(&wanted, 1, static_cast<int>(kPollNs / kNsPerMs)) <= 0) continue;
    char buffer[1024];
    const ssize_t size = ::read(output_fd_, buffer, sizeof(buffer));
    if (size <= 0) return Error(ErrorCode::kInvalidArgument, "puna serve ended at once, see above");
    output.append(buffer, static_cast<size_t>(size));
    const size_t at = output.find(kListening);
    if (at == std::string::npos || output.find('\n', at) == std::string::npos) continue;
    const size_t from = at + kListening.size();
    url_ = output.substr(from, output.find_first_of(" \n", from) - from);
    return Ok{};
  }
  return Error(ErrorCode::kUnavailable, "puna serve does not listen after {} s",
               timeout_ns / kNsPerSecond);
}

int ServerProcess::stop(TimeNs timeout_ns) {
  const SteadyClock clock;
  const TimeNs end_ns = clock.now_ns() + timeout_ns;
  ::kill(pid_, SIGTERM);
  int status = 0;
  while (::waitpid(pid_, &status, WNOHANG) == 0) {
    if (clock.now_ns() > end_ns) return -1;
    std::this_thread::sleep_for(std::chrono::nanoseconds(kPollNs));
  }
  pid_ = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int64_t resident_bytes(pid_t pid) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with("VmRSS:")) continue;
    const size_t digit = line.find_first_of("0123456789");
    if (digit == std::string::npos) return 0;
    const std::string_view rest = std::string_view(line).substr(digit);
    return parse_number<int64_t>(rest.substr(0, rest.find(' '))).value_or(0) * 1024;
  }
  return 0;
}

}  // namespace puna::load
