// SPDX-License-Identifier: Apache-2.0
#include "check/weights_hash.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/check.h"
#include "base/mapped_file.h"
#include "check/hex.h"

namespace puna::check {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> names_ending_in(const fs::path& folder, const std::string& start,
                                         const std::string& end) {
  std::vector<std::string> paths;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(start) && name.ends_with(end)) paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// Of "NAME-00001-of-00003.gguf" all three, else the file itself.
std::vector<std::string> weight_files(const std::string& path) {
  if (fs::is_directory(path)) return names_ending_in(path, "", ".safetensors");
  constexpr size_t kShardDigits = 5;
  const std::string name = fs::path(path).filename().string();
  const size_t of = name.rfind("-of-");
  if (of == std::string::npos || of < kShardDigits + 1 || !name.ends_with(".gguf")) return {path};
  const std::string start = name.substr(0, of - kShardDigits);
  if (!start.ends_with('-')) return {path};
  const fs::path parent = fs::path(path).parent_path();
  return names_ending_in(parent.empty() ? "." : parent, start, name.substr(of));
}

}  // namespace

Result<std::string> weights_hash(const std::string& path) {
  const std::vector<std::string> files = weight_files(path);
  if (files.empty()) {
    return Error(ErrorCode::kNotFound, "{}: there are no .safetensors files in it", path);
  }
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(),
                                                                   EVP_MD_CTX_free);
  CHECK(context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
  for (const std::string& file : files) {
    ASSIGN_OR_RETURN(const MappedFile mapped, MappedFile::open(file));
    CHECK(EVP_DigestUpdate(context.get(), mapped.bytes().data(), mapped.size()) == 1);
  }
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  CHECK(EVP_DigestFinal_ex(context.get(), digest.data(), &size) == 1);
  return hex(std::span(digest).first(size));
}

}  // namespace puna::check
