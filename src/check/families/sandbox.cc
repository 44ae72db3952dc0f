// SPDX-License-Identifier: Apache-2.0
#include "check/families/sandbox.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <utility>
#include <vector>

#include "check/families/sandbox_filter.h"

namespace puna::check {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kResultFd = 3;
constexpr int kFirstFreeFd = 16;  // above the child's 0 to 3, so that dup2 overwrites none
constexpr int kSetUpFailed = 126;

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }
  int get() const { return fd_; }
  void reset() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

// The same open file under a high number.
int moved_up(int fd) {
  if (fd < 0) return fd;
  const int high = fcntl(fd, F_DUPFD_CLOEXEC, kFirstFreeFd);
  close(fd);
  return high;
}

// Everything that the child needs, made before the fork: after it, only system calls are safe.
struct Launch {
  const char* python = nullptr;
  int program = -1;
  int nothing = -1;
  int result = -1;
  int folder = -1;  // deleted: nothing can be made in it
  pid_t parent = 0;
  SandboxLimits limits;
  sock_fprog filter = {};
};

bool limit(int resource, rlim_t value) {
  const rlimit both = {value, value};
  return setrlimit(static_cast<__rlimit_resource_t>(resource), &both) == 0;
}

bool limit_resources(const SandboxLimits& limits) {
  constexpr rlim_t kOpenFiles = 24;
  return limit(RLIMIT_CPU, limits.cpu_s) && limit(RLIMIT_AS, limits.memory_bytes) &&
         limit(RLIMIT_FSIZE, 0) && limit(RLIMIT_CORE, 0) && limit(RLIMIT_NOFILE, kOpenFiles) &&
         limit(RLIMIT_NPROC, 0);
}

// What root may do is given up, also for the program that follows. Best effort: the filter alone
// holds as well, and a process without privileges has none to give up.
void drop_privileges() {
  if (unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC) != 0) {
    unshare(CLONE_NEWNET | CLONE_NEWIPC);
  }
  prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                               SECBIT_NO_SETUID_FIXUP_LOCKED);
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  const std::array<__user_cap_data_struct, 2> none = {};
  syscall(SYS_capset, &header, none.data());
}

[[noreturn]] void become_python(const Launch& launch) {
  setsid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != launch.parent) _exit(kSetUpFailed);  // it died before the line above
  const bool in_place = dup2(launch.program, STDIN_FILENO) >= 0 &&
                        dup2(launch.nothing, STDOUT_FILENO) >= 0 &&
                        dup2(launch.nothing, STDERR_FILENO) >= 0 &&
                        dup2(launch.result, kResultFd) >= 0 && fchdir(launch.folder) == 0;
  if (!in_place || syscall(SYS_close_range, kResultFd + 1, ~0U, 0) != 0) _exit(kSetUpFailed);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  drop_privileges();
  if (!limit_resources(launch.limits)) _exit(kSetUpFailed);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(kSetUpFailed);
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &launch.filter) != 0) _exit(kSetUpFailed);
  // -I: no environment and no user's packages; -S: no site; -B: no cache files; -: read the
  // program.
  const std::array<const char*, 6> arguments = {launch.python, "-I", "-S", "-B", "-", nullptr};
  const std::array<const char*, 2> environment = {"PYTHONHASHSEED=0", nullptr};
  execve(launch.python, const_cast<char**>(arguments.data()),
         const_cast<char**>(environment.data()));
  _exit(kSetUpFailed);
}

// A python3 on PATH that is a program, not a script which starts one: scripts start processes.
std::string find_python() {
  const char* path = std::getenv("PATH");
  std::string_view rest = path == nullptr ? "/usr/local/bin:/usr/bin:/bin" : path;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(':'), rest.size());
    std::string candidate = fmt::format("{}/python3", rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (candidate[0] != '/' || access(candidate.c_str(), X_OK) != 0) continue;
    std::array<char, 4> magic = {};
    std::ifstream file(candidate, std::ios::binary);
    file.read(magic.data(), magic.size());
    if (file && std::memcmp(magic.data(), "\177ELF", magic.size()) == 0) return candidate;
  }
  return {};
}

const std::string& python() {
  static const std::string kFound = find_python();
  return kFound;
}

int program_file(std::string_view program) {
  const int fd = memfd_create("program", MFD_CLOEXEC);
  while (fd >= 0 && !program.empty()) {
    const ssize_t written = write(fd, program.data(), program.size());
    if (written <= 0) {
      close(fd);
      return -1;
    }
    program.remove_prefix(static_cast<size_t>(written));
  }
  if (fd >= 0) lseek(fd, 0, SEEK_SET);
  return fd;
}

int deleted_folder() {
  std::array<char, 32> name = {"/tmp/puna-sandbox-XXXXXX"};
  if (mkdtemp(name.data()) == nullptr) return -1;
  const int fd = open(name.data(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  rmdir(name.data());
  return fd;
}

int64_t left_ms(Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
  return std::max<int64_t>(0, left.count());
}

// Empty when all was read in time and within the limit.
std::string read_result(int fd, const SandboxLimits& limits, Clock::time_point deadline,
                        std::string& out) {
  std::array<char, 4096> buffer;
  while (true) {
    pollfd waiting = {fd, POLLIN, 0};
    const int ready = poll(&waiting, 1, static_cast<int>(left_ms(deadline)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return fmt::format("did not end within {} ms", limits.wall_ms);
    const ssize_t count = read(fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return {};
    out.append(buffer.data(), static_cast<size_t>(count));
    if (out.size() > limits.result_bytes) {
      return fmt::format("more than {} bytes of results", limits.result_bytes);
    }
  }
}

// Empty when the process ended by itself with exit code 0 before the deadline.
std::string wait_for(pid_t child, const SandboxLimits& limits, Clock::time_point deadline) {
  while (true) {
    int status = 0;
    const pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended == child) {
      if (WIFSIGNALED(status)) return fmt::format("ended by signal {}", WTERMSIG(status));
      const int code = WEXITSTATUS(status);
      if (code == kSetUpFailed) return "the sandbox could not be set up";
      return code == 0 ? std::string() : fmt::format("exit code {}", code);
    }
    if (ended < 0 && errno != EINTR) return "the process is gone";
    if (left_ms(deadline) == 0) {
      kill(-child, SIGKILL);
      kill(child, SIGKILL);
      while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
      return fmt::format("did not end within {} ms", limits.wall_ms);
    }
    constexpr timespec kPause = {0, 500'000};
    nanosleep(&kPause, nullptr);
  }
}

SandboxOutcome run_under(const std::vector<sock_filter>& filter, std::string_view program,
                         const SandboxLimits& limits) {
  SandboxOutcome outcome;
  std::array<int, 2> ends = {-1, -1};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) ends = {-1, -1};
  const Fd results(ends[0]);
  Fd result(moved_up(ends[1]));
  const Fd source(moved_up(program_file(program)));
  const Fd nothing(moved_up(open("/dev/null", O_WRONLY | O_CLOEXEC)));
  const Fd folder(moved_up(deleted_folder()));
  if (results.get() < 0 || result.get() < 0 || source.get() < 0 || nothing.get() < 0 ||
      folder.get() < 0) {
    outcome.why = fmt::format("no files for a sandbox: {}", std::strerror(errno));
    return outcome;
  }
  Launch launch;
  launch.python = python().c_str();
  launch.program = source.get();
  launch.nothing = nothing.get();
  launch.result = result.get();
  launch.folder = folder.get();
  launch.parent = getpid();
  launch.limits = limits;
  launch.filter.len = static_cast<uint16_t>(filter.size());
  launch.filter.filter = const_cast<sock_filter*>(filter.data());

  const auto deadline = Clock::now() + std::chrono::milliseconds(limits.wall_ms);
  const pid_t child = fork();
  if (child == 0) become_python(launch);
  if (child < 0) {
    outcome.why = fmt::format("no process for a sandbox: {}", std::strerror(errno));
    return outcome;
  }
  result.reset();
  outcome.why = read_result(results.get(), limits, deadline, outcome.result);
  const std::string ending = wait_for(child, limits, outcome.why.empty() ? deadline : Clock::now());
  if (outcome.why.empty()) outcome.why = ending;
  outcome.ended_well = outcome.why.empty();
  return outcome;
}

// Tries what the sandbox must forbid, in ways that do no harm where it does not.
constexpr std::string_view kProbe = R"py(
import os
passed = []
def must_fail(name, action):
    try:
        action()
    except OSError:
        return
    passed.append(name)
def connect():
    import _socket
    _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
must_fail("write", lambda: os.open("/dev/null", os.O_WRONLY))
must_fail("make", lambda: os.mkdir("x"))
must_fail("kill", lambda: os.kill(os.getppid(), 0))
try:
    must_fail("socket", connect)
except ImportError:
    pass
must_fail("fork", os.fork)
os.write(3, (" ".join(passed) or "held").encode())
)py";

std::string try_sandbox() {
  if (python().empty()) return "not certified: no python3 on PATH";
  const std::vector<sock_filter> filter = sandbox_filter();
  if (filter.empty()) return "not certified: no sandbox for this processor";
  const SandboxOutcome outcome = run_under(filter, kProbe, {});
  if (!outcome.ended_well) return fmt::format("not certified: no sandbox here: {}", outcome.why);
  if (outcome.result != "held") {
    return fmt::format("not certified: the sandbox lets through: {}", outcome.result);
  }
  return {};
}

}  // namespace

Result<> sandbox_works() {
  static const std::string kFault = try_sandbox();
  if (!kFault.empty()) return Error(ErrorCode::kUnsupported, kFault);
  return Ok{};
}

SandboxOutcome run_python(std::string_view program, const SandboxLimits& limits) {
  static const std::vector<sock_filter> kFilter = sandbox_filter();
  if (const auto works = sandbox_works(); !works.ok()) return {false, "", works.error().message()};
  return run_under(kFilter, program, limits);
}

std::string sandbox_nonce() {
  std::array<uint64_t, 2> bits = {};
  if (getrandom(bits.data(), sizeof(bits), 0) != static_cast<ssize_t>(sizeof(bits))) return {};
  return fmt::format("{:016x}{:016x}", bits[0], bits[1]);
}

}  // namespace puna::check
