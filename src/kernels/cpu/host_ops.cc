// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/host_ops.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/checked_math.h"
#include "kernels/cpu/panel_weights.h"
#include "kernels/cpu/thread_pool.h"

namespace puna::kernels {

namespace {

// Larger memory is walked through in pages of 2 MB where the system has some. Only advice, so
// errors don't matter.
constexpr uint64_t kHugeFrom = 4 << 20;

// Anonymous pages are zero, and become resident when first written.
Result<Buffer> map_pages(uint64_t bytes, std::string_view what) {
  const uint64_t wanted = bytes == 0 ? 1 : bytes;
  void* data = MAP_FAILED;
  errno = ENOMEM;
  if (wanted <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    data = ::mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  if (data == MAP_FAILED) {
    return Error(ErrorCode::kResourceExhausted, "no memory for {}: {} bytes wanted: {}", what,
                 bytes, std::strerror(errno));
  }
  return Buffer(static_cast<std::byte*>(data), wanted,
                [](std::byte* from, uint64_t size) { ::munmap(from, size); });
}

// Makes every page of [data, data + bytes) resident now, so that no step faults and memory cannot
// run out later.
void touch(std::byte* data, uint64_t bytes) {
#ifdef MADV_POPULATE_WRITE
  if (::madvise(data, bytes, MADV_POPULATE_WRITE) == 0) return;
#endif
  constexpr uint64_t kPage = 4096;  // or larger
  for (uint64_t at = 0; at < bytes; at += kPage) {
    *static_cast<volatile std::byte*>(data + at) = std::byte{0};
  }
}

}  // namespace

Result<Buffer> HostOps::allocate(uint64_t bytes, std::string_view what) const {
  ASSIGN_OR_RETURN(Buffer memory, map_pages(bytes, what));
  if (bytes < kHugeFrom || options_.pool == nullptr) {
    touch(memory.data(), memory.bytes());
    return memory;
  }
  ::madvise(memory.data(), memory.bytes(), MADV_HUGEPAGE);
  options_.pool->run([&](Lane& lane) {
    const Lane::Range pieces =
        lane.share(ceil_div(static_cast<int64_t>(bytes), int64_t{kHugeFrom}));
    const uint64_t begin = static_cast<uint64_t>(pieces.begin) * kHugeFrom;
    const uint64_t end = std::min(static_cast<uint64_t>(pieces.end) * kHugeFrom, memory.bytes());
    if (begin < end) touch(memory.data() + begin, end - begin);
  });
  return memory;
}

void HostOps::upload(std::span<const float> values, const Buffer& to) const {
  CHECK_LE(values.size_bytes(), to.bytes());
  std::memcpy(to.data(), values.data(), values.size_bytes());
}

std::vector<PanelKind> HostOps::kinds_of(std::span<const MatrixPart> parts) const {
  if (options_.activations == ActivationMode::kFloat) return {};
  std::vector<PanelKind> kinds;
  for (const MatrixPart& part : parts) {
    const std::optional<PanelKind> kind = panel_kind(part.type);
    if (!kind) return {};
    const bool bf16 = *kind == PanelKind::kBF16;
    if (bf16 && panels_.bf16_product == nullptr) return {};
    if (!kinds.empty() && bf16 != (kinds.front() == PanelKind::kBF16)) return {};  // one format
    kinds.push_back(*kind);
  }
  return kinds;
}

uint64_t HostOps::packed_bytes(std::span<const MatrixPart> parts) const {
  const std::vector<PanelKind> kinds = kinds_of(parts);
  int64_t bytes = 0;
  for (size_t i = 0; i < kinds.size(); ++i) {
    bytes += pair_count(parts[i].rows) * pair_bytes(kinds[i], parts[i].columns);
  }
  return static_cast<uint64_t>(bytes);
}

std::unique_ptr<PackedMatrix> HostOps::table(const MatrixPart& part) const {
  return std::make_unique<HostMatrix>(std::span(&part, 1), 1);
}

Result<std::unique_ptr<PackedMatrix>> HostOps::pack(std::span<const MatrixPart> parts,
                                                    const PackOptions& options) const {
  auto matrix = std::make_unique<HostMatrix>(parts, options.head_dim);
  const std::vector<PanelKind> kinds = kinds_of(parts);
  if (kinds.empty()) return std::unique_ptr<PackedMatrix>(std::move(matrix));

  const int64_t columns = matrix->columns();
  ASSIGN_OR_RETURN(Buffer memory, map_pages(packed_bytes(parts), "packed weights"));
  // Every byte is read in order at each step: fewer page walks. Only advice, so errors don't
  // matter.
  ::madvise(memory.data(), memory.bytes(), MADV_HUGEPAGE);
  std::vector<HostMatrix::Panels> panels;
  const std::byte* next = memory.data();
  for (size_t i = 0; i < kinds.size(); ++i) {
    panels.push_back({.kind = kinds[i], .bytes = pair_bytes(kinds[i], columns), .data = next});
    next += pair_count(parts[i].rows) * panels[i].bytes;
  }
  const auto pack_share = [&](Lane& lane) {
    for (size_t i = 0; i < kinds.size(); ++i) {
      const HostMatrix::Part& part = matrix->parts()[i];
      const Lane::Range share = lane.share(pair_count(part.rows));
      for (int64_t pair = share.begin; pair < share.end; ++pair) {
        pack_pair(kinds[i], part, columns, pair,
                  memory.data() + (panels[i].pair(pair) - memory.data()));
      }
    }
  };
  if (options_.pool != nullptr) {
    options_.pool->run(pack_share);
  } else {
    Lane whole;
    pack_share(whole);
  }
  ActivationFormat input{.type = ActivationType::kBF16};
  if (kinds.front() != PanelKind::kBF16) {
    const bool wide = options_.activations == ActivationMode::kInt8Wide && columns % 128 == 0 &&
                      options.input_unit % 128 == 0;
    input = {.type = ActivationType::kInt8, .group = wide ? 128 : 32};
  }
  matrix->set_panels(std::move(panels), std::move(memory), input);
  return std::unique_ptr<PackedMatrix>(std::move(matrix));
}

uint64_t HostOps::activation_bytes(int64_t rows, int64_t columns) const {
  return static_cast<uint64_t>(rows * activation_row_bytes(columns));
}

// As transformers does: the angle is a float32 product (models were trained with its rounding), its
// cosine and sine are exact to float32.
void HostOps::rotations(Lane& lane, std::span<const SequenceRows> sequences,
                        std::span<const float> inverse_frequency, FloatRows out) const {
  for (const SequenceRows& sequence : sequences) {
    const Lane::Range share = lane.share(sequence.num_rows);
    for (int64_t i = share.begin; i < share.end; ++i) {
      const auto position = static_cast<float>(sequence.first_position + i);
      float* row = out.row(sequence.first_row + i);
      for (size_t pair = 0; pair < inverse_frequency.size(); ++pair) {
        const double angle = static_cast<double>(position * inverse_frequency[pair]);
        row[2 * pair] = static_cast<float>(std::cos(angle));
        row[2 * pair + 1] = static_cast<float>(std::sin(angle));
      }
    }
  }
}

}  // namespace puna::kernels
