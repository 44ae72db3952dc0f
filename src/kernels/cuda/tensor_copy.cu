// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/tensor_copy.cuh"

#include <cuda_runtime.h>

#include "base/check.h"
#include "kernels/cuda/stream.h"

namespace puna::kernels::cuda {

CUtensorMap box_map(const Float16* data, int64_t rows, int64_t columns, int box_rows,
                    CUtensorMapL2promotion promotion) {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found = {};
    check_device(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                  cudaEnableDefault, &found),
                 "looking for cuTensorMapEncodeTiled");
    CHECK(found == cudaDriverEntryPointSuccess);
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(columns) * sizeof(Float16)};
  const cuuint32_t box[] = {kBoxColumns, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[] = {1, 1};
  CUtensorMap map;
  CHECK_EQ(encode(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, const_cast<Float16*>(data), sizes,
                  strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  promotion, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
           CUDA_SUCCESS);
  return map;
}

int multiprocessors_with_code(const void* kernel) {
  cudaFuncAttributes attributes = {};
  check_device(cudaFuncGetAttributes(&attributes, kernel), "a kernel's attributes");
  if (attributes.ptxVersion != 90 || attributes.binaryVersion != 90) return 0;
  int device = 0;
  int count = 0;
  check_device(cudaGetDevice(&device), "asking for the device");
  check_device(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
               "asking for multiprocessors");
  return count;
}

}  // namespace puna::kernels::cuda
