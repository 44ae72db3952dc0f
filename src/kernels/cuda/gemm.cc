// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/gemm.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/check.h"
#include "kernels/cuda/cublas_lt.h"
#include "kernels/cuda/device_timer.h"
#include "kernels/cuda/gemm_few_rows.h"
#include "kernels/cuda/row_kernels.h"

namespace puna::kernels::cuda {
namespace {

// Splitting K pays where few outputs meet a long K: 4096 x 14336 on an H100 takes 42.6 us in two
// pieces against 73.1 in one at 1 row, 53.5 against 66.7 at 256.
constexpr int64_t kLongColumns = 8192;
constexpr int64_t kPieceUnit = 128;
constexpr int32_t kLongPieces = 2;

constexpr int32_t kReferenceRows = 256;  // its first algorithm gives the bits that others must
constexpr int32_t kComparedRows = 16;
constexpr int32_t kSmallRows = 256;    // up to here every candidate is timed
constexpr int32_t kFewCandidates = 3;  // beyond
constexpr int32_t kMostCandidates = 8;

#define RETURN_IF_CUBLAS(expression)                                                       \
  do {                                                                                     \
    if (const cublasStatus_t lt_status = (expression); lt_status != CUBLAS_STATUS_SUCCESS) \
      return Error(ErrorCode::kInternal, "cuBLASLt: status {} from {}",                    \
                   static_cast<int>(lt_status), #expression);                              \
  } while (false)

struct Plan {
  int32_t rows = 0;  // that run
  bool own = false;  // by few_rows_gemm(), not the library
  cublasLtMatrixLayout_t x = nullptr;
  cublasLtMatrixLayout_t out = nullptr;
  cublasLtMatmulAlgo_t algo = {};
  float microseconds = 0.0F;
};

// Steps of row counts with plans: fine where a step decodes, a few per cent where it prefills.
constexpr int32_t kDecodeRows[] = {1, 8, 16, 32, 48, 64, 96, 128, 160, 192, 224, 256};
constexpr int32_t kMiddleStep = 128;
constexpr int32_t kMiddleRows = 1024;
constexpr int32_t kLargeStep = 256;

int32_t round_up(int32_t rows, int32_t step) { return (rows + step - 1) / step * step; }

class CublasGemm final : public Gemm {
 public:
  CublasGemm(const CublasLt& lt, cublasLtHandle_t handle, const GemmShape& shape)
      : lt_(lt), handle_(handle), shape_(shape) {}

  Result<> prepare(int32_t max_rows, const GemmTuning& tuning, TuningStore& store);
  void run(const Float16* x, const Float16* weight, void* out, int32_t rows,
           Stream stream) const override {
    const int32_t wanted = padded_rows(rows);
    const auto plan = std::lower_bound(plans_.begin(), plans_.end(), wanted,
                                       [](const auto& a, int32_t b) { return a.first < b; });
    CHECK(plan != plans_.end() && plan->first == wanted);
    CHECK_EQ(multiply(plan->second, x, weight, out, stream), CUBLAS_STATUS_SUCCESS);
  }
  bool recalled() const override { return recalled_; }
  std::string summary() const override;

 private:
  std::string subject() const;
  Result<> create_descriptors();
  Result<> make_reference(int32_t max_rows, const GemmTuning& tuning);
  Result<> tune(std::span<const int32_t> counts, const GemmTuning& tuning);
  // Plans as they were kept; false if they aren't for these counts or don't hold here.
  Result<bool> recall(std::span<const int32_t> counts, std::span<const TunedRows> kept,
                      const GemmTuning& tuning);
  void keep(TuningStore& store) const;
  FewRowsShape few_rows_shape() const;
  Result<Plan> layouts_for(int32_t rows) const;
  Result<std::vector<Plan>> candidates(int32_t rows, int32_t most) const;
  bool splits(const cublasLtMatmulAlgo_t& algo) const;
  bool runs_here(const Plan& plan) const;
  cublasStatus_t multiply(const Plan& plan, const Float16* x, const Float16* weight, void* out,
                          Stream stream) const;
  bool results_of(const Plan& plan, const GemmTuning& tuning, std::vector<std::byte>& bytes) const;
  bool has_the_bits(const Plan& plan, const GemmTuning& tuning) const;
  float time(const Plan& plan, const GemmTuning& tuning) const;
  // The fastest of `from` with the reference's bits in the rows that both have; rows 0 if none.
  Plan fastest(const std::vector<Plan>& from, const GemmTuning& tuning) const;
  size_t element_bytes() const { return shape_.f32_out ? 4 : 2; }
  Result<cublasLtMatrixLayout_t> layout(cudaDataType_t type, int64_t rows, int64_t columns,
                                        int64_t stride_columns, int64_t piece_stride) const;

  const CublasLt& lt_;
  const cublasLtHandle_t handle_;
  const GemmShape shape_;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
  cublasLtMatrixLayout_t weight_ = nullptr;
  std::vector<std::byte> reference_;             // kComparedRows of every piece
  std::vector<std::pair<int32_t, Plan>> plans_;  // by padded rows, rising
  bool recalled_ = false;
};

Result<cublasLtMatrixLayout_t> CublasGemm::layout(cudaDataType_t type, int64_t rows,
                                                  int64_t columns, int64_t leading,
                                                  int64_t piece_stride) const {
  cublasLtMatrixLayout_t result = nullptr;
  RETURN_IF_CUBLAS(lt_.layout_create(&result, type, static_cast<uint64_t>(rows),
                                     static_cast<uint64_t>(columns), leading));
  if (shape_.pieces == 1) return result;
  RETURN_IF_CUBLAS(lt_.layout_set(result, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &shape_.pieces,
                                  sizeof shape_.pieces));
  RETURN_IF_CUBLAS(lt_.layout_set(result, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                  &piece_stride, sizeof piece_stride));
  return result;
}

Result<> CublasGemm::create_descriptors() {
  RETURN_IF_CUBLAS(lt_.desc_create(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t transposed = CUBLAS_OP_T;
  RETURN_IF_CUBLAS(
      lt_.desc_set(operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
  RETURN_IF_CUBLAS(lt_.preference_create(&preference_));
  const uint32_t no_reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
  RETURN_IF_CUBLAS(lt_.preference_set(preference_, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                      &no_reduction, sizeof no_reduction));
  const uint64_t no_workspace = 0;
  RETURN_IF_CUBLAS(lt_.preference_set(preference_, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                      &no_workspace, sizeof no_workspace));
  const int64_t piece = shape_.columns / shape_.pieces;
  ASSIGN_OR_RETURN(weight_, layout(CUDA_R_16F, piece, shape_.outputs, shape_.columns, piece));
  return Ok{};
}

Result<Plan> CublasGemm::layouts_for(int32_t rows) const {
  Plan plan;
  plan.rows = rows;
  const int64_t piece = shape_.columns / shape_.pieces;
  ASSIGN_OR_RETURN(plan.x, layout(CUDA_R_16F, piece, rows, shape_.columns, piece));
  ASSIGN_OR_RETURN(plan.out, layout(shape_.f32_out ? CUDA_R_32F : CUDA_R_16F, shape_.outputs, rows,
                                    shape_.outputs, shape_.piece_stride));
  return plan;
}

Result<std::vector<Plan>> CublasGemm::candidates(int32_t rows, int32_t most) const {
  ASSIGN_OR_RETURN(const Plan plan, layouts_for(rows));
  cublasLtMatmulHeuristicResult_t found[kMostCandidates];
  int count = 0;
  std::vector<Plan> result;
  const cublasStatus_t status = lt_.heuristic(handle_, operation_, weight_, plan.x, plan.out,
                                              plan.out, preference_, most, found, &count);
  if (status != CUBLAS_STATUS_SUCCESS) count = 0;  // another number of rows may have some
  for (int i = 0; i < count; ++i) {
    if (splits(found[i].algo)) continue;
    result.push_back(plan);
    result.back().algo = found[i].algo;
  }
  if (rows <= kMostFewRows && few_rows_gemm_supports(few_rows_shape())) {
    result.push_back(plan);
    result.back().own = true;
  }
  return result;
}

FewRowsShape CublasGemm::few_rows_shape() const {
  return {.outputs = shape_.outputs,
          .columns = shape_.columns,
          .pieces = shape_.pieces,
          .result = shape_.f32_out ? FewRowsResult::kFloat : FewRowsResult::kFloat16};
}

bool CublasGemm::splits(const cublasLtMatmulAlgo_t& algo) const {
  int32_t split = 0;
  size_t written = 0;
  return lt_.algo_get(&algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split, sizeof split, &written) !=
             CUBLAS_STATUS_SUCCESS ||
         split > 1;
}

bool CublasGemm::runs_here(const Plan& plan) const {
  if (plan.own) return plan.rows <= kMostFewRows && few_rows_gemm_supports(few_rows_shape());
  cublasLtMatmulHeuristicResult_t result = {};
  return !splits(plan.algo) &&
         lt_.algo_check(handle_, operation_, weight_, plan.x, plan.out, plan.out, &plan.algo,
                        &result) == CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CublasGemm::multiply(const Plan& plan, const Float16* x, const Float16* weight,
                                    void* out, Stream stream) const {
  if (plan.own) {
    few_rows_gemm({.shape = few_rows_shape(),
                   .x = x,
                   .weight = weight,
                   .out = out,
                   .rows = plan.rows,
                   .piece_stride = shape_.piece_stride},
                  stream);
    return CUBLAS_STATUS_SUCCESS;
  }
  const float one = 1.0F;
  const float zero = 0.0F;
  return lt_.matmul(handle_, operation_, &one, weight, weight_, x, plan.x, &zero, out, plan.out,
                    out, plan.out, &plan.algo, nullptr, 0, stream);
}

bool CublasGemm::results_of(const Plan& plan, const GemmTuning& tuning,
                            std::vector<std::byte>& bytes) const {
  if (multiply(plan, tuning.x, tuning.weights[0], tuning.out, tuning.stream) !=
      CUBLAS_STATUS_SUCCESS)
    return false;
  const size_t row = static_cast<size_t>(shape_.outputs) * element_bytes();
  const size_t rows = static_cast<size_t>(std::min(plan.rows, kComparedRows)) * row;
  const auto stride = static_cast<size_t>(shape_.piece_stride) * element_bytes();
  bytes.resize(rows * static_cast<size_t>(shape_.pieces));
  for (size_t piece = 0; piece < static_cast<size_t>(shape_.pieces); ++piece) {
    check_device(cudaMemcpyAsync(bytes.data() + piece * rows,
                                 static_cast<const std::byte*>(tuning.out) + piece * stride, rows,
                                 cudaMemcpyDeviceToHost, tuning.stream),
                 "reading a product");
  }
  check_device(cudaStreamSynchronize(tuning.stream), "a product");
  return true;
}

float CublasGemm::time(const Plan& plan, const GemmTuning& tuning) const {
  return microseconds_of(tuning.stream, [&](size_t turn) {
    // As in a step, where a small kernel comes before.
    fill_value(static_cast<float*>(tuning.out), 1, 0.0F, tuning.stream);
    CHECK_EQ(multiply(plan, tuning.x, tuning.weights[turn % tuning.weights.size()], tuning.out,
                      tuning.stream),
             CUBLAS_STATUS_SUCCESS);
  });
}

bool CublasGemm::has_the_bits(const Plan& plan, const GemmTuning& tuning) const {
  std::vector<std::byte> bytes;
  if (!results_of(plan, tuning, bytes)) return false;
  const auto pieces = static_cast<size_t>(shape_.pieces);
  const size_t piece = bytes.size() / pieces;
  const size_t reference_piece = reference_.size() / pieces;
  bool same = true;
  for (size_t i = 0; i < pieces; ++i) {
    same &= std::memcmp(bytes.data() + i * piece, reference_.data() + i * reference_piece,
                        std::min(piece, reference_piece)) == 0;
  }
  return same;
}

Plan CublasGemm::fastest(const std::vector<Plan>& from, const GemmTuning& tuning) const {
  Plan best;
  for (const Plan& candidate : from) {
    if (!has_the_bits(candidate, tuning)) continue;
    Plan timed = candidate;
    timed.microseconds = time(candidate, tuning);
    if (best.rows == 0 || timed.microseconds < best.microseconds) best = timed;
  }
  return best;
}

Result<> CublasGemm::make_reference(int32_t max_rows, const GemmTuning& tuning) {
  ASSIGN_OR_RETURN(const std::vector<Plan> plans,
                   candidates(std::min(kReferenceRows, padded_rows(max_rows)), kMostCandidates));
  for (const Plan& plan : plans) {
    if (reference_.empty() && !plan.own && !results_of(plan, tuning, reference_))
      reference_.clear();
  }
  if (!reference_.empty()) return Ok{};
  return Error(ErrorCode::kUnsupported, "cuBLASLt has no algorithm for a {} x {} weight",
               shape_.outputs, shape_.columns);
}

Result<> CublasGemm::tune(std::span<const int32_t> counts, const GemmTuning& tuning) {
  for (size_t i = 0; i < counts.size(); ++i) {
    Plan best;
    // A product of fewer rows may be slower than one of a few more, or have no algorithm.
    for (size_t j = i; j < counts.size() && (best.rows == 0 || counts[j] <= kComparedRows); ++j) {
      const int32_t most = counts[j] <= kSmallRows ? kMostCandidates : kFewCandidates;
      ASSIGN_OR_RETURN(const std::vector<Plan> from, candidates(counts[j], most));
      const Plan plan = fastest(from, tuning);
      if (plan.rows > 0 && (best.rows == 0 || plan.microseconds < best.microseconds)) best = plan;
    }
    if (best.rows == 0) {
      return Error(ErrorCode::kUnsupported,
                   "no algorithm of cuBLASLt gives a {} x {} weight the same bits at {} rows",
                   shape_.outputs, shape_.columns, counts[i]);
    }
    plans_.emplace_back(counts[i], best);
  }
  return Ok{};
}

std::string CublasGemm::subject() const {
  return fmt::format("product {} x {}, {}, pieces {}, kernel {}", shape_.outputs, shape_.columns,
                     shape_.f32_out ? "f32" : "f16", shape_.pieces, kFewRowsVersion);
}

// Words: rows that run, nanoseconds, and the algorithm, which its library can take back as it is;
// none for the own kernel.
void CublasGemm::keep(TuningStore& store) const {
  std::vector<TunedRows> kept;
  for (const auto& [count, plan] : plans_) {
    TunedRows tuned{
        count,
        {static_cast<uint64_t>(plan.rows), static_cast<uint64_t>(plan.microseconds * 1000.0F)}};
    if (!plan.own) {
      tuned.choice.insert(tuned.choice.end(), std::begin(plan.algo.data), std::end(plan.algo.data));
    }
    kept.push_back(std::move(tuned));
  }
  store.keep(subject(), kept);
}

Result<bool> CublasGemm::recall(std::span<const int32_t> counts, std::span<const TunedRows> kept,
                                const GemmTuning& tuning) {
  if (kept.size() < counts.size()) return false;
  plans_.clear();
  for (size_t i = 0; i < counts.size(); ++i) {
    const std::vector<uint64_t>& words = kept[i].choice;
    constexpr size_t kWords = 2;  // besides the algorithm
    cublasLtMatmulAlgo_t algo = {};
    if (kept[i].rows != counts[i] ||
        (words.size() != kWords && words.size() != kWords + std::size(algo.data)))
      return false;
    const auto runs = static_cast<int32_t>(std::min<uint64_t>(words[0], INT32_MAX));
    if (runs < counts[i] || !std::binary_search(counts.begin(), counts.end(), runs)) return false;
    std::copy(words.begin() + kWords, words.end(), std::begin(algo.data));
    ASSIGN_OR_RETURN(Plan plan, layouts_for(runs));
    plan.own = words.size() == kWords;
    plan.algo = algo;
    plan.microseconds = static_cast<float>(words[1]) / 1000.0F;
    if (!runs_here(plan) || !has_the_bits(plan, tuning)) return false;
    plans_.emplace_back(counts[i], plan);
  }
  return true;
}

Result<> CublasGemm::prepare(int32_t max_rows, const GemmTuning& tuning, TuningStore& store) {
  RETURN_IF_ERROR(create_descriptors());
  RETURN_IF_ERROR(make_reference(max_rows, tuning));
  std::vector<int32_t> counts;
  for (int32_t rows = 1; rows <= max_rows; rows = counts.back() + 1)
    counts.push_back(padded_rows(rows));
  ASSIGN_OR_RETURN(recalled_, recall(counts, store.recall(subject()), tuning));
  if (recalled_) return Ok{};
  plans_.clear();
  RETURN_IF_ERROR(tune(counts, tuning));
  keep(store);
  return Ok{};
}

std::string CublasGemm::summary() const {
  std::string text =
      fmt::format("{} x {}{}", shape_.outputs, shape_.columns, recalled_ ? " as it was kept" : "");
  for (const auto& [rows, plan] : plans_) {
    if (rows <= kSmallRows || rows == plans_.back().first)
      text += fmt::format(", {}: {:.1f} us{}", rows, plan.microseconds, plan.own ? " own" : "");
  }
  return text;
}

class CublasLibrary final : public GemmLibrary {
 public:
  CublasLibrary(const CublasLt& lt, cublasLtHandle_t handle, TuningStore tunings)
      : lt_(lt), handle_(handle), tunings_(std::move(tunings)) {}
  TuningStore& tunings() override { return tunings_; }
  Result<std::unique_ptr<Gemm>> prepare(const GemmShape& shape, int32_t max_rows,
                                        const GemmTuning& tuning) override {
    CHECK(shape.columns % shape.pieces == 0 && (shape.pieces == 1 || shape.f32_out));
    auto gemm = std::make_unique<CublasGemm>(lt_, handle_, shape);
    RETURN_IF_ERROR(gemm->prepare(max_rows, tuning, tunings_));
    return std::unique_ptr<Gemm>(std::move(gemm));
  }

 private:
  const CublasLt lt_;
  const cublasLtHandle_t handle_;
  TuningStore tunings_;
};

}  // namespace

int32_t gemm_pieces(int64_t outputs, int64_t columns) {
  const bool few_outputs = 2 * outputs <= columns;
  return columns >= kLongColumns && few_outputs && columns % (kLongPieces * kPieceUnit) == 0
             ? kLongPieces
             : 1;
}

int32_t padded_rows(int32_t rows) {
  for (const int32_t count : kDecodeRows) {
    if (rows <= count) return count;
  }
  return round_up(rows, rows <= kMiddleRows ? kMiddleStep : kLargeStep);
}

Result<std::shared_ptr<GemmLibrary>> GemmLibrary::open(const std::string& tuning_folder,
                                                       const std::string& machine) {
  ASSIGN_OR_RETURN(const CublasLt lt, CublasLt::open());
  cublasLtHandle_t handle = nullptr;
  RETURN_IF_CUBLAS(lt.create(&handle));
  TuningStore tunings(tuning_folder, fmt::format("{}, cuBLASLt {}", machine, lt.version()));
  return std::shared_ptr<GemmLibrary>(
      std::make_shared<CublasLibrary>(lt, handle, std::move(tunings)));
}

}  // namespace puna::kernels::cuda
