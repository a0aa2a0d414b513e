// step_plan at decode and prompt sizes.
#include <cmath>
#include <string>

#include "ops/harness.h"

using namespace longcat;

LONGCAT_BENCH(step_plan) {
  for (int rows : {1, 16, 512}) {
    const bool decode = rows < 512;
    std::vector<int32_t> positions(rows), starts(rows + 1), slots(rows);
    for (int r = 0; r < rows; ++r) positions[r] = decode ? 1000 : r, starts[r] = decode ? r : r ? rows : 0, slots[r] = r % 16;
    starts[rows] = rows;
    Tensor counts = b.i32({8}, {rows, decode ? 0 : rows, decode ? rows : 1, decode ? 0 : 1, 0, 0, 0, 0});
    Tensor ids = b.i32({rows}, std::vector<int32_t>(rows, 5)), position = b.i32({rows}, positions), start = b.i32({rows + 1}, starts);
    Tensor slot = b.i32({rows}, slots), frequency = b.randomF32({32}, 0, 1), history = b.i32({16, 4096}), tokens = b.i32({rows});
    Tensor rowSlot = b.i32({rows}), cosSin = b.f32({rows, 64}), splits = b.i32({rows * 8, 2});
    b.time(std::to_string(rows) + (decode ? " decode rows" : " prompt rows"), "step_plan",
           args({&counts, &ids, &position, &start, &slot, &frequency, &history, &tokens, &rowSlot, &cosSin, &splits}, {1}), rows * 64 * 4.0,
           rows * 64.0);
  }
}
