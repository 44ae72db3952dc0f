// SPDX-License-Identifier: Apache-2.0
// The secret with which certificates are signed: a text file that only its owner reads.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace puna::check {

class SigningKey {
 public:
  // A file's bytes without white space around them, 16 at least.
  static Result<SigningKey> load(const std::string& path);
  // The same; where there is no file, a fresh random key is written (mode 0600).
  static Result<SigningKey> load_or_create(const std::string& path);
  static Result<SigningKey> from_text(std::string_view text, const std::string& where);
  // $XDG_CONFIG_HOME/puna/check.key, else ~/.config/puna/check.key. Errors: neither is known.
  static Result<std::string> default_path();

  std::string id() const;                         // 16 hex digits that don't give the key away
  std::string sign(std::string_view text) const;  // HMAC-SHA256, hex

 private:
  explicit SigningKey(std::string secret) : secret_(std::move(secret)) {}
  std::string secret_;
};

// Without telling by its time where they differ.
bool same_signature(std::string_view a, std::string_view b);

}  // namespace puna::check
