// SPDX-License-Identifier: Apache-2.0
// Many rows of int8 times unpacked panels with AMX: a quad is a row of a B tile as it stands. The
// dots of 16 rows with a panel's unit of depth are one TDPBSSD; its tile goes through L1 to the
// vector units, which scale it in the order of panel_kernels.h. While they scale one chunk of units
// the tiles of the next are multiplied: two stages, a step of each in turn.
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns inside its own intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
// Of the body only the unpacking is used here.
#pragma GCC diagnostic ignored "-Wunused-function"
#include <algorithm>

#include "kernels/cpu/panel_avx512.inc"
// The vocabulary comes first: the body is written over it.
#include "kernels/cpu/panel_body.inc"

namespace puna::kernels {
namespace {

constexpr int kTileRows = 16;
constexpr int kHalf = kTileRows / 2;  // rows whose sums of both panels fill 16 registers

// Tiles 0-3 take dots, 4 and 5 rows of activations, 6 and 7 weights. Each in turn: a load waits for
// what still reads its tile.
struct alignas(64) TileConfig {
  explicit constexpr TileConfig(int32_t unit)  // columns of depth
      : row_bytes{64, 64, 64, 64, static_cast<uint16_t>(unit), static_cast<uint16_t>(unit), 64, 64},
        rows{kTileRows,
             kTileRows,
             kTileRows,
             kTileRows,
             kTileRows,
             kTileRows,
             static_cast<uint8_t>(unit / 4),
             static_cast<uint8_t>(unit / 4)} {}
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

thread_local int32_t t_configured_unit = 0;  // 0: the thread's tiles are free

void configure_tiles(int32_t unit) {
  if (t_configured_unit == unit) return;
  static constexpr TileConfig kConfigs[2] = {TileConfig(16), TileConfig(32)};
  // GCC 12's intrinsic tells the compiler of eight of the bytes that it reads.
  asm volatile("ldtilecfg %0" : : "m"(kConfigs[unit / 32]));
  t_configured_unit = unit;
}

// Without live tiles a context switch saves none.
void release_tiles() {
  if (t_configured_unit != 0) _tile_release();
  t_configured_unit = 0;
}

// By assembly: GCC's intrinsics take literals for tiles, and clobber all memory with a store. What
// is loaded was written by other functions.
template <int kTile>
inline void load_tile(const void* from, int64_t stride) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(kTile), "r"(from), "r"(stride));
}

struct TileDots {
  alignas(64) int32_t values[kTileRows][kPanelColumns];
};

template <int kTile>
inline void store_tile(TileDots& to) {
  asm volatile("tilestored %%tmm%c1, (%2,%3,1)"
               : "=m"(to)
               : "i"(kTile), "r"(&to), "r"(int64_t{sizeof to.values[0]}));
}

// The tile's dots of signed bytes, from zero.
template <int kTile, int kRowTile, int kWeightTile>
inline void multiply_tiles() {
  asm volatile("tilezero %%tmm%c0\n\ttdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0"
               :
               : "i"(kTile), "i"(kRowTile), "i"(kWeightTile));
}

// What is multiplied before it is scaled: units of depth of 16 rows and both panels.
struct Chunk {
  int64_t row = 0;
  int64_t done = 0;  // of the rows: the last 16 begin before those that are left
  int64_t unit = 0;
  int64_t units = 0;  // 0: there is none
};

// Rows first … first + 7 of something with a stride, from three addresses.
template <typename T>
struct HalfRows {
  HalfRows(const T* base, int64_t stride_bytes, int64_t first)
      : stride(stride_bytes),
        low(reinterpret_cast<const char*>(base) + first * stride_bytes),
        middle(low + 3 * stride_bytes),
        high(middle + 3 * stride_bytes) {}
  const T* at(int row, int64_t index) const {
    const char* from = row < 3   ? low + row * stride
                       : row < 6 ? middle + (row - 3) * stride
                                 : high + (row - 6) * stride;
    return reinterpret_cast<const T*>(from) + index;
  }
  int64_t stride;
  const char* low;
  const char* middle;
  const char* high;
};

// Else GCC leaves sums that a lambda takes in memory.
#define PUNA_INLINE __attribute__((always_inline))

// use<i, p>() for the rows of a half and the panels.
template <typename Use>
PUNA_INLINE inline void each_sum(Use use) {
  const auto row = [&]<int i>() PUNA_INLINE {
    use.template operator()<i, 0>();
    use.template operator()<i, 1>();
  };
  row.template operator()<0>();
  row.template operator()<1>();
  row.template operator()<2>();
  row.template operator()<3>();
  row.template operator()<4>();
  row.template operator()<5>();
  row.template operator()<6>();
  row.template operator()<7>();
}

template <int kUnits, bool kMinima, bool kWide>
class TiledProduct {
 public:
  explicit TiledProduct(const PairProduct& job) : job_(job), units_(job.groups * kUnits) {}

  void run() {  // at least 16 rows
    for (int64_t end = 0; end < job_.m;) {
      Chunk chunk{.row = std::min(end, job_.m - kTileRows)};
      chunk.done = end - chunk.row;
      end = chunk.row + kTileRows;
      for (; chunk.unit < units_; chunk.unit += kMost) {
        chunk.units = std::min(kMost, units_ - chunk.unit);
        if (chunk.row == 0) prefetch(chunk);
        multiply(chunk);
        if (chunk.done < kHalf) scale(chunk, 0);
        scale(chunk, 1);
      }
    }
  }

 private:
  // Units of a chunk. One activation scale, if it covers 128 columns.
  static constexpr int64_t kMost = kWide ? 4 * kUnits : 8;

  // Packed weights for the next call.
  void prefetch(const Chunk& chunk) const {
    const int64_t unit_bytes = panel_traits(job_.kind).group_bytes() / kUnits;
    const std::byte* from = job_.next + chunk.unit * unit_bytes;
    for (int64_t i = 0; i < chunk.units * unit_bytes; i += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(from + i), _MM_HINT_T1);
    }
  }

  void multiply(const Chunk& chunk) {
    const int8_t* x =
        job_.x.values + chunk.row * job_.x.stride + job_.first_group * 32 + chunk.unit * kUnitDepth;
    const uint8_t* w = job_.unpacked.quads + quad_offset(chunk.unit);
    int64_t unit = 0;
    for (; unit + 2 <= chunk.units; unit += 2) {
      load_tile<4>(x + unit * kUnitDepth, job_.x.stride);
      load_tile<6>(w + quad_offset(unit), 64);
      multiply_tiles<0, 4, 6>();
      if (unit > 0) store_tile<3>(dots_[unit - 1][1]);
      load_tile<7>(w + quad_offset(unit) + kPanelQuads, 64);
      multiply_tiles<1, 4, 7>();
      store_tile<0>(dots_[unit][0]);
      load_tile<5>(x + (unit + 1) * kUnitDepth, job_.x.stride);
      load_tile<6>(w + quad_offset(unit + 1), 64);
      multiply_tiles<2, 5, 6>();
      store_tile<1>(dots_[unit][1]);
      load_tile<7>(w + quad_offset(unit + 1) + kPanelQuads, 64);
      multiply_tiles<3, 5, 7>();
      store_tile<2>(dots_[unit + 1][0]);
    }
    if (unit > 0) store_tile<3>(dots_[unit - 1][1]);
    if (unit == chunk.units) return;
    load_tile<4>(x + unit * kUnitDepth, job_.x.stride);
    load_tile<6>(w + quad_offset(unit), 64);
    multiply_tiles<0, 4, 6>();
    load_tile<7>(w + quad_offset(unit) + kPanelQuads, 64);
    multiply_tiles<1, 4, 7>();
    store_tile<0>(dots_[unit][0]);
    store_tile<1>(dots_[unit][1]);
  }

  static constexpr int64_t kUnitDepth = 32 / kUnits;
  static constexpr int64_t kPanelQuads = 8 * 64;
  // Chunks begin with a group.
  static constexpr int64_t quad_offset(int64_t unit) {
    return unit / kUnits * 2 * kPanelQuads + unit % kUnits * 4 * 64;
  }

  void scale(const Chunk& chunk, int half) {
    const int64_t row = chunk.row + half * kHalf;
    const int64_t skipped = chunk.done - half * kHalf;
    const HalfRows<float> scales(job_.x.scales, job_.x.stride, row);
    const HalfRows<int32_t> corrections(job_.x.corrections, job_.x.corrections_stride, row);
    float* const c = job_.c + row * job_.c_stride;
    Col sums[kHalf][2];
    each_sum([&]<int i, int p>() PUNA_INLINE {
      sums[i][p] = kWide || (chunk.unit == 0 && !job_.accumulate)
                       ? Panel::zero()
                       : Panel::load_floats(c + i * job_.c_stride + p * kPanelColumns);
    });
    for (int64_t index = 0; index < chunk.units; ++index) {
      const int64_t unit = chunk.unit + index;
      const int64_t group = job_.first_group + unit / kUnits;
      const float* at = job_.unpacked.scales + unit * kPairColumns;
      const Col weight_scale[2] = {Panel::load_floats(at), Panel::load_floats(at + kPanelColumns)};
      Col minimum[2] = {};
      if constexpr (kMinima) {
        at = job_.unpacked.minima + unit * kPairColumns;
        minimum[0] = Panel::load_floats(at);
        minimum[1] = Panel::load_floats(at + kPanelColumns);
      }
      each_sum([&]<int i, int p>() PUNA_INLINE {
        const Col dot = Panel::to_float(Panel::load(dots_[index][p].values[half * kHalf + i]));
        Col scale = weight_scale[p];
        if constexpr (!kWide) scale = Panel::mul(scale, Panel::set(*scales.at(i, group)));
        sums[i][p] = Panel::fma(dot, scale, sums[i][p]);
        if constexpr (kMinima) {
          float correction = 0.0F;
          std::memcpy(&correction, corrections.at(i, unit), sizeof correction);
          sums[i][p] = Panel::fma(minimum[p], Panel::set(correction), sums[i][p]);
        }
      });
    }
    each_sum([&]<int i, int p>() PUNA_INLINE {
      if (i < skipped) return;
      float* const to = c + i * job_.c_stride + p * kPanelColumns;
      if constexpr (kWide) {
        const Col so_far =
            chunk.unit == 0 && !job_.accumulate ? Panel::zero() : Panel::load_floats(to);
        const int64_t group = job_.first_group + chunk.unit / kUnits;
        sums[i][p] = Panel::fma(sums[i][p], Panel::set(*scales.at(i, group)), so_far);
      }
      Panel::store_floats(to, sums[i][p]);
    });
  }

  const PairProduct job_;
  const int64_t units_;
  TileDots dots_[kMost][2];
};

template <int kUnits, bool kMinima>
void tiled(const PairProduct& job) {
  if (job.x.wide) {
    TiledProduct<kUnits, kMinima, true>(job).run();
  } else {
    TiledProduct<kUnits, kMinima, false>(job).run();
  }
}

void tiled_product(const PairProduct& job) {
  if (job.unpacked.quads == nullptr) return avx512_panel_kernels().product(job);
  const bool minima = panel_traits(job.kind).minima;
  configure_tiles(32 / panel_units(job.kind));
  if (panel_units(job.kind) == 1) {
    minima ? tiled<1, true>(job) : tiled<1, false>(job);
  } else {
    minima ? tiled<2, true>(job) : tiled<2, false>(job);
  }
}

void unpack_signed(PanelKind kind, const std::byte* pair, int64_t first_group, int64_t groups,
                   uint8_t* quads, float* scales, float* minima) {
  unpack_quads(
      kind, pair, first_group, groups, quads, scales, minima, []<PanelKind kKind>(Quad quad) {
        constexpr int32_t kZero = panel_traits(kKind).zero;
        return kZero == 0 ? quad
                          : _mm512_sub_epi8(quad, _mm512_set1_epi8(static_cast<char>(kZero)));
      });
}

}  // namespace

const PanelKernels& amx_panel_kernels() {
  static const PanelKernels kernels = [] {
    PanelKernels table = avx512_bf16_panel_kernels();
    table.product = tiled_product;
    table.unpack = unpack_signed;
    table.unpack_from_rows = kTileRows;
    table.unpacks_signed = true;
    table.leave = release_tiles;
    return table;
  }();
  return kernels;
}

}  // namespace puna::kernels
