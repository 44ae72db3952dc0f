// SPDX-License-Identifier: Apache-2.0
// Who may call, and what each caller may do. Keys are held as SHA-256 digests and compared in
// constant time, so that neither their length nor a common prefix shows in the time an answer
// takes. Keys of one tenant share its fair share of the machine; each has its own token rate and
// its own prefix cache.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/token_rate.h"
#include "engine/engine.h"

namespace puna::api {

struct KeyPolicy {
  std::string key = {};
  std::string tenant = "default";
  engine::RequestClass highest_class = engine::RequestClass::kInteractive;
  double weight = 1.0;            // the tenant's, the same for all its keys
  double cache_share = 0.0;       // the tenant's too; 0: by weight
  int64_t tokens_per_minute = 0;  // prompt and output; 0: no limit
};

// The tenants of `keys` in the order of their first keys: Caller::tenant counts in it. Without
// keys, the one tenant that everybody is.
std::vector<engine::TenantPolicy> tenants_of(std::span<const KeyPolicy> keys);

// Who sent a request. Lives as long as the ApiKeys.
struct Caller {
  int32_t tenant = 0;  // index into tenants_of()
  uint64_t salt = 0;   // of the prefix cache
  engine::RequestClass highest_class = engine::RequestClass::kInteractive;
  TokenRate* rate = nullptr;  // null: no limit
};

class ApiKeys {
 public:
  explicit ApiKeys(std::span<const KeyPolicy> keys);

  bool required() const { return !entries_.empty(); }
  // By an Authorization header: null when it holds no valid key. Without keys everyone is the same
  // caller.
  const Caller* caller(std::string_view authorization) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  struct Entry {
    Digest digest;
    Caller caller;
    std::unique_ptr<TokenRate> rate;
  };
  static Digest digest(std::string_view text);
  std::vector<Entry> entries_;
  Caller anyone_;
};

// The prefix cache's salt: nobody can compute or share the salt of another key, whatever
// `client_salt` they send.
uint64_t cache_salt(uint64_t key_salt, std::string_view client_salt);

}  // namespace puna::api
