// SPDX-License-Identifier: Apache-2.0
// A compressed-tensors folder but for its weights: that it is there whole or not at all, its
// config.json, and the small files that go with it.
//
//   PartialFolder partial("out");
//   RETURN_IF_ERROR(partial.make());
//   RETURN_IF_ERROR(write_folder_config(checkpoint, scheme, group, partial.path()));
//   ...
//   return partial.put_in_place();
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "quant/folder_scheme.h"

namespace puna::quant {

// Made under another name beside its place, and thrown away unless put there.
class PartialFolder {
 public:
  explicit PartialFolder(std::string place);
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;
  ~PartialFolder();

  // Throws away one that a killed run left. Errors: kInvalidArgument when something else has one of
  // the two names, kIo from the disk.
  Result<> make();
  const std::string& path() const { return path_; }
  Result<> put_in_place();

 private:
  const std::string place_;
  const std::string path_;
  bool made_ = false;
};

// The checkpoint's config.json with a quantization_config; W4A16 has a scale per `group` columns.
Result<> write_folder_config(const formats::Checkpoint& checkpoint, FolderScheme scheme,
                             int64_t group, const std::string& folder);

// Tokenizer, chat template, licence: every small file of `from` that is neither weights nor
// settings.
Result<> copy_other_files(const std::string& from, const std::string& folder);

}  // namespace puna::quant
