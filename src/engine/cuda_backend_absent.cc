// SPDX-License-Identifier: Apache-2.0
#include "engine/cuda_backend.h"

namespace puna::engine {
namespace {

Error absent() {
  return Error(
      ErrorCode::kUnavailable,
      "this program was built without CUDA; build the preset release-cuda, or use --device "
      "cpu");
}

}  // namespace

Result<CudaBackend> make_cuda_backend(const formats::Checkpoint& /*checkpoint*/,
                                      const CudaBackendConfig& /*config*/) {
  return absent();
}

Result<CudaBackend> make_random_cuda_backend(const formats::ModelSpec& /*spec*/,
                                             const CudaBackendConfig& /*config*/) {
  return absent();
}

double time_cuda_graph(Backend& /*backend*/, int32_t /*times*/) { return 0; }

Result<CudaMemory> cuda_memory(int32_t /*device*/) { return absent(); }

Result<double> measure_cuda_read(int32_t /*device*/) { return absent(); }

}  // namespace puna::engine
