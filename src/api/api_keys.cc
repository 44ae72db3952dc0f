// SPDX-License-Identifier: Apache-2.0
#include "api/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
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

std::vector<engine::TenantPolicy> tenants_of(std::span<const KeyPolicy> keys) {
  std::vector<engine::TenantPolicy> tenants;
  for (const KeyPolicy& key : keys) {
    const auto same = [&](const engine::TenantPolicy& tenant) { return tenant.name == key.tenant; };
    if (std::any_of(tenants.begin(), tenants.end(), same)) continue;
    engine::TenantPolicy& tenant = tenants.emplace_back();
    tenant.name = key.tenant;
    tenant.weight = key.weight;
    tenant.kv_share = key.cache_share;
  }
  if (tenants.empty()) tenants.emplace_back();
  return tenants;
}

ApiKeys::ApiKeys(std::span<const KeyPolicy> keys) {
  const std::vector<engine::TenantPolicy> tenants = tenants_of(keys);
  entries_.reserve(keys.size());
  for (const KeyPolicy& key : keys) {
    Entry& entry = entries_.emplace_back();
    entry.digest = digest(key.key);
    const auto same = [&](const engine::TenantPolicy& tenant) { return tenant.name == key.tenant; };
    entry.caller.tenant =
        static_cast<int32_t>(std::find_if(tenants.begin(), tenants.end(), same) - tenants.begin());
    std::memcpy(&entry.caller.salt, entry.digest.data(), sizeof(entry.caller.salt));
    entry.caller.highest_class = key.highest_class;
    if (key.tokens_per_minute == 0) continue;
    entry.rate = std::make_unique<TokenRate>(key.tokens_per_minute);
    entry.caller.rate = entry.rate.get();
  }
}

const Caller* ApiKeys::caller(std::string_view authorization) const {
  if (!required()) return &anyone_;
  if (!starts_with_bearer(authorization)) return nullptr;
  const Digest given = digest(authorization.substr(kBearer.size()));
  const Caller* match = nullptr;
  for (const Entry& entry : entries_) {  // all of them, whichever matches
    if (CRYPTO_memcmp(given.data(), entry.digest.data(), given.size()) == 0) match = &entry.caller;
  }
  return match;
}

uint64_t cache_salt(uint64_t key_salt, std::string_view client_salt) {
  if (client_salt.empty()) return key_salt;
  std::string text(reinterpret_cast<const char*>(&key_salt), sizeof(key_salt));
  text += client_salt;
  std::array<unsigned char, 32> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  uint64_t salt = 0;
  std::memcpy(&salt, digest.data(), sizeof(salt));
  return salt;
}

}  // namespace puna::api
