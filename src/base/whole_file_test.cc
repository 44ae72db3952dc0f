// SPDX-License-Identifier: Apache-2.0
#include "base/whole_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

namespace puna {
namespace {

namespace fs = std::filesystem;

class WholeFile : public testing::Test {
 protected:
  WholeFile() {
    std::string pattern = (fs::temp_directory_path() / "puna_whole_file_XXXXXX").string();
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  ~WholeFile() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  static std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::ptrdiff_t files() const {
    return std::distance(fs::directory_iterator(folder_), fs::directory_iterator());
  }

 private:
  std::string folder_;
};

TEST_F(WholeFile, NothingIsLeftWhenTheDiskIsFull) {
  const std::string report = path("report.html");
  ASSERT_TRUE(write_whole_file(report, "the old one").ok());
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit tight{.rlim_cur = 1000, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  const auto full = write_whole_file(report, std::string(5000, 'x'));
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  ASSERT_FALSE(full.ok());
  EXPECT_NE(full.error().message().find(report), std::string::npos);
  EXPECT_EQ(read(report), "the old one");
  EXPECT_EQ(files(), 1);
  EXPECT_TRUE(write_whole_file(report, "new").ok());
  EXPECT_EQ(read(report), "new");
  EXPECT_FALSE(write_whole_file(path("none/report.html"), "x").ok());
}

TEST_F(WholeFile, OfTwoWritersAtOnceOneIsTheLast) {
  const std::string shared = path("tuned");
  const std::array<std::string, 2> texts = {std::string(300'000, 'a'), std::string(200'000, 'b')};
  for (int round = 0; round < 10; ++round) {
    std::array<bool, 2> written = {};
    std::array<std::thread, 2> writers;
    for (size_t i = 0; i < 2; ++i) {
      writers[i] = std::thread([&, i] { written[i] = write_whole_file(shared, texts[i]).ok(); });
    }
    for (std::thread& writer : writers) writer.join();
    EXPECT_TRUE(written[0] && written[1]);
    const std::string text = read(shared);
    EXPECT_TRUE(text == texts[0] || text == texts[1]) << text.size() << " bytes";
  }
  EXPECT_EQ(files(), 1);
}

}  // namespace
}  // namespace puna
