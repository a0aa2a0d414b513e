// Sizes of a thread's scratch in a gated product (cpu/swiglu.h): a tile of `up` beside the tile of `gate` in the hidden rows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace longcat {

constexpr int64_t kSwigluRows = 48, kSwigluOutputs = 64;  // of one tile
constexpr size_t kSwigluScratchBytes = kSwigluRows * kSwigluOutputs * sizeof(float);

}  // namespace longcat
