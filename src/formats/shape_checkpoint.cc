// SPDX-License-Identifier: Apache-2.0
// A checkpoint that is nothing but sizes: its weights stand at addresses that nobody may read, so a
// plan for a model that isn't here runs the code that the plan for a file runs.
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "formats/checkpoint.h"
#include "formats/checkpoint_state.h"
#include "formats/weight_names.h"

namespace puna::formats {
namespace {

Result<std::shared_ptr<const std::byte>> reserve_addresses(uint64_t bytes,
                                                           const std::string& name) {
  void* data =
      ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return Error(ErrorCode::kResourceExhausted, "{}: no addresses for {} bytes: {}", name, bytes,
                 std::strerror(errno));
  }
  return std::shared_ptr<const std::byte>(
      static_cast<const std::byte*>(data),
      [bytes](const std::byte* from) { ::munmap(const_cast<std::byte*>(from), bytes); });
}

Result<uint64_t> bytes_of(const WeightShape& shape, TensorType type, const std::string& name) {
  const TensorTypeInfo& info = tensor_type_info(type);
  if (shape.columns % info.block_elements != 0) {
    return Error(ErrorCode::kInvalidArgument,
                 "{}: rows of {} values are not whole blocks of {}, which hold {}", name,
                 shape.columns, info.name, info.block_elements);
  }
  const auto values = static_cast<uint64_t>(shape.rows) * static_cast<uint64_t>(shape.columns);
  const std::optional<uint64_t> bytes = tensor_bytes(type, values);
  if (!bytes) return Error(ErrorCode::kInvalidArgument, "{}: a weight is too large", name);
  return *bytes;
}

}  // namespace

Result<Checkpoint> Checkpoint::of_shape(const ModelSpec& spec, TensorType type,
                                        const std::string& name) {
  using enum WeightRole;
  auto state = std::make_unique<State>();
  state->path = name;
  state->spec = spec;
  std::vector<WeightId> ids = {{kTokenEmbedding}, {kOutputNorm}};
  if (!spec.tied_head) ids.push_back({kOutputHead});
  for (int32_t layer = 0; layer < spec.num_layers; ++layer) {
    for (const WeightRole role :
         {kAttnNorm, kAttnQ, kAttnK, kAttnV, kAttnOutput, kFfnNorm, kFfnGate, kFfnUp, kFfnDown}) {
      ids.push_back({role, layer});
    }
  }
  state->weights.resize(weight_count(spec));
  std::vector<uint64_t> sizes;
  for (const WeightId& id : ids) {
    const WeightShape shape = weight_shape(id.role, spec);
    TensorView& view = state->weights[weight_index(id)];
    view = {.name = state->path,
            .type = shape.is_vector ? TensorType::kF32 : type,
            .rows = shape.rows,
            .columns = shape.columns,
            .data = {}};
    ASSIGN_OR_RETURN(const uint64_t bytes, bytes_of(shape, view.type, name));
    sizes.push_back(bytes);
    state->weight_bytes += bytes;
  }
  ASSIGN_OR_RETURN(state->addresses, reserve_addresses(state->weight_bytes, name));
  const std::byte* next = state->addresses.get();
  for (size_t i = 0; i < ids.size(); ++i) {
    state->weights[weight_index(ids[i])].data = {next, sizes[i]};
    next += sizes[i];
  }
  if (spec.tied_head) {
    state->weights[weight_index({kOutputHead})] = state->weights[weight_index({kTokenEmbedding})];
  }
  return Checkpoint(std::move(state));
}

}  // namespace puna::formats
