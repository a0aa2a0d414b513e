// NativeAddon.measure: read bandwidth and multiply-add rate, here and now, with the best instruction set.
#include <algorithm>
#include <chrono>
#include <vector>

#include "bindings/addon.h"
#include "cpu/measure.h"
#include "ops/op.h"
#include "runtime/memory.h"
#include "runtime/processor.h"
#include "runtime/thread_pool.h"

namespace longcat {
namespace {

using Clock = std::chrono::steady_clock;
constexpr double kSeconds = 0.15;  // of each measurement

struct Kernels {
  float (*readAll)(const float*, int64_t) = plain::readAll;
  double (*multiplyAdd)(int64_t, float*) = plain::multiplyAdd;

  Kernels() {
#ifndef LONGCAT_ONLY_PLAIN
    if (bestIsa() == Isa::avx2) readAll = avx2::readAll, multiplyAdd = avx2::multiplyAdd;
    if (bestIsa() == Isa::avx512) readAll = avx512::readAll, multiplyAdd = avx512::multiplyAdd;
#endif
  }
};

/// Best rate of `work` (which returns what it did) over the measurement's time: what the machine can do, not what its neighbours left.
template <class Work>
double bestRate(const Work& work) {
  double best = 0;
  const auto end = Clock::now() + std::chrono::duration<double>(kSeconds);
  for (int i = 0; i < 3 || Clock::now() < end; ++i) {
    const auto start = Clock::now();
    const double done = work();
    best = std::max(best, done / std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

Napi::Value measure(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const int threads = threadsArg(info[0]);
    const int64_t bytes = integerArg(info[1], "bufferBytes");
    require(bytes >= 1, "bufferBytes is at least 1");
    const Kernels kernels;
    ThreadPool pool(threads);
    const int64_t tasks = int64_t{4} * threads, perTask = std::max<int64_t>(bytes / 4 / tasks, 512), count = perTask * tasks;
    const auto buffer = allocateBuffer(static_cast<size_t>(count) * 4, "a measurement");
    fillBytes(Tensor{DType::u8, 1, {count * 4, 1, 1, 1}, 1, buffer->data(), buffer, nullptr}, 1);
    const auto* data = reinterpret_cast<const float*>(buffer->data());
    std::vector<float> sinks(static_cast<size_t>(threads) * 16);  // one cache line each
    // Small buffers are read several times a round, one after another, so that starting a round does not count.
    const int64_t passes = std::max<int64_t>(1, (int64_t{8} << 20) / (count * 4));
    const double read = bestRate([&] {
      pool.parallelFor(tasks * passes, [&](int64_t task, int thread) {
        sinks[thread * 16] = kernels.readAll(data + task % tasks * perTask, perTask);
      });
      return static_cast<double>(count) * 4 * static_cast<double>(passes);
    });
    constexpr int64_t kRounds = 20000;
    const double flopsPerTask = kernels.multiplyAdd(1, &sinks[0]) * kRounds;
    const double flops = bestRate([&] {
      pool.parallelFor(tasks, [&](int64_t, int thread) { kernels.multiplyAdd(kRounds, &sinks[thread * 16]); });
      return flopsPerTask * static_cast<double>(tasks);
    });
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("readBytesPerSecond", Napi::Number::New(info.Env(), read));
    result.Set("flopsPerSecond", Napi::Number::New(info.Env(), flops));
    return result;
  });
}

}  // namespace

void RegisterMeasure(Napi::Env env, Napi::Object exports) { exports.Set("measure", Napi::Function::New(env, measure, "measure")); }

}  // namespace longcat
