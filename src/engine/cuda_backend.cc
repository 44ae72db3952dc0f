// SPDX-License-Identifier: Apache-2.0
#include "engine/cuda_backend.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/cuda_fault.h"
#include "engine/cuda_host_kv.h"
#include "engine/cuda_llama.h"
#include "engine/cuda_step_layout.h"
#include "engine/sampler.h"
#include "kernels/cuda/read_roof.h"
#include "kernels/cuda/sampling.h"
#include "kv/block_id.h"

namespace puna::engine {
namespace {

namespace cuda = kernels::cuda;
using cuda::check_device;

// Rows of logits that come to the host at a time, for requests that the GPU can't sample.
constexpr int32_t kHostLogitRows = 8;
// Left free of the GPU's memory when the KV pool takes the rest: graphs, modules, cuBLASLt.
constexpr uint64_t kDeviceReserve = uint64_t{1} << 30;

// Products are computed for padded rows.
std::vector<int32_t> full_steps(int32_t most) {
  std::vector<int32_t> steps;
  for (int32_t rows = cuda::padded_rows(1); rows <= most; rows = cuda::padded_rows(rows + 1))
    steps.push_back(rows);
  return steps;
}

BackendLimits limits_of(const CudaBackendConfig& config, int32_t vocab_size) {
  return {.num_blocks = config.num_blocks,
          .max_num_seqs = config.max_num_seqs,
          .max_batch_tokens = config.max_batch_tokens,
          .max_model_len = config.max_model_len,
          .vocab_size = vocab_size,
          .num_host_blocks = config.num_host_blocks,
          .full_steps = full_steps(config.max_batch_tokens)};
}

CudaLlamaLimits llama_limits(const CudaBackendConfig& config) {
  return {.max_rows = std::max(config.max_batch_tokens, config.max_num_seqs),
          .max_logit_rows = config.max_num_seqs,
          .max_positions = config.max_model_len,
          .num_blocks = config.num_blocks,
          .tuning_folder = config.tuning_folder};
}

// Memory for the host's blocks becomes resident while the model is loaded.
std::future<Result<cuda::PinnedPages>> take_host_memory(const CudaBackendConfig& config,
                                                        uint64_t block_bytes) {
  if (config.num_host_blocks == 0) return {};
  const uint64_t bytes = static_cast<uint64_t>(config.num_host_blocks) * block_bytes;
  return std::async(std::launch::async, [bytes] {
    return cuda::PinnedPages::take(bytes, "KV blocks of paused requests");
  });
}

struct Graph {
  int32_t rows = 0;
  cuda::DecodeWay way = cuda::DecodeWay::kChunks;
  cudaGraphExec_t exec = nullptr;
};

class CudaStepRunner final : public Backend {
 public:
  static Result<std::unique_ptr<CudaStepRunner>> create(const formats::ModelSpec& spec,
                                                        const formats::Checkpoint* checkpoint,
                                                        const CudaBackendConfig& config,
                                                        const cuda::DeviceFacts& device);
  ~CudaStepRunner() override;
  CudaStepRunner(const CudaStepRunner&) = delete;
  CudaStepRunner& operator=(const CudaStepRunner&) = delete;

  std::string_view name() const override { return "cuda"; }
  const BackendLimits& limits() const override { return limits_; }
  void start(const Batch& batch) override;
  std::span<const SampledToken> collect() override;
  void save(std::span<const KvCopy> copies) override;
  uint64_t restore(std::span<const KvCopy> copies) override;
  uint64_t copied() override { return host_kv_ ? host_kv_->copied() : 0; }
  void wait_for_copy(uint64_t number) override { host_kv_->wait_for_copy(number); }
  double time_graph(int32_t times);

  uint64_t pinned_bytes() const { return pinned_.bytes(); }
  uint64_t host_kv_bytes() const { return host_kv_ ? host_kv_->bytes() : 0; }
  const CudaLlama& llama() const { return *llama_; }

 private:
  CudaStepRunner(const CudaBackendConfig& config, const formats::ModelSpec& spec)
      : limits_(limits_of(config, spec.vocab_size)),
        step_limit_(config.step_limit_ms),
        sampler_(spec.vocab_size, {}) {}
  Result<> allocate(const formats::ModelSpec& spec);
  void capture_graphs();
  CudaStep step_of(const CudaStepLayout& layout) const;
  // Everything after the step's words have arrived. The sampler's kernel writes the tokens to the
  // host itself: a copy of them would wait behind those of KV blocks.
  void enqueue(const CudaStepLayout& layout) { enqueue(layout, layout.decode_way()); }
  void enqueue(const CudaStepLayout& layout, cuda::DecodeWay way);
  void capture_graph(cuda::DecodeWay way);
  const Graph* graph_of_step() const;
  void wait_for_step();
  void sample_on_host();
  size_t bytes_of_words() const {
    return static_cast<size_t>(CudaStepLayout::words_for(limits_)) * sizeof(int32_t);
  }

  const BackendLimits limits_;
  const std::chrono::milliseconds step_limit_;
  CudaFault fault_;
  int32_t ordinal_ = 0;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<CudaLlama> llama_;
  std::unique_ptr<CudaHostKv> host_kv_;  // null without host blocks
  cuda::Arena device_;                   // words, last tokens
  cuda::Arena pinned_;                   // words, sampled tokens, logits for the host's sampler
  AttentionGrid attention_grid_;
  std::unique_ptr<CudaStepLayout> layout_;
  int32_t* words_ = nullptr;
  int32_t* device_words_ = nullptr;
  int32_t* device_last_tokens_ = nullptr;  // [slots]
  int32_t* tokens_ = nullptr;              // [logit rows], pinned
  float* host_logits_ = nullptr;           // [kHostLogitRows, vocab_size]
  std::vector<Graph> graphs_;              // by rising rows
  Sampler sampler_;
  const Batch* batch_ = nullptr;      // in flight
  std::vector<TokenId> host_tokens_;  // per slot: last token if the host sampled it, else -1
  std::vector<SampledToken> samples_;
};

Result<std::unique_ptr<CudaStepRunner>> CudaStepRunner::create(
    const formats::ModelSpec& spec, const formats::Checkpoint* checkpoint,
    const CudaBackendConfig& config, const cuda::DeviceFacts& device) {
  std::unique_ptr<CudaStepRunner> runner(new CudaStepRunner(config, spec));
  runner->ordinal_ = config.device;
  auto taking_memory = take_host_memory(config, CudaLlama::kv_block_bytes(spec));
  ASSIGN_OR_RETURN(runner->fault_, CudaFault::from_environment());
  check_device(cudaStreamCreateWithFlags(&runner->stream_, cudaStreamNonBlocking),
               "creating a stream");
  ASSIGN_OR_RETURN(runner->llama_, CudaLlama::create(spec, checkpoint, llama_limits(config), device,
                                                     runner->stream_));
  RETURN_IF_ERROR(runner->allocate(spec));
  if (taking_memory.valid()) {
    ASSIGN_OR_RETURN(cuda::PinnedPages memory, taking_memory.get());
    RETURN_IF_ERROR(memory.pin());
    runner->host_kv_ =
        CudaHostKv::create(runner->llama_->kv_blocks(), std::move(memory), config.num_host_blocks,
                           runner->step_limit_, runner->fault_);
  }
  if (config.graphs) runner->capture_graphs();
  return runner;
}

Result<> CudaStepRunner::allocate(const formats::ModelSpec& spec) {
  const auto slots = static_cast<size_t>(limits_.max_num_seqs);
  const auto logit_rows = static_cast<uint64_t>(cuda::padded_rows(limits_.max_num_seqs));
  const uint64_t words = cuda::Arena::aligned(bytes_of_words());
  const uint64_t tokens = cuda::Arena::aligned(logit_rows * sizeof(int32_t));
  const uint64_t logits = cuda::Arena::aligned(
      kHostLogitRows * static_cast<uint64_t>(limits_.vocab_size) * sizeof(float));
  ASSIGN_OR_RETURN(device_, cuda::Arena::on_device(words + tokens, "the step's words"));
  ASSIGN_OR_RETURN(pinned_, cuda::Arena::pinned(words + tokens + logits, "the step's words"));
  device_words_ = device_.take<int32_t>(CudaStepLayout::words_for(limits_));
  device_last_tokens_ = device_.take<int32_t>(static_cast<int64_t>(logit_rows));
  words_ = pinned_.take<int32_t>(CudaStepLayout::words_for(limits_));
  tokens_ = pinned_.take<int32_t>(static_cast<int64_t>(logit_rows));
  host_logits_ = pinned_.take<float>(int64_t{kHostLogitRows} * limits_.vocab_size);
  attention_grid_ = {
      .tile_rows = cuda::prefill_tile_rows({spec.num_heads, spec.num_kv_heads, spec.head_dim}),
      .kv_heads = spec.num_kv_heads,
      .decode_blocks = llama_->decode_blocks()};
  layout_ = std::make_unique<CudaStepLayout>(limits_, attention_grid_, words_);
  host_tokens_.assign(slots, -1);
  samples_.resize(slots);
  return Ok{};
}

CudaStepRunner::~CudaStepRunner() {
  if (stream_ == nullptr) return;
  (void)cudaStreamSynchronize(stream_);
  for (const Graph& graph : graphs_) (void)cudaGraphExecDestroy(graph.exec);
  host_kv_.reset();
  llama_.reset();
  (void)cudaStreamDestroy(stream_);
}

CudaStep CudaStepRunner::step_of(const CudaStepLayout& layout) const {
  const int32_t* words = device_words_;
  return {.rows = layout.rows(),
          .tokens = words + layout.tokens(),
          .slots = words + layout.slots(),
          .last_tokens = device_last_tokens_,
          .positions = words + layout.positions(),
          .cells = words + layout.cells(),
          .block_tables = words,
          .decode_items = reinterpret_cast<const cuda::DecodeItem*>(words + layout.decode_items()),
          .num_decode_items = words,
          .num_decode_rows = layout.all_decode() ? layout.rows() : layout.num_decode(),
          .tiles = reinterpret_cast<const cuda::QueryTile*>(words + layout.tiles()),
          .num_tiles = layout.num_tiles(),
          .logit_rows = words + layout.logit_row_index(),
          .num_logits = layout.logit_rows(),
          .last_items = reinterpret_cast<const cuda::DecodeItem*>(words + layout.last_items()),
          .num_last_items = words + 1,
          .last_way = layout.last_way(),
          .last_positions = words + layout.last_positions()};
}

void CudaStepRunner::enqueue(const CudaStepLayout& layout, cuda::DecodeWay way) {
  CudaStep step = step_of(layout);
  step.decode_way = way;
  llama_->forward(step, stream_);
  if (step.num_logits == 0) return;
  cuda::sample_tokens({.logits = llama_->logits(),
                       .params = reinterpret_cast<const cuda::SampleParams*>(
                           device_words_ + layout.sample_params()),
                       .slots = device_words_ + layout.sample_slots(),
                       .tokens = tokens_,
                       .last_tokens = device_last_tokens_,
                       .rows = step.num_logits,
                       .vocab_size = limits_.vocab_size},
                      stream_);
}

// A graph's kernels read their number of rows and items from the step's words, so it fits any
// decode step of so many padded rows. Each is run once before, for modules are loaded at first use.
void CudaStepRunner::capture_graphs() {
  SamplingParams greedy;
  greedy.temperature = 0.0F;
  const std::vector<TokenId> token = {0};
  const std::vector<kv::BlockId> table = {0};
  const int32_t most = std::min(limits_.max_num_seqs, limits_.max_batch_tokens);
  for (int32_t rows = 1; rows <= most; rows = graphs_.back().rows + 1) {
    Batch batch;
    const int32_t items = std::min(cuda::padded_rows(rows), most);
    for (int32_t slot = 0; slot < items; ++slot) {
      batch.items.push_back({.slot = slot,
                             .num_tokens = 1,
                             .tokens = token,
                             .block_table = table,
                             .sample = true,
                             .history = token,
                             .sampling = &greedy,
                             .banned = {}});
    }
    start(batch);
    (void)collect();
    for (const auto way :
         {cuda::DecodeWay::kChunks, cuda::DecodeWay::kFewChunks, cuda::DecodeWay::kWholeRows}) {
      if (may_go(way, layout_->rows(), attention_grid_)) capture_graph(way);
    }
  }
  check_device(cudaStreamSynchronize(stream_), "capture");
}

// Of the step that is laid out.
void CudaStepRunner::capture_graph(cuda::DecodeWay way) {
  Graph graph = {.rows = layout_->rows(), .way = way};
  enqueue(*layout_, way);  // once before, for what the runtime does at a kernel's first launch
  cudaGraph_t captured = nullptr;
  check_device(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capture");
  enqueue(*layout_, way);
  check_device(cudaStreamEndCapture(stream_, &captured), "capture");
  check_device(cudaGraphInstantiate(&graph.exec, captured, 0), "a graph's instantiation");
  check_device(cudaGraphUpload(graph.exec, stream_), "a graph's upload");
  (void)cudaGraphDestroy(captured);
  graphs_.push_back(graph);
}

const Graph* CudaStepRunner::graph_of_step() const {
  const auto graph = std::find_if(graphs_.begin(), graphs_.end(), [&](const Graph& g) {
    return layout_->all_decode() && g.rows == layout_->rows() && g.way == layout_->decode_way();
  });
  return graph == graphs_.end() ? nullptr : &*graph;
}

void CudaStepRunner::start(const Batch& batch) {
  CHECK(batch_ == nullptr);
  batch_ = &batch;
  if (batch.items.empty()) return;
  check_device(cudaSetDevice(ordinal_), "choosing the GPU");  // of this thread, whichever it is
  layout_->lay_out(batch, host_tokens_);
  check_device(cudaMemcpyAsync(device_words_, words_,
                               static_cast<size_t>(layout_->words()) * sizeof(int32_t),
                               cudaMemcpyHostToDevice, stream_),
               "copying the step");
  if (host_kv_) host_kv_->order_step(batch, stream_);
  fault_.begin_step(stream_);
  if (const Graph* graph = graph_of_step(); graph != nullptr) {
    check_device(cudaGraphLaunch(graph->exec, stream_), "a graph's launch");
  } else {
    enqueue(*layout_);
  }
}

void CudaStepRunner::sample_on_host() {
  const auto items = layout_->sample_items();
  const auto vocab = static_cast<size_t>(limits_.vocab_size);
  std::array<size_t, kHostLogitRows> rows;
  for (size_t next = 0; next < items.size();) {
    size_t count = 0;
    for (; next < items.size() && count < rows.size(); ++next) {
      if (sampled_on_device(batch_->items[static_cast<size_t>(items[next])])) continue;
      check_device(cudaMemcpyAsync(host_logits_ + count * vocab, llama_->logits() + next * vocab,
                                   vocab * sizeof(float), cudaMemcpyDeviceToHost, stream_),
                   "copying logits");
      rows[count++] = next;
    }
    if (count == 0) return;
    check_device(cudaStreamSynchronize(stream_), "copying logits");
    for (size_t i = 0; i < count; ++i) {
      const BatchItem& item = batch_->items[static_cast<size_t>(items[rows[i]])];
      sampler_.sample({host_logits_ + i * vocab, vocab}, item, samples_[rows[i]]);
      host_tokens_[static_cast<size_t>(item.slot)] = samples_[rows[i]].token;
    }
  }
}

// Asks again and again, as cudaStreamSynchronize() would, which waits forever for a GPU that is
// gone.
void CudaStepRunner::wait_for_step() {
  const auto end = std::chrono::steady_clock::now() + step_limit_;
  for (;;) {
    const cudaError_t status = cudaStreamQuery(stream_);
    if (status != cudaErrorNotReady) return check_device(status, "a step");
    if (host_kv_) host_kv_->hand_over();
    if (std::chrono::steady_clock::now() > end)
      cuda::give_up_device("a step", "no result within the limit of a step's time");
  }
}

void CudaStepRunner::save(std::span<const KvCopy> copies) {
  CHECK(batch_ == nullptr && host_kv_ != nullptr);
  check_device(cudaSetDevice(ordinal_), "choosing the GPU");
  host_kv_->save(copies);
}

uint64_t CudaStepRunner::restore(std::span<const KvCopy> copies) {
  CHECK(batch_ == nullptr && host_kv_ != nullptr);
  check_device(cudaSetDevice(ordinal_), "choosing the GPU");
  return host_kv_->restore(copies);
}

double CudaStepRunner::time_graph(int32_t times) {
  CHECK(batch_ == nullptr && times > 0);
  const Graph* graph = graph_of_step();
  if (graph == nullptr) return 0;
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check_device(cudaEventCreate(&begin), "an event");
  check_device(cudaEventCreate(&end), "an event");
  check_device(cudaGraphLaunch(graph->exec, stream_), "a graph's launch");  // begins behind a step
  check_device(cudaEventRecord(begin, stream_), "an event");
  for (int32_t i = 0; i < times; ++i)
    check_device(cudaGraphLaunch(graph->exec, stream_), "a graph's launch");
  check_device(cudaEventRecord(end, stream_), "an event");
  check_device(cudaEventSynchronize(end), "timing a graph");
  float milliseconds = 0.0F;
  check_device(cudaEventElapsedTime(&milliseconds, begin, end), "an event");
  (void)cudaEventDestroy(begin);
  (void)cudaEventDestroy(end);
  return static_cast<double>(milliseconds) / times;
}

std::span<const SampledToken> CudaStepRunner::collect() {
  CHECK(batch_ != nullptr);
  wait_for_step();
  const auto items = layout_->sample_items();
  const size_t count = batch_->items.empty() ? 0 : items.size();
  bool all_sampled = true;
  for (size_t i = 0; i < count; ++i) {
    const BatchItem& item = batch_->items[static_cast<size_t>(items[i])];
    samples_[i].token = tokens_[i];
    samples_[i].logprob = 0.0F;
    samples_[i].num_top = 0;
    host_tokens_[static_cast<size_t>(item.slot)] = -1;
    all_sampled &= sampled_on_device(item);
  }
  if (!all_sampled) sample_on_host();
  batch_ = nullptr;
  return {samples_.data(), count};
}

// Blocks that fit beside what does not depend on them, at most what the sequences can hold.
Result<int32_t> blocks_that_fit(const formats::ModelSpec& spec, const CudaBackendConfig& config,
                                const cuda::DeviceFacts& device) {
  CudaLlamaLimits limits = llama_limits(config);
  limits.num_blocks = 0;
  const uint64_t fixed = CudaLlama::bytes(spec, limits).total() + kDeviceReserve;
  limits.num_blocks = 1;
  const uint64_t block = CudaLlama::bytes(spec, limits).kv;
  const uint64_t useful = static_cast<uint64_t>(config.max_num_seqs) *
                          static_cast<uint64_t>(kv::blocks_for_tokens(config.max_model_len));
  const uint64_t fit =
      device.free_bytes > fixed ? (device.free_bytes - fixed) / block : uint64_t{0};
  const auto least = static_cast<uint64_t>(kv::blocks_for_tokens(config.max_model_len));
  if (fit < least) {
    return Error(ErrorCode::kResourceExhausted,
                 "{} has {} bytes free; weights and work take {}, and one sequence of {} tokens "
                 "another {}: lower --max-model-len or --max-num-batched-tokens",
                 device.name, device.free_bytes, fixed, config.max_model_len, least * block);
  }
  return static_cast<int32_t>(std::min(fit, useful));
}

Result<CudaBackend> make_backend(const formats::ModelSpec& spec,
                                 const formats::Checkpoint* checkpoint, CudaBackendConfig config) {
  CHECK(config.max_num_seqs > 0 && config.max_batch_tokens > 0 && config.max_model_len > 0);
  RETURN_IF_ERROR(CudaLlama::check(spec));
  ASSIGN_OR_RETURN(const cuda::DeviceFacts device, cuda::open_device(config.device));
  if (config.num_blocks == 0) {
    ASSIGN_OR_RETURN(config.num_blocks, blocks_that_fit(spec, config, device));
  }
  config.num_host_blocks = std::min(config.num_host_blocks, config.num_blocks);
  ASSIGN_OR_RETURN(std::unique_ptr<CudaStepRunner> runner,
                   CudaStepRunner::create(spec, checkpoint, config, device));
  const CudaLlamaBytes bytes = CudaLlama::bytes(spec, llama_limits(config));
  ASSIGN_OR_RETURN(const cuda::DeviceFacts after, cuda::open_device(config.device));
  CudaBackend result;
  result.facts = {.device = device.name,
                  .free_before = device.free_bytes,
                  .free_after = after.free_bytes,
                  .weights = bytes.weights,
                  .kv = bytes.kv,
                  .activations = bytes.activations,
                  .attention = bytes.attention,
                  .pinned = runner->pinned_bytes(),
                  .host_kv = runner->host_kv_bytes(),
                  .products = runner->llama().gemm_summary(),
                  .tuning_problem = runner->llama().tuning_problem()};
  result.backend = std::move(runner);
  return result;
}

}  // namespace

Result<CudaBackend> make_cuda_backend(const formats::Checkpoint& checkpoint,
                                      const CudaBackendConfig& config) {
  return make_backend(checkpoint.spec(), &checkpoint, config);
}

Result<CudaBackend> make_random_cuda_backend(const formats::ModelSpec& spec,
                                             const CudaBackendConfig& config) {
  return make_backend(spec, nullptr, config);
}

double time_cuda_graph(Backend& backend, int32_t times) {
  return static_cast<CudaStepRunner&>(backend).time_graph(times);
}

Result<CudaMemory> cuda_memory(int32_t device) {
  ASSIGN_OR_RETURN(const cuda::DeviceFacts facts, cuda::open_device(device));
  return CudaMemory{.total = facts.total_bytes, .free = facts.free_bytes};
}

Result<double> measure_cuda_read(int32_t device) {
  ASSIGN_OR_RETURN(const cuda::DeviceFacts facts, cuda::open_device(device));
  if (facts.free_bytes < cuda::kReadRoofBytes) {
    return Error(ErrorCode::kResourceExhausted, "{} has {} bytes free; measuring takes {}",
                 facts.name, facts.free_bytes, cuda::kReadRoofBytes);
  }
  return cuda::measure_read_gb_per_s();
}

}  // namespace puna::engine
