// SPDX-License-Identifier: Apache-2.0
// How keys and values are stored: the same bytes from every table, finite whatever comes, and
// nothing written beside the slot.
#include "kernels/cpu/kv_layout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/isa.h"

namespace puna::kernels {
namespace {

constexpr int32_t kTable[] = {2, 0};
constexpr int64_t kHeads = 2;

struct Stores {
  std::string_view isa;
  const KvStores* stores;
};
std::vector<Stores> all_stores() {
  std::vector<Stores> result;
  for (const std::string_view isa : available_isas()) {
    if (isa == "scalar") result.push_back({isa, &scalar_kv_stores()});
#if defined(__x86_64__)
    if (isa == "avx2") result.push_back({isa, &avx2_attention_kernels().stores});
    if (isa == "avx512") result.push_back({isa, &avx512_attention_kernels().stores});
    if (isa == "avx512_bf16") result.push_back({isa, &avx512_bf16_attention_kernels().stores});
#endif
  }
  return result;
}

class Cache {
 public:
  Cache(KvType type, int32_t head_dim)
      : shape_{.num_layers = 2,
               .num_blocks = 3,
               .num_heads = 4,
               .num_kv_heads = kHeads,
               .head_dim = head_dim,
               .type = type},
        memory_(KvLayout::bytes(shape_), std::byte{0xFF}) {}
  KvCache cache() { return {shape_, memory_.data()}; }
  const std::vector<std::byte>& memory() const { return memory_; }
  void store(const KvStores& stores, KvPart part, int64_t position, int64_t head,
             const std::vector<float>& values) {
    KvWriter(cache(), stores).store(part, 1, kTable, position, head, values.data());
  }
  float element(KvPart part, int64_t position, int64_t head, int64_t index) {
    return KvLayout(cache()).element(part, 1, kTable, position, head, index);
  }

 private:
  KvShape shape_;
  std::vector<std::byte> memory_;
};

// Heads of ordinary values, of ties between two bf16, and of what a broken model may give.
std::vector<std::vector<float>> heads_of(int32_t head_dim) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float large = std::numeric_limits<float>::max();
  const float nasty[] = {nan,  infinity, -infinity, large, -large, 0x1.01p0F, 0x1.03p0F,
                         -nan, 1e-42F,   -1e-39F,   -0.0F, 0.0F,   3.39e38F,  -1.5F};
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> heads(5, std::vector<float>(static_cast<size_t>(head_dim)));
  for (size_t i = 0; i < static_cast<size_t>(head_dim); ++i) {
    heads[0][i] = normal(random);
    heads[1][i] = nasty[i % std::size(nasty)];
    heads[2][i] = 1e-35F * normal(random);  // int8: below what has a scale
    heads[3][i] = i % 2 == 0 ? nan : -infinity;
    heads[4][i] = static_cast<float>(static_cast<int>(i % 255) - 127) * 0.5F;  // int8: half-ways
  }
  return heads;
}

constexpr KvType kTypes[] = {KvType::kF32, KvType::kBF16, KvType::kInt8};
constexpr KvPart kParts[] = {KvPart::kKey, KvPart::kValue};

TEST(KvLayout, EveryTableStoresTheSameBytes) {
  for (const KvType type : kTypes) {
    for (const int32_t head_dim : {2, 6, 8, 16, 64, 80, 96, 128, 256}) {
      Cache want(type, head_dim);
      const auto heads = heads_of(head_dim);
      const auto fill = [&](Cache& cache, const KvStores& stores) {
        for (int64_t i = 0; i < 2 * 5; ++i) {
          const int64_t position = 3 * i;  // even and odd slots of both blocks
          for (const KvPart part : kParts)
            cache.store(stores, part, position, i % kHeads, heads[static_cast<size_t>(i % 5)]);
        }
      };
      fill(want, scalar_kv_stores());
      for (const Stores& stores : all_stores()) {
        Cache got(type, head_dim);
        fill(got, *stores.stores);
        // Pads may differ: they are never read as anything.
        for (int64_t i = 0; i < 2 * 5; ++i) {
          for (const KvPart part : kParts) {
            for (int64_t d = 0; d < head_dim; ++d) {
              const float a = want.element(part, 3 * i, i % kHeads, d);
              const float b = got.element(part, 3 * i, i % kHeads, d);
              ASSERT_EQ(std::memcmp(&a, &b, sizeof a), 0) << stores.isa << " " << head_dim;
            }
          }
        }
        if (head_dim % 16 == 0) {
          EXPECT_EQ(got.memory(), want.memory()) << stores.isa;
        }
      }
    }
  }
}

TEST(KvLayout, StoresRoundedFiniteValues) {
  for (const Stores& stores : all_stores()) {
    for (const KvType type : kTypes) {
      Cache cache(type, 64);
      for (const auto& head : heads_of(64)) {
        float most = 0.0F;
        for (const float value : head)
          if (!std::isnan(value)) most = std::max(most, std::abs(value));
        for (const KvPart part : kParts) {
          cache.store(*stores.stores, part, 17, 1, head);
          for (int64_t d = 0; d < 64; ++d) {
            const float value = head[static_cast<size_t>(d)];
            const float got = cache.element(part, 17, 1, d);
            ASSERT_TRUE(std::isfinite(got)) << stores.isa;
            if (std::isnan(value)) {
              EXPECT_EQ(got, 0.0F);
            } else if (std::isinf(value) && type != KvType::kInt8) {
              EXPECT_GT(std::abs(got), 3.3e38F);
            } else if (std::abs(value) < 3.3e38F && type != KvType::kInt8) {
              EXPECT_NEAR(got, value, std::abs(value) / 256 + 1e-40F);
            } else if (std::abs(value) < 3.3e38F && most < 3.3e38F && most > 1e-30F) {
              EXPECT_NEAR(got, value, most / 253);
            }
          }
        }
      }
    }
  }
}

TEST(KvLayout, WritesItsSlotOnly) {
  for (const Stores& stores : all_stores()) {
    for (const KvType type : kTypes) {
      for (const int32_t head_dim : {8, 64}) {
        Cache cache(type, head_dim);
        const std::vector<float> other(static_cast<size_t>(head_dim), 2.0F);
        const std::vector<float> mine(static_cast<size_t>(head_dim), -1.0F);
        for (int64_t position = 0; position < 32; ++position) {
          for (const KvPart part : kParts) {
            for (int64_t head = 0; head < kHeads; ++head)
              cache.store(*stores.stores, part, position, head, other);
          }
        }
        for (const KvPart part : kParts) cache.store(*stores.stores, part, 21, 1, mine);
        for (int64_t position = 0; position < 32; ++position) {
          for (const KvPart part : kParts) {
            for (int64_t head = 0; head < kHeads; ++head) {
              for (int64_t d = 0; d < head_dim; ++d) {
                const float want = position == 21 && head == 1 ? -1.0F : 2.0F;
                ASSERT_EQ(cache.element(part, position, head, d), want) << stores.isa;
              }
            }
          }
        }
      }
    }
  }
}

TEST(KvLayout, RefusesSizesThatOverflow) {
  EXPECT_EQ(KvLayout::bytes({.num_layers = INT32_MAX,
                             .num_blocks = INT32_MAX,
                             .num_heads = 1024,
                             .num_kv_heads = 1024,
                             .head_dim = 256}),
            UINT64_MAX);
}

}  // namespace
}  // namespace puna::kernels
