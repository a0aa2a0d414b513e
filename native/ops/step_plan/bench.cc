// step_plan of decode rows at a context of 4000, and of one prompt. Floor: the rotations' bytes.
#include "ops/harness_bench.h"
#include "ops/mla_decode/params.h"

using namespace longcat;

LONGCAT_BENCH(step_plan) {
  const int32_t context = 4000, slotsInAll = 256;
  for (const ModelShape* m : b.models()) {
    for (int64_t T : b.tokens()) {
      for (bool decode : {true, false}) {
        if (decode && T > slotsInAll) continue;
        const auto n = static_cast<int32_t>(T);
        std::vector<int32_t> positions(T), starts(T + 1, n), slots(T);
        for (int32_t r = 0; r < n; ++r) positions[r] = decode ? context : r, slots[r] = decode ? r : 0, starts[r] = decode ? r : r ? n : 0;
        const int64_t splitsEach = context / kSplitKeys + 1;
        const Tensor counts = b.i32({8}, {n, decode ? 0 : n, decode ? n : 1, decode ? 0 : 1, 0, 0, 0, 0});
        const Tensor ids = b.i32({T}, std::vector<int32_t>(T, 5)), prompt = b.i32({T}, positions), position = b.empty(DType::i32, {T}), start = b.i32({T + 1}, starts), slot = b.i32({T}, slots);
        const Tensor frequency = b.random(DType::f32, {m->rope / 2}, 0, 1), history = b.i32({slotsInAll, 8192}), tokens = b.empty(DType::i32, {T});
        const Tensor rowSlot = b.empty(DType::i32, {T}), cosSin = b.empty(DType::f32, {T, m->rope});
        const Tensor limit = b.i32({T}, std::vector<int32_t>(T, 8192)), next = b.i32({T}, std::vector<int32_t>(T, -1));
        const Tensor lengths = b.i32({slotsInAll}, std::vector<int32_t>(slotsInAll, context));
        const Tensor splits = b.empty(DType::i32, {decode ? T * splitsEach : 1, 2});
        b.time({m, decode ? "decode at 4000" : "one prompt", T, "", 4.0 * static_cast<double>(T * m->rope), 0}, "step_plan",
               args({&counts, &ids, &prompt, &start, &slot, &limit, &next, nullptr, &frequency, &history, &lengths, &tokens, &position, &rowSlot, &cosSin, &splits,
                     nullptr, nullptr},
                    {1, 0}));
      }
    }
  }
}
