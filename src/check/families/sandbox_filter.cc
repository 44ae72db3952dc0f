// SPDX-License-Identifier: Apache-2.0
#include "check/families/sandbox_filter.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace puna::check {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
constexpr uint32_t kArchitecture = 0;
#endif

// What a Python interpreter of one thread needs to start, compute, read its library and end.
constexpr std::array kAllowed = {
    SYS_read,
    SYS_readv,
    SYS_pread64,
    SYS_write,
    SYS_writev,
    SYS_close,
    SYS_lseek,
    SYS_fstat,
    SYS_statx,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_readlinkat,
    SYS_getdents64,
    SYS_getcwd,
    SYS_fcntl,
    SYS_dup,
    SYS_mmap,
    SYS_mprotect,
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_brk,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_execve,  // python3 itself; another program would stay under this filter
    SYS_exit,
    SYS_exit_group,
    SYS_futex,
    SYS_set_tid_address,
    SYS_set_robust_list,
    SYS_rseq,
    SYS_getrandom,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_gettimeofday,
    SYS_times,
    SYS_getrusage,
    SYS_uname,
    SYS_sysinfo,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_getpid,
    SYS_getppid,
    SYS_gettid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
#if defined(__x86_64__)
    SYS_arch_prctl,
    SYS_stat,
    SYS_lstat,
    SYS_newfstatat,
    SYS_access,
    SYS_readlink,
    SYS_time,
    SYS_getrlimit,
#elif defined(__aarch64__)
    SYS_newfstatat,
#endif
};

constexpr uint32_t kFail = SECCOMP_RET_ERRNO | (static_cast<uint32_t>(EPERM));
constexpr uint32_t kForWriting =
    O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND | (O_TMPFILE & ~O_DIRECTORY);

sock_filter load(size_t offset) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset));
}
sock_filter jump_if(uint16_t test, uint32_t value, uint8_t when_true, uint8_t when_false) {
  return BPF_JUMP(static_cast<uint16_t>(BPF_JMP | test | BPF_K), value, when_true, when_false);
}
sock_filter give(uint32_t verdict) { return BPF_STMT(BPF_RET | BPF_K, verdict); }

// The low half of an argument; both processors are little-endian.
constexpr size_t argument(size_t i) { return offsetof(seccomp_data, args) + i * sizeof(uint64_t); }

void allow(std::vector<sock_filter>& program, long call) {
  program.push_back(jump_if(BPF_JEQ, static_cast<uint32_t>(call), 0, 1));
  program.push_back(give(SECCOMP_RET_ALLOW));
}

// Allowed where the flags in argument `flags` ask for no writing. The call's number stays loaded.
void allow_reading(std::vector<sock_filter>& program, long call, size_t flags) {
  program.push_back(jump_if(BPF_JEQ, static_cast<uint32_t>(call), 0, 4));
  program.push_back(load(argument(flags)));
  program.push_back(jump_if(BPF_JSET, kForWriting, 0, 1));
  program.push_back(give(kFail));
  program.push_back(give(SECCOMP_RET_ALLOW));
}

// prlimit64 with a null pointer to new limits reads the old ones.
void allow_reading_limits(std::vector<sock_filter>& program) {
  program.push_back(jump_if(BPF_JEQ, SYS_prlimit64, 0, 6));
  program.push_back(load(argument(2)));
  program.push_back(jump_if(BPF_JEQ, 0, 0, 3));
  program.push_back(load(argument(2) + sizeof(uint32_t)));
  program.push_back(jump_if(BPF_JEQ, 0, 0, 1));
  program.push_back(give(SECCOMP_RET_ALLOW));
  program.push_back(give(kFail));
}

}  // namespace

std::vector<sock_filter> sandbox_filter() {
  if (kArchitecture == 0) return {};
  std::vector<sock_filter> program;
  program.push_back(load(offsetof(seccomp_data, arch)));
  program.push_back(jump_if(BPF_JEQ, kArchitecture, 1, 0));
  program.push_back(give(SECCOMP_RET_KILL_PROCESS));
  program.push_back(load(offsetof(seccomp_data, nr)));
#if defined(__x86_64__)
  constexpr uint32_t kX32Bit = 0x40000000;  // the x32 calls number anew from here
  program.push_back(jump_if(BPF_JGE, kX32Bit, 0, 1));
  program.push_back(give(SECCOMP_RET_KILL_PROCESS));
  allow_reading(program, SYS_open, 1);
#endif
  allow_reading(program, SYS_openat, 2);
  allow_reading_limits(program);
  for (const auto call : kAllowed) allow(program, call);
  // Is this a terminal? No.
  program.push_back(jump_if(BPF_JEQ, SYS_ioctl, 0, 1));
  program.push_back(give(SECCOMP_RET_ERRNO | static_cast<uint32_t>(ENOTTY)));
  program.push_back(give(kFail));
  return program;
}

}  // namespace puna::check
