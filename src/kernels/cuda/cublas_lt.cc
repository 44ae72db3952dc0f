// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cublas_lt.h"

#include <dlfcn.h>

namespace puna::kernels::cuda {
namespace {

constexpr const char* kPlaces[] = {"libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.13"};

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

}  // namespace

Result<CublasLt> CublasLt::open() {
  void* library = nullptr;
  for (const char* place : kPlaces) {
    if (library == nullptr) library = dlopen(place, RTLD_NOW | RTLD_LOCAL);
  }
  if (library == nullptr) {
    return Error(
        ErrorCode::kUnavailable,
        "cuBLASLt is missing: neither {} nor {} can be opened; install CUDA 13's cuBLAS or "
        "name its folder in LD_LIBRARY_PATH",
        kPlaces[0], kPlaces[1]);
  }
  CublasLt lt = {};
  const bool complete = find(library, "cublasLtCreate", lt.create) &&
                        find(library, "cublasLtGetVersion", lt.version) &&
                        find(library, "cublasLtMatmul", lt.matmul) &&
                        find(library, "cublasLtMatmulDescCreate", lt.desc_create) &&
                        find(library, "cublasLtMatmulDescSetAttribute", lt.desc_set) &&
                        find(library, "cublasLtMatrixLayoutCreate", lt.layout_create) &&
                        find(library, "cublasLtMatrixLayoutSetAttribute", lt.layout_set) &&
                        find(library, "cublasLtMatmulPreferenceCreate", lt.preference_create) &&
                        find(library, "cublasLtMatmulPreferenceSetAttribute", lt.preference_set) &&
                        find(library, "cublasLtMatmulAlgoGetHeuristic", lt.heuristic) &&
                        find(library, "cublasLtMatmulAlgoConfigGetAttribute", lt.algo_get) &&
                        find(library, "cublasLtMatmulAlgoCheck", lt.algo_check);
  if (!complete) return Error(ErrorCode::kUnavailable, "{} lacks a function", kPlaces[0]);
  return lt;
}

}  // namespace puna::kernels::cuda
