// SPDX-License-Identifier: Apache-2.0
// Who may call: API keys, held as SHA-256 digests and compared in constant time, so that neither
// their length nor a common prefix shows in the time an answer takes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace puna::api {

class ApiKeys {
 public:
  explicit ApiKeys(std::span<const std::string> keys);

  bool required() const { return !digests_.empty(); }
  // The tenant of an Authorization header: empty when it holds no valid key. Without keys everyone
  // is tenant 0.
  std::optional<uint64_t> tenant(std::string_view authorization) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  static Digest digest(std::string_view text);
  std::vector<Digest> digests_;
};

// The prefix cache's salt: nobody can compute or share the salt of another key's tenant, whatever
// `client_salt` they send.
uint64_t cache_salt(uint64_t tenant, std::string_view client_salt);

}  // namespace puna::api
