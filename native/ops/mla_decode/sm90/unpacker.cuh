// Attention of decode rows on Hopper, over a packed cache: the warpgroup that makes a tile's codes bfloat16, in place.
//
// The copy engine brings the codes of 128 latents, 128 bytes a key, to where the second of their two panels will be: a key's codes lie where half of what
// becomes of them will. A warp has 16 keys of its own and holds a key's codes in registers before it writes, so that no other warp need wait for it.
#pragma once

#include "cuda/hopper/wgmma.cuh"
#include "cuda/latents.cuh"
#include "ops/mla_decode/sm90/block.cuh"

namespace longcat::cuda {
namespace {

class Unpacker {
 public:
  __device__ explicit Unpacker(UnitShared& shared)
      : shared_(shared), lane_(static_cast<int>(threadIdx.x & 31)), firstKey_(static_cast<int>(threadIdx.x / 32 & 3) * 16 + lane_ / 8) {}

  __device__ void run(const Run& run, uint32_t number) const {
    for (const uint32_t end = number + static_cast<uint32_t>(run.tiles()); number < end; ++number) tile(TilePlace(number));
  }

 private:
  /// Group by group, so that scores can begin with the first.
  __device__ __forceinline__ void tile(TilePlace at) const {
#pragma unroll
    for (int group = 0; group < kCodeGroups; ++group) {
      wait(&shared_.codes[at.stage][group], at.phase);
#pragma unroll
      for (int keys = 0; keys < 16; keys += 8) unpack(at.stage, group, firstKey_ + keys);
      fenceAsyncProxy();
      __syncwarp();
      if (lane_ < 2) arrive(&shared_.full[at.stage][2 * group + lane_]);
    }
  }

  /// Eight keys: `key` and the one four further, of each of which eight neighbouring lanes have 16 codes.
  __device__ __forceinline__ void unpack(int stage, int group, int key) const {
    auto* const first = reinterpret_cast<unsigned char*>(shared_.tile[stage][2 * group]);
    auto* const second = reinterpret_cast<unsigned char*>(shared_.tile[stage][2 * group + 1]);
    uint4 codes[2];
    float scale[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      codes[i] = *reinterpret_cast<const uint4*>(second + (key + 4 * i) * 128 + (lane_ & 7) * 16);
      scale[i] = shared_.scales[stage][key + 4 * i][group];
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int piece = (lane_ ^ (key + 4 * i)) & 7;  // of the key's codes, which the copy engine has swizzled
      const bool later = piece >= 4;                  // in the second panel
      const uint4 low = scaledOctet(make_uint2(codes[i].x, codes[i].y), scale[i]), high = scaledOctet(make_uint2(codes[i].z, codes[i].w), scale[i]);
      unsigned char* const panel = later ? second : first;
      // Half of the lanes begin with the upper eight: together eight lanes meet all banks.
      *reinterpret_cast<uint4*>(panel + swizzled128(key + 4 * i, 2 * (piece & 3) + later)) = later ? high : low;
      *reinterpret_cast<uint4*>(panel + swizzled128(key + 4 * i, 2 * (piece & 3) + !later)) = later ? low : high;
    }
  }

  UnitShared& shared_;
  int lane_, firstKey_;
};

}  // namespace
}  // namespace longcat::cuda
