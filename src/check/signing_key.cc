// SPDX-License-Identifier: Apache-2.0
#include "check/signing_key.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>

#include "base/check.h"
#include "base/mapped_file.h"
#include "base/user_folder.h"
#include "base/whole_file.h"
#include "check/hex.h"

namespace puna::check {
namespace {

constexpr size_t kLeastBytes = 16;
constexpr size_t kMostBytes = 4096;
constexpr size_t kFreshBytes = 32;
constexpr mode_t kOwnerOnly = 0600;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

}  // namespace

Result<SigningKey> SigningKey::from_text(std::string_view text, const std::string& where) {
  const std::string_view secret = trimmed(text);
  if (secret.size() < kLeastBytes || secret.size() > kMostBytes) {
    return Error(ErrorCode::kInvalidArgument, "{}: a key has {} to {} bytes, this one {}", where,
                 kLeastBytes, kMostBytes, secret.size());
  }
  return SigningKey(std::string(secret));
}

Result<SigningKey> SigningKey::load(const std::string& path) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(path));
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.size());
  return from_text(text, path);
}

Result<SigningKey> SigningKey::load_or_create(const std::string& path) {
  if (std::filesystem::exists(path)) return load(path);
  std::array<unsigned char, kFreshBytes> fresh{};
  if (RAND_bytes(fresh.data(), static_cast<int>(fresh.size())) != 1) {
    return Error(ErrorCode::kIo, "{}: no random bytes for a new key", path);
  }
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) {
    return Error(ErrorCode::kIo, "{}: the folder can't be made: {} (--key names another file)",
                 path, error.message());
  }
  RETURN_IF_ERROR(write_whole_file(path, hex(fresh) + "\n", kOwnerOnly));
  return load(path);
}

Result<std::string> SigningKey::default_path() {
  const std::string folder = user_folder("XDG_CONFIG_HOME", ".config");
  if (!folder.empty()) return folder + "/puna/check.key";
  return Error(ErrorCode::kInvalidArgument,
               "neither XDG_CONFIG_HOME nor HOME is set: name the key's file with --key");
}

std::string SigningKey::id() const { return sign("puna check key").substr(0, 16); }

std::string SigningKey::sign(std::string_view text) const {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  CHECK(HMAC(EVP_sha256(), secret_.data(), static_cast<int>(secret_.size()),
             reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data(),
             &size) != nullptr);
  return hex(std::span(digest).first(size));
}

bool same_signature(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace puna::check
