// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/tuning_store.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "formats/test_files.h"

namespace puna::kernels::cuda {
namespace {

constexpr const char* kMachine = "a GPU, driver 1, cuBLASLt 2";
constexpr const char* kSubject = "28672 x 4096, f16";
const std::vector<TunedRows> kRows = {{1, {16, 0xFEDCBA9876543210, 0}}, {8, {}}, {256, {1}}};

class TuningStoreTest : public testing::Test {
 protected:
  TuningStoreTest() : store_(folder_ / "made/when/needed", kMachine) {}
  formats::ScratchFolder folder_;
  TuningStore store_;
};

TEST_F(TuningStoreTest, RecallsWhatWasKept) {
  EXPECT_TRUE(store_.recall(kSubject).empty());
  store_.keep(kSubject, kRows);
  EXPECT_EQ(store_.recall(kSubject), kRows);
  store_.keep(kSubject, std::vector<TunedRows>{{3, {7}}});
  EXPECT_EQ(store_.recall(kSubject), (std::vector<TunedRows>{{3, {7}}}));
  EXPECT_EQ(store_.problem(), "");
  EXPECT_TRUE(store_.recall("28672 x 4096, f32").empty());
}

TEST_F(TuningStoreTest, AnotherMachineHasItsOwn) {
  store_.keep(kSubject, kRows);
  TuningStore other(store_.folder(), "a GPU, driver 2, cuBLASLt 2");
  EXPECT_TRUE(other.recall(kSubject).empty());
  other.keep(kSubject, std::vector<TunedRows>{{3, {7}}});
  EXPECT_EQ(store_.recall(kSubject), kRows);
  // Not even when the file's name is right.
  std::filesystem::copy_file(other.path_of(kSubject), store_.path_of(kSubject),
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE(store_.recall(kSubject).empty());
}

TEST_F(TuningStoreTest, AFileThatIsNotWholeIsNone) {
  store_.keep(kSubject, kRows);
  const std::string path = store_.path_of(kSubject);
  const std::string whole = formats::read_text(path);
  for (size_t size = 0; size + 1 < whole.size(); ++size) {
    formats::write_text(path, whole.substr(0, size));
    EXPECT_TRUE(store_.recall(kSubject).empty()) << size;
  }
  const std::string header = whole.substr(0, whole.find("1 10 "));
  for (const std::string line : {"x 1", "1x 1", "1 1x", "0 1", "-1 1", "99999999999 1", "1 g",
                                 "1 11112222333344445", "1  1", "2 1\n1 1", "1 1\n1 1", ""}) {
    formats::write_text(path, header + line + "\nend\n");
    EXPECT_TRUE(store_.recall(kSubject).empty()) << line;
  }
  formats::write_text(path, header + "1 1\nend\n");
  EXPECT_EQ(store_.recall(kSubject).size(), 1U);
  std::string long_text = header;
  for (int rows = 1; long_text.size() < (size_t{1} << 20); ++rows)
    long_text += std::to_string(rows) + " 1\n";
  formats::write_text(path, long_text + "end\n");
  EXPECT_TRUE(store_.recall(kSubject).empty()) << "longer than any that is written";
}

TEST_F(TuningStoreTest, WithoutAFolderNothingIsKept) {
  TuningStore none;
  none.keep(kSubject, kRows);
  EXPECT_EQ(none.problem(), "");
  EXPECT_TRUE(none.recall(kSubject).empty());
}

TEST_F(TuningStoreTest, AFolderThatCanNotBeMadeIsAProblemWithItsName) {
  formats::write_text(folder_ / "file", "");
  TuningStore store(folder_ / "file/folder", kMachine);
  store.keep(kSubject, kRows);
  EXPECT_NE(store.problem().find(folder_ / "file/folder"), std::string::npos) << store.problem();
  EXPECT_TRUE(store.recall(kSubject).empty());
}

}  // namespace
}  // namespace puna::kernels::cuda
