// SPDX-License-Identifier: Apache-2.0
// Programs that try to do harm: nothing happens outside, and none of them scores.
#include "check/families/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "check/families/family.h"

namespace puna::check {
namespace {

namespace fs = std::filesystem;

SandboxLimits short_limits() {
  SandboxLimits limits;
  limits.cpu_s = 1;
  limits.wall_ms = 3000;
  return limits;
}

class SandboxTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto works = sandbox_works(); !works.ok()) GTEST_SKIP() << works.error().message();
  }
};

SandboxOutcome run(const std::string& program) { return run_python(program, short_limits()); }

// What an action ends with, as the program reports it.
std::string attempt(const std::string& action) {
  return run("import os\ntry:\n    " + action +
             "\n    os.write(3, b'done')\nexcept OSError as fault:\n"
             "    os.write(3, type(fault).__name__.encode())\n")
      .result;
}

// No other process of ours may be a child.
bool has_children() {
  siginfo_t info = {};
  return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

TEST_F(SandboxTest, RunsAProgram) {
  const SandboxOutcome outcome =
      run("import os, json, math, re, collections\nos.write(3, str(6 * 7).encode())");
  EXPECT_TRUE(outcome.ended_well) << outcome.why;
  EXPECT_EQ(outcome.result, "42");
  EXPECT_FALSE(has_children());
}

TEST_F(SandboxTest, TellsHowAProgramFailed) {
  EXPECT_EQ(run("raise ValueError").why, "exit code 1");
  EXPECT_EQ(run("import os; os._exit(9)").why, "exit code 9");
  EXPECT_EQ(run("this is no Python").why, "exit code 1");
  EXPECT_TRUE(run("").ended_well);
  EXPECT_TRUE(run("").result.empty());
}

TEST_F(SandboxTest, ForkBombMakesNoProcess) {
  const SandboxOutcome outcome = run(
      "import os\nmade = 0\nfor i in range(1000):\n    try:\n        os.fork()\n        made += 1\n"
      "    except OSError:\n        pass\nos.write(3, str(made).encode())");
  EXPECT_EQ(outcome.result, "0");
  EXPECT_EQ(attempt("import _thread; _thread.start_new_thread(print, ())"), "");  // RuntimeError
  EXPECT_EQ(attempt("os.posix_spawn('/bin/true', ['true'], {})"), "PermissionError");
  EXPECT_EQ(attempt("import subprocess; subprocess.run(['/bin/true'])"), "PermissionError");
  EXPECT_FALSE(has_children());
}

TEST_F(SandboxTest, WritesNoFile) {
  const fs::path folder = fs::path(testing::TempDir()) / "sandbox_target";
  fs::create_directories(folder);
  const std::string file = (folder / "precious").string();
  std::fclose(std::fopen(file.c_str(), "w"));
  EXPECT_EQ(attempt("open('" + file + "', 'w')"), "PermissionError");
  EXPECT_EQ(attempt("open('" + file + "', 'a')"), "PermissionError");
  EXPECT_EQ(attempt("open('" + file + "', 'r+')"), "PermissionError");
  EXPECT_EQ(attempt("os.remove('" + file + "')"), "PermissionError");
  EXPECT_EQ(attempt("os.rename('" + file + "', '" + file + "2')"), "PermissionError");
  EXPECT_EQ(attempt("os.truncate('" + file + "', 0)"), "PermissionError");
  EXPECT_EQ(attempt("os.chmod('" + file + "', 0)"), "PermissionError");
  EXPECT_EQ(attempt("os.mkdir('" + file + "3')"), "PermissionError");
  EXPECT_EQ(attempt("os.symlink('a', '" + file + "4')"), "PermissionError");
  EXPECT_EQ(attempt("open('here', 'w')"), "PermissionError");
  EXPECT_EQ(attempt("os.memfd_create('x')"), "PermissionError");
  // Rights don't help: not even the descriptor that the program came in can grow.
  EXPECT_EQ(attempt("os.write(0, b'x' * 100000)"), "OSError");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 1);
  EXPECT_EQ(attempt("open('" + file + "')"), "done") << "reading is allowed";
}

TEST_F(SandboxTest, OpensNoSocket) {
  // A listener of this test: nothing may arrive there.
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(listener, 4), 0);
  socklen_t length = sizeof(address);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);
  const std::string port = std::to_string(ntohs(address.sin_port));
  EXPECT_EQ(attempt("import socket; socket.create_connection(('127.0.0.1', " + port + "), 1)"),
            "PermissionError");
  EXPECT_EQ(attempt("import socket; socket.socket(socket.AF_UNIX)"), "PermissionError");
  EXPECT_EQ(attempt("import socket; socket.socketpair()"), "PermissionError");
  EXPECT_LT(accept(listener, nullptr, nullptr), 0);
  EXPECT_EQ(errno, EAGAIN);
  close(listener);
}

TEST_F(SandboxTest, EatsNoMemory) {
  const SandboxOutcome outcome = run("x = []\nwhile True:\n    x.append(bytearray(1 << 24))");
  EXPECT_FALSE(outcome.ended_well);
  EXPECT_TRUE(run("x = bytearray(64 << 20)").ended_well);
}

TEST_F(SandboxTest, LoopsEnd) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(run("while True:\n    pass").ended_well);
  EXPECT_FALSE(run("import time\ntime.sleep(1000)").ended_well);
  EXPECT_FALSE(run("import signal\nfor s in range(1, 32):\n    try:\n        signal.signal(s, "
                   "signal.SIG_IGN)\n    except OSError:\n        pass\nwhile True:\n    pass")
                   .ended_well);
  EXPECT_FALSE(run("import os\nos.close(3)\nwhile True:\n    pass").ended_well);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
  EXPECT_FALSE(has_children());
}

TEST_F(SandboxTest, SignalsReachNobody) {
  const std::string parent = std::to_string(getpid());
  EXPECT_EQ(attempt("os.kill(" + parent + ", 9)"), "PermissionError");
  EXPECT_EQ(attempt("os.kill(os.getppid(), 9)"), "PermissionError");
  EXPECT_EQ(attempt("os.kill(-1, 9)"), "PermissionError");
  EXPECT_EQ(attempt("os.killpg(0, 9)"), "PermissionError");
  EXPECT_EQ(attempt("os.setpriority(os.PRIO_PROCESS, 0, 5)"), "PermissionError");
  EXPECT_EQ(attempt("import resource; resource.setrlimit(resource.RLIMIT_CPU, (99, 99))"),
            "");  // ValueError: not permitted
}

TEST_F(SandboxTest, GigabytesOfOutputAreCut) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(run("while True:\n    print('x' * 1000000)").ended_well);
  const SandboxOutcome outcome = run("import os\nwhile True:\n    os.write(3, b'x' * 60000)");
  EXPECT_FALSE(outcome.ended_well);
  EXPECT_NE(outcome.why.find("bytes of results"), std::string::npos) << outcome.why;
  EXPECT_LT(outcome.result.size(), size_t{1} << 20U);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(12));
}

TEST_F(SandboxTest, AnotherProgramStaysInside) {
  const std::string kill = "kill -9 " + std::to_string(getpid()) + " || exit 7";
  EXPECT_EQ(run("import os\nos.execv('/bin/sh', ['sh', '-c', '" + kill + "'])").why, "exit code 7");
  // A new program gets no rights and no processes back.
  EXPECT_FALSE(run("import os\nos.execv('/bin/sh', ['sh', '-c', '/bin/true'])").ended_well);
}

TEST_F(SandboxTest, ManyThreadsAtOnce) {
  std::vector<std::thread> threads;
  std::array<std::string, 8> results;
  for (size_t i = 0; i < results.size(); ++i) {
    threads.emplace_back([&results, i] {
      results[i] = run_python("import os\nos.write(3, b'" + std::to_string(i) + "')", {}).result;
    });
  }
  for (auto& thread : threads) thread.join();
  for (size_t i = 0; i < results.size(); ++i) EXPECT_EQ(results[i], std::to_string(i));
}

TEST_F(SandboxTest, LeavesNoFilesAndNoDescriptors) {
  const auto descriptors = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  const auto leftovers = [] {
    int count = 0;
    for (const auto& entry : fs::directory_iterator("/tmp")) {
      count += entry.path().filename().string().starts_with("puna-sandbox") ? 1 : 0;
    }
    return count;
  };
  const auto before = descriptors();
  for (int i = 0; i < 5; ++i) run("print(1)");
  EXPECT_EQ(descriptors(), before);
  EXPECT_EQ(leftovers(), 0);
}

// The scorer's side: the same programs as answers of a model.
TEST_F(SandboxTest, HarmfulAnswersScoreZero) {
  const Item item = make_item({Family::kCode, 3, 0, 0});
  const std::string function = item.oracle.substr(0, item.oracle.find('\n') + 1);
  EXPECT_TRUE(score(item, item.oracle).correct);
  for (const std::string body :
       {"import os; os.fork(); return x", "open('/tmp/puna-harm', 'w')",
        "import socket; socket.socket()", "return [0] * (1 << 40)", "import os; os._exit(0)",
        "import os; os.kill(os.getppid(), 9)", "import os; os.write(3, b'[0,0,0,0,0,0]')",
        "return print('x' * 1000000)", "return x.__class__", "raise SystemExit(0)",
        "return (lambda f: f(f))(lambda f: f(f))"}) {
    const Score bad = score(item, function + "    " + body + "\n");
    EXPECT_FALSE(bad.correct) << body;
    EXPECT_FALSE(bad.why.empty());
  }
  EXPECT_FALSE(fs::exists("/tmp/puna-harm"));
}

// --- machines that lack something, each in a process of its own ----------------------------------

class SandboxMachineTest : public testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

// Exits 0 when the sandbox is refused for the given reason.
[[noreturn]] void exit_on_refusal(const std::string& reason) {
  const auto works = can_score(Family::kCode);
  const bool refused = !works.ok() && works.error().message().find("not certified") == 0 &&
                       works.error().message().find(reason) != std::string::npos;
  if (!refused)
    std::fprintf(stderr, "%s\n", works.ok() ? "works" : works.error().message().c_str());
  // What can't be contained is not run either.
  const bool ran = run_python("import os\nos.write(3, b'ran')", {}).result == "ran";
  std::exit(refused && !ran ? 0 : 1);
}

TEST_F(SandboxMachineTest, WithoutPythonIsNotCertified) {
  EXPECT_EXIT(
      {
        setenv("PATH", "/nonexistent", 1);
        exit_on_refusal("no python3");
      },
      testing::ExitedWithCode(0), "");
}

// A script named python3 (a version manager's) starts processes: it is passed over.
TEST_F(SandboxMachineTest, AScriptIsNoPython) {
  EXPECT_EXIT(
      {
        const fs::path folder = fs::path(testing::TempDir()) / "shims";
        fs::create_directories(folder);
        FILE* script = std::fopen((folder / "python3").c_str(), "w");
        std::fputs("#!/bin/sh\n", script);
        std::fclose(script);
        fs::permissions(folder / "python3", fs::perms::owner_all);
        setenv("PATH", folder.c_str(), 1);
        exit_on_refusal("no python3");
      },
      testing::ExitedWithCode(0), "");
}

// Makes one system call fail with ENOSYS in this process and its children.
bool forbid(uint32_t call) {
  std::array<sock_filter, 4> program = {{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog filter = {static_cast<uint16_t>(program.size()), program.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST_F(SandboxMachineTest, WithoutSeccompIsNotCertified) {
  EXPECT_EXIT(
      {
        if (!forbid(SYS_seccomp)) std::exit(2);
        exit_on_refusal("could not be set up");
      },
      testing::ExitedWithCode(0), "");
}

TEST_F(SandboxMachineTest, WithoutNamespacesTheFilterHolds) {
  EXPECT_EXIT(
      {
        if (!forbid(SYS_unshare) || unshare(CLONE_NEWNET) == 0) std::exit(2);
        if (!sandbox_works().ok()) std::exit(3);
        const std::string program =
            "import os, socket\ntry:\n    socket.socket()\nexcept PermissionError:\n"
            "    os.write(3, b'held')\n";
        std::exit(run_python(program, {}).result == "held" ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace puna::check
