// SPDX-License-Identifier: Apache-2.0
#include "api/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <cstring>

namespace puna::api {
namespace {

constexpr std::string_view kBearer = "bearer ";

bool starts_with_bearer(std::string_view text) {
  if (text.size() < kBearer.size()) return false;
  for (size_t i = 0; i < kBearer.size(); ++i) {
    const char c = text[i];
    if ((c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c) != kBearer[i]) return false;
  }
  return true;
}

}  // namespace

ApiKeys::Digest ApiKeys::digest(std::string_view text) {
  Digest result{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), result.data());
  return result;
}

ApiKeys::ApiKeys(std::span<const std::string> keys) {
  digests_.reserve(keys.size());
  for (const std::string& key : keys) digests_.push_back(digest(key));
}

std::optional<uint64_t> ApiKeys::tenant(std::string_view authorization) const {
  if (!required()) return 0;
  if (!starts_with_bearer(authorization)) return std::nullopt;
  const Digest given = digest(authorization.substr(kBearer.size()));
  const Digest* match = nullptr;
  for (const Digest& known : digests_) {  // all of them, whichever matches
    if (CRYPTO_memcmp(given.data(), known.data(), known.size()) == 0) match = &known;
  }
  if (match == nullptr) return std::nullopt;
  uint64_t tenant = 0;
  std::memcpy(&tenant, match->data(), sizeof(tenant));
  return tenant;
}

uint64_t cache_salt(uint64_t tenant, std::string_view client_salt) {
  if (client_salt.empty()) return tenant;
  std::string text(reinterpret_cast<const char*>(&tenant), sizeof(tenant));
  text += client_salt;
  std::array<unsigned char, 32> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  uint64_t salt = 0;
  std::memcpy(&salt, digest.data(), sizeof(salt));
  return salt;
}

}  // namespace puna::api
