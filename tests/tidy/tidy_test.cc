// SPDX-License-Identifier: Apache-2.0
// A test that reads the source: sizes, include direction, banned calls, licence lines. The house
// rules that a compiler doesn't know.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

namespace puna {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxColumns = 100;
constexpr size_t kMaxFileLines = 600;
constexpr size_t kMaxFunctionLines = 70;
constexpr size_t kMaxArchitectureLines = 300;

// Folders in pipeline order; a folder includes itself and smaller ranks only.
const std::map<std::string, int, std::less<>> kRank = {
    {"base", 0}, {"formats", 1}, {"quant", 2}, {"kernels", 3}, {"model", 4},
    {"kv", 5},   {"engine", 6},  {"plan", 7},  {"route", 8},   {"check", 8},
    {"api", 9},  {"load", 9},    {"cli", 10}};

struct Exception {
  std::string_view file;
  std::string_view reason;
};
// Files that may be longer than kMaxFileLines.
constexpr std::array<Exception, 1> kLongFiles = {{
    {"src/model/unicode_tables.cc", "generated table"},
}};

// Files with a reason to throw: a library's interface says so, and they catch it themselves.
constexpr std::array<Exception, 2> kThrowing = {{
    {"src/api/api_request.cc", "a memory_resource reports exhaustion by std::bad_alloc"},
    {"src/cli/counting_new.cc", "operator new reports exhaustion by std::bad_alloc"},
}};

struct Banned {
  const char* pattern;
  const char* instead;
};
constexpr std::array<Banned, 10> kBanned = {{
    {R"(\bthrow\b)", "Result<T>"},
    {R"(\bs?rand\()", "a seeded generator"},
    {R"(\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atof)\()", "bounded string functions"},
    {R"(\bsystem\()", "nothing: the server starts no process"},
    {R"(\bassert\()", "CHECK, which is on in every build"},
    {R"(std::regex)", "a parser: std::regex recurses on its input"},
    {R"(std::endl)", "'\\n'"},
    {R"(using namespace std;)", "qualified names"},
    {R"(\b(TODO|FIXME|XXX|HACK)\b)", "an issue, or the thing itself"},
    {R"(\bstd::(cout|cerr)\b)", "fmt::print or spdlog"},
}};

struct Source {
  std::string path;  // relative to the repository
  std::vector<std::string> lines;
};

std::vector<Source> read_sources(const std::vector<std::string>& folders) {
  std::vector<Source> sources;
  const fs::path root = PUNA_SOURCE_DIR;
  for (const auto& folder : folders) {
    if (!fs::exists(root / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      const auto extension = entry.path().extension();
      if (extension != ".h" && extension != ".cc") continue;
      Source source{fs::relative(entry.path(), root).string(), {}};
      std::ifstream file(entry.path());
      for (std::string line; std::getline(file, line);) source.lines.push_back(line);
      sources.push_back(std::move(source));
    }
  }
  std::sort(sources.begin(), sources.end(), [](auto& a, auto& b) { return a.path < b.path; });
  return sources;
}

const std::vector<Source>& all_sources() {
  static const auto sources = read_sources({"src", "tests", "bench", "tools"});
  return sources;
}

bool is_test(const std::string& path) {
  return path.ends_with("_test.cc") || path.ends_with("_fuzz.cc") || path.starts_with("tests/") ||
         path.find("/test_") != std::string::npos;
}

template <size_t kCount>
bool listed(const std::array<Exception, kCount>& exceptions, const std::string& path) {
  return std::any_of(exceptions.begin(), exceptions.end(),
                     [&](auto& exception) { return exception.file == path; });
}

TEST(Tidy, FindsTheSources) { EXPECT_GT(all_sources().size(), 50U); }

TEST(Tidy, EveryFileNamesItsLicence) {
  for (const auto& source : all_sources()) {
    ASSERT_FALSE(source.lines.empty()) << source.path;
    EXPECT_EQ(source.lines.front(), "// SPDX-License-Identifier: Apache-2.0") << source.path;
  }
}

TEST(Tidy, HeadersGuardAgainstDoubleInclusion) {
  for (const auto& source : all_sources()) {
    if (!source.path.ends_with(".h")) continue;
    EXPECT_NE(std::find(source.lines.begin(), source.lines.end(), "#pragma once"),
              source.lines.end())
        << source.path;
  }
}

TEST(Tidy, FilesAndLinesAreShort) {
  for (const auto& source : all_sources()) {
    if (listed(kLongFiles, source.path)) continue;
    EXPECT_LE(source.lines.size(), kMaxFileLines) << source.path;
    for (size_t i = 0; i < source.lines.size(); ++i) {
      // Counted in characters, not bytes: continuation bytes of UTF-8 don't take a column.
      const auto columns = std::count_if(source.lines[i].begin(), source.lines[i].end(),
                                         [](char c) { return (c & 0xC0) != 0x80; });
      EXPECT_LE(static_cast<size_t>(columns), kMaxColumns) << source.path << ":" << i + 1;
    }
  }
}

// With our formatting a function's body opens with a line that starts at column 0 and ends in "{",
// and closes with "}" at column 0.
TEST(Tidy, FunctionsFitAScreen) {
  const std::regex not_a_function(
      R"(^(namespace|struct|class|enum|union|extern|const|constexpr|static const|TEST))");
  for (const auto& source : all_sources()) {
    size_t opened = 0;
    bool inside = false;
    for (size_t i = 0; i < source.lines.size(); ++i) {
      const auto& line = source.lines[i];
      if (!inside && !line.empty() && line.back() == '{' && line[0] != '}' && line[0] != '#') {
        const bool starts_here = line[0] != ' ';
        if (starts_here && std::regex_search(line, not_a_function)) continue;
        if (!starts_here && line.find(')') == std::string::npos) continue;
        if (!starts_here && !line.starts_with("    ")) continue;  // a member of a class
        opened = i;
        inside = true;
      } else if (inside && line == "}") {
        inside = false;
        EXPECT_LE(i - opened, kMaxFunctionLines) << source.path << ":" << opened + 1;
      } else if (inside && line.starts_with("}")) {
        inside = false;
      }
    }
  }
}

TEST(Tidy, IncludesPointLeft) {
  const std::regex include(R"re(^#include "([a-z_]+)/)re");
  for (const auto& source : all_sources()) {
    if (!source.path.starts_with("src/")) continue;
    const std::string folder = source.path.substr(4, source.path.find('/', 4) - 4);
    ASSERT_TRUE(kRank.contains(folder)) << source.path << ": unknown folder";
    for (const auto& line : source.lines) {
      std::smatch match;
      if (!std::regex_search(line, match, include)) continue;
      const std::string target = match[1];
      ASSERT_TRUE(kRank.contains(target)) << source.path << ": " << line;
      EXPECT_TRUE(target == folder || kRank.at(target) < kRank.at(folder))
          << source.path << ": " << line;
    }
  }
}

// So every header that has a source of its own is seen to compile alone.
TEST(Tidy, SourcesIncludeTheirOwnHeaderFirst) {
  int seen = 0;
  for (const auto& source : read_sources({"src"})) {
    if (!source.path.ends_with(".cc")) continue;
    const std::string header = source.path.substr(0, source.path.size() - 2) + "h";
    if (!fs::exists(fs::path(PUNA_SOURCE_DIR) / header)) continue;
    ++seen;
    const auto first = std::ranges::find_if(
        source.lines, [](const std::string& line) { return line.starts_with("#include"); });
    EXPECT_TRUE(first != source.lines.end() &&
                *first == "#include \"" + header.substr(header.find('/') + 1) + "\"")
        << source.path;
  }
  EXPECT_GT(seen, 100);
}

TEST(Tidy, NoBannedCalls) {
  std::vector<std::regex> patterns;
  for (const auto& banned : kBanned) patterns.emplace_back(banned.pattern);
  for (const auto& source : all_sources()) {
    if (is_test(source.path)) continue;
    for (size_t i = 0; i < source.lines.size(); ++i) {
      const std::string code = source.lines[i].substr(0, source.lines[i].find("//"));
      const bool markers_only = code.size() != source.lines[i].size();
      for (size_t b = 0; b < kBanned.size(); ++b) {
        const bool marker =
            std::string_view(kBanned[b].pattern).find("TODO") != std::string_view::npos;
        const bool throws =
            std::string_view(kBanned[b].pattern).find("throw") != std::string_view::npos;
        if (throws && listed(kThrowing, source.path)) continue;
        const std::string& text = marker && markers_only ? source.lines[i] : code;
        EXPECT_FALSE(std::regex_search(text, patterns[b]))
            << source.path << ":" << i + 1 << ": use " << kBanned[b].instead;
      }
    }
  }
}

TEST(Tidy, StepLoopHasNoMutex) {
  for (const auto& source : all_sources()) {
    if (!source.path.starts_with("src/engine/") && !source.path.starts_with("src/kv/")) continue;
    if (is_test(source.path)) continue;
    for (const auto& line : source.lines) {
      EXPECT_EQ(line.find("std::mutex"), std::string::npos) << source.path << ": " << line;
    }
  }
}

TEST(Tidy, NoPathsOfOneMachine) {
  for (const auto& source : all_sources()) {
    if (source.path == "tests/tidy/tidy_test.cc") continue;
    for (const auto& line : source.lines) {
      for (const char* path : {"/root/", "/home/", "/work/"}) {
        EXPECT_EQ(line.find(path), std::string::npos) << source.path << ": " << line;
      }
    }
  }
}

TEST(Tidy, EveryFolderExplainsItself) {
  for (const auto& entry : fs::directory_iterator(fs::path(PUNA_SOURCE_DIR) / "src")) {
    EXPECT_TRUE(fs::exists(entry.path() / "README.md")) << entry.path();
    EXPECT_TRUE(fs::exists(entry.path() / "CMakeLists.txt")) << entry.path();
  }
}

TEST(Tidy, ArchitectureStaysReadable) {
  std::ifstream file(fs::path(PUNA_SOURCE_DIR) / "docs/architecture.md");
  ASSERT_TRUE(file.good());
  size_t lines = 0;
  for (std::string line; std::getline(file, line);) ++lines;
  EXPECT_LE(lines, kMaxArchitectureLines);
}

}  // namespace
}  // namespace puna
