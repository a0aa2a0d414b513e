// Benchmarks of operations: shapes, data, the clock, the table (harness_bench.h).
#include "ops/harness_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <stdexcept>

#include "cpu/measure.h"
#include "ops/harness_cuda.h"
#include "ops/latent_cache.h"
#include "runtime/float_formats.h"
#include "runtime/memory.h"
#include "runtime/processor.h"

namespace longcat {
namespace {

using Clock = std::chrono::steady_clock;
double secondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct Registered {
  std::string op;
  void (*body)(BenchContext&);
};
std::vector<Registered>& benches() {
  static std::vector<Registered> list;
  return list;
}

uint64_t nextRandom(uint64_t& state) {  // splitmix64
  uint64_t z = (state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/// Random numbers as fillRandom() of cuda/ceilings.h makes them. Large memory repeats its first million.
void fillOnProcessor(const Tensor& t, float low, float high, uint64_t& state) {
  const int64_t count = t.elements(), fresh = std::min<int64_t>(count, 1 << 20);
  const size_t size = bytesOf(t.dtype);
  for (int64_t i = 0; i < fresh; ++i) {
    const uint64_t bits = nextRandom(state);
    const float value = low + (high - low) * static_cast<float>(bits >> 40) / 16777216.0f;
    if (t.dtype == DType::f32) reinterpret_cast<float*>(t.data)[i] = value;
    else if (t.dtype == DType::bf16) reinterpret_cast<uint16_t*>(t.data)[i] = bf16OfFloat(value);
    else reinterpret_cast<uint8_t*>(t.data)[i] = static_cast<uint8_t>((bits & 0x80) | ((bits & 0x3f) + 0x20));
  }
  for (int64_t done = fresh; done < count;) {
    const int64_t n = std::min(done, count - done);
    std::memcpy(t.data + static_cast<size_t>(done) * size, t.data, static_cast<size_t>(n) * size);
    done += n;
  }
}

Tensor described(DType dtype, const int64_t* shape, int rank) {
  Tensor t;
  t.dtype = dtype;
  t.rank = rank;
  std::copy_n(shape, rank, t.shape);
  t.rowStride = rank < 2 ? 1 : t.elements() / (shape[0] ? shape[0] : 1);
  return t;
}

/// Best rate of `work`, which returns what it did, within a fifth of a second.
template <class Work>
double bestRate(const Work& work) {
  double best = 0;
  const auto begin = Clock::now();
  for (int i = 0; i < 3 || secondsSince(begin) < 0.2; ++i) {
    const auto start = Clock::now();
    const double done = work();
    best = std::max(best, done / secondsSince(start));
  }
  return best;
}

BenchCeilings processorCeilings(int threads, Isa isa) {
  float (*readAll)(const float*, int64_t) = plain::readAll;
  double (*multiplyAdd)(int64_t, float*) = plain::multiplyAdd;
#ifndef LONGCAT_ONLY_PLAIN
  if (isa == Isa::avx2) readAll = avx2::readAll, multiplyAdd = avx2::multiplyAdd;
  if (isa == Isa::avx512) readAll = avx512::readAll, multiplyAdd = avx512::multiplyAdd;
#endif
  ThreadPool pool(threads);
  const int64_t tasks = 4 * threads, perTask = (int64_t{64} << 20) / tasks;
  const auto buffer = allocateBuffer(static_cast<size_t>(tasks * perTask) * 4, "a measurement");
  std::memset(buffer->data(), 1, buffer->bytes());
  std::vector<float> sinks(static_cast<size_t>(threads) * 16);
  BenchCeilings c;
  c.bytesPerSecond = bestRate([&] {
    pool.parallelFor(tasks, [&](int64_t i, int thread) { sinks[static_cast<size_t>(thread) * 16] = readAll(reinterpret_cast<const float*>(buffer->data()) + i * perTask, perTask); });
    return static_cast<double>(buffer->bytes());
  });
  const double perRound = multiplyAdd(1, sinks.data());
  c.fmaFlops = bestRate([&] {
    pool.parallelFor(tasks, [&](int64_t, int thread) { multiplyAdd(20000, &sinks[static_cast<size_t>(thread) * 16]); });
    return perRound * 20000 * static_cast<double>(tasks);
  });
  return c;
}

}  // namespace

const std::vector<ModelShape>& modelShapes() {
  static const std::vector<ModelShape> shapes = {
      {"flash", 6144, 12288, 2048, 512, 256, 12, 64, 1536, 512, 128, 64, 128, 131072, 0, 0},
      {"lite", 3072, 6144, 1024, 256, 128, 12, 32, 1536, 512, 128, 64, 128, 131072, 4, 4},
      {"mini", 256, 512, 128, 24, 12, 6, 4, 64, 512, 128, 64, 128, 2048, 0, 0},
  };
  return shapes;
}

const char* shortName(DType dtype) {
  switch (dtype) {
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::f8e4m3: return "fp8";
    default: return nameOf(dtype);
  }
}

BenchContext::BenchContext(const BenchOptions& options, Isa isa, const BenchCeilings& ceilings, std::function<void(const BenchRow&)> report)
    : options_(options), isa_(isa), ceilings_(ceilings), report_(std::move(report)), pool_(options.threads) {}

std::vector<const ModelShape*> BenchContext::models() const {
  std::vector<const ModelShape*> result;
  for (const ModelShape& m : modelShapes()) {
    const bool mini = std::strcmp(m.name, "mini") == 0;
    if ((options_.shape == "all" || options_.shape == m.name) && (mini || isa_ != Isa::cuda)) result.push_back(&m);
  }
  return result;
}

std::vector<DType> BenchContext::weightDtypes(const ModelShape& model) const {
  const bool mini = std::strcmp(model.name, "mini") == 0;
  if (isa_ == Isa::cuda) return {DType::f32};
  if (mini && !onGpu()) return {DType::f32, DType::bf16, DType::f8e4m3};
  return {DType::bf16, DType::f8e4m3};
}

std::vector<int64_t> BenchContext::tokens(int64_t most) const {
  std::vector<int64_t> wanted = options_.tokens;
  if (wanted.empty()) wanted = onGpu() ? std::vector<int64_t>{1, 4, 16, 64, 256, 1024, 8192} : std::vector<int64_t>{1, 16, 256};
  mostTokens_ = std::max(mostTokens_, most);
  wanted.erase(std::remove_if(wanted.begin(), wanted.end(), [&](int64_t n) { return n > most; }), wanted.end());
  return wanted;
}

bool BenchContext::tooMuch(double flops) const {
  const bool takesLong = !onGpu() && flops > 6e9;
  leftOut_ = leftOut_ || takesLong;
  return takesLong;
}

std::string BenchContext::whyNothing() const {
  if (models().empty()) return "with float32 activations on a GPU there is the shape mini alone";
  if (mostTokens_ > 0 && tokens(mostTokens_).empty()) return "there are up to " + std::to_string(mostTokens_) + " --tokens";
  if (leftOut_) return "so many --tokens take this processor too long";
  return "the shape " + options_.shape + " has no sizes for it";
}

Tensor BenchContext::empty(DType dtype, Shape shape) {
  Tensor t = described(dtype, shape.begin(), static_cast<int>(shape.size()));
  const size_t bytes = static_cast<size_t>(t.elements()) * bytesOf(dtype);
#ifdef LONGCAT_HAS_CUDA
  if (onGpu()) t.buffer = allocateOnGpu(bytes);
#endif
  if (!t.buffer) t.buffer = allocateBuffer(bytes, "a benchmark");
  t.data = t.buffer->data();
  return t;
}

Tensor BenchContext::random(DType dtype, Shape shape, float low, float high) {
  const Tensor t = empty(dtype, shape);
#ifdef LONGCAT_HAS_CUDA
  if (onGpu()) {
    fillRandomOnGpu(t, low, high, nextRandom(random_));
    return t;
  }
#endif
  fillOnProcessor(t, low, high, random_);
  return t;
}

Tensor BenchContext::upload(DType dtype, Shape shape, const void* values) {
  const Tensor t = empty(dtype, shape);
  const size_t bytes = static_cast<size_t>(t.elements()) * bytesOf(dtype);
#ifdef LONGCAT_HAS_CUDA
  if (onGpu()) {
    copyToGpu(t.data, values, bytes);
    return t;
  }
#endif
  std::memcpy(t.data, values, bytes);
  return t;
}

Tensor BenchContext::latentCache(const ModelShape& model, bool packed, int64_t blocks, int64_t blockSize) {
  if (!packed) return randomActivations({blocks, blockSize, model.latent()});
  Tensor cache = random(DType::f8e4m3, {blocks, blockSize, PackedLatents{model.kvRank, model.rope, blockSize}.rowBytes()});
  cache.dtype = DType::u8;
  return cache;
}

double BenchContext::latentBytes(const ModelShape& model, bool packed) const {
  return static_cast<double>(packed ? PackedLatents{model.kvRank, model.rope, 1}.rowBytes() : model.latent() * static_cast<int64_t>(bytesOf(activation())));
}

Tensor BenchContext::i32(Shape shape, const std::vector<int32_t>& values) {
  int64_t count = 1;
  for (int64_t n : shape) count *= n;
  require(values.empty() || static_cast<int64_t>(values.size()) == count, "values do not fill the tensor");
  return upload(DType::i32, shape, values.empty() ? std::vector<int32_t>(static_cast<size_t>(count)).data() : values.data());
}

Tensor BenchContext::f64(Shape shape, const std::vector<double>& values) { return upload(DType::f64, shape, values.data()); }

bench::Weight BenchContext::weight(DType dtype, int64_t rows, int64_t columns) {
  const float size = 1.0f / std::sqrt(static_cast<float>(columns));
  bench::Weight w;
  w.fp8 = dtype == DType::f8e4m3;
  w.data = random(dtype, {rows, columns}, -size, size);
  if (w.fp8) w.scale = random(DType::f32, {fp8Blocks(rows), fp8Blocks(columns)}, size / 40, size / 20);
  return w;
}

Tensor BenchContext::partsOf(const Tensor& all, int64_t count, int64_t stored, int64_t rows, int64_t columns) {
  const int64_t shape[] = {count, rows, columns};
  Tensor t = described(all.dtype, shape, 3);
  struct Owned {
    Tensor memory, list;
    std::vector<const std::byte*> parts;
  };
  auto owned = std::make_shared<Owned>(Owned{all, {}, {}});
  const size_t bytes = static_cast<size_t>(rows * columns) * bytesOf(all.dtype);
  for (int64_t e = 0; e < count; ++e) owned->parts.push_back(all.data + static_cast<size_t>(e % stored) * bytes);
  if (onGpu()) {
    static_assert(sizeof(const std::byte*) == sizeof(double));
    owned->list = upload(DType::i64, {count}, owned->parts.data());
    t.data = owned->list.data;
  }
  t.parts = std::shared_ptr<const std::vector<const std::byte*>>(owned, &owned->parts);
  return t;
}

bench::Weight BenchContext::stack(DType dtype, int64_t count, int64_t stored, int64_t rows, int64_t columns) {
  const float size = 1.0f / std::sqrt(static_cast<float>(columns));
  bench::Weight w;
  w.fp8 = dtype == DType::f8e4m3;
  w.data = partsOf(random(dtype, {stored * rows, columns}, -size, size), count, stored, rows, columns);
  if (w.fp8) {
    const int64_t blockRows = fp8Blocks(rows), blockColumns = fp8Blocks(columns);
    w.scale = partsOf(random(DType::f32, {stored * blockRows, blockColumns}, size / 40, size / 20), count, stored, blockRows, blockColumns);
  }
  return w;
}

int64_t BenchContext::randomInteger(int64_t below) { return static_cast<int64_t>(nextRandom(random_) % static_cast<uint64_t>(below)); }

std::vector<double> BenchContext::samplesOnProcessor(const OpSpec& spec, const OpArgs& arguments) {
  alignas(64) std::byte params[kMaxParamBytes];
  spec.prepare(arguments, params);
  const size_t scratchBytes = spec.threadScratch ? (spec.threadScratch(params) + 63) / 64 * 64 : 0;
  const auto scratch = allocateBuffer(scratchBytes * static_cast<size_t>(pool_.threads()), "scratch");
  const CpuContext context{pool_, scratch->data(), scratchBytes};
  std::vector<double> samples;
  const auto begin = Clock::now();
  while (samples.size() < 3 || (secondsSince(begin) < 0.2 && samples.size() < 10000)) {
    const auto start = Clock::now();
    spec.cpu[static_cast<int>(isa_)](params, context);
    samples.push_back(secondsSince(start));
  }
  return samples;
}

void BenchContext::time(const BenchCase& what, const char* op, const OpArgs& given) {
  const OpSpec* spec = findOp(op);
  require(spec, std::string("no operation named ") + op);
  OpArgs arguments = given;
  arguments.onGpu = onGpu();
  checkArity(*spec, arguments);
  std::vector<double> samples;
#ifdef LONGCAT_HAS_CUDA
  if (onGpu()) samples = timeOnGpu(*spec, arguments, what.bytes);
#endif
  if (!onGpu()) samples = samplesOnProcessor(*spec, arguments);
  std::sort(samples.begin(), samples.end());
  BenchRow row;
  row.op = op;
  row.what = what;
  row.activations = shortName(activation());
  const double seconds = samples[samples.size() / 2];
  row.microseconds = seconds * 1e6;
  const bool tensorCores = isa_ == Isa::cudaBf16 && !what.weights.empty();
  const double byMemory = what.bytes / ceilings_.bytesPerSecond, byFlops = what.flops / (tensorCores ? ceilings_.mmaFlops : ceilings_.fmaFlops);
  row.bound = byMemory >= byFlops ? "memory" : tensorCores ? "mma" : "fma";
  row.share = std::max(byMemory, byFlops) / seconds;
  report_(row);
}

void registerBench(const char* op, void (*body)(BenchContext&)) { benches().push_back({op, body}); }

namespace {

std::string lineOf(const BenchRow& r) {
  char text[256];
  const double us = r.microseconds;
  std::snprintf(text, sizeof text, "%-14s %-5s %-34s %6lld tokens  %-4s x %-4s %11.2f us %9.3f TFLOP/s %9.1f GB/s %6.1f %% of %s", r.op.c_str(), r.what.model->name,
                r.what.shape.c_str(), static_cast<long long>(r.what.tokens), r.activations.c_str(), r.what.weights.empty() ? "-" : r.what.weights.c_str(), us,
                r.what.flops / us / 1e6, r.what.bytes / us / 1e3, 100 * r.share, r.bound);
  return text;
}

/// Letters, digits and punctuation only: names of ours and of cards.
std::string quoted(const std::string& text) {
  std::string s = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') s += '\\';
    s += c;
  }
  return s + "\"";
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

std::string jsonOf(const BenchRow& r) {
  return "{\"op\": " + quoted(r.op) + ", \"model\": " + quoted(r.what.model->name) + ", \"shape\": " + quoted(r.what.shape) + ", \"tokens\": " +
         std::to_string(r.what.tokens) + ", \"activations\": " + quoted(r.activations) + ", \"weights\": " +
         (r.what.weights.empty() ? "null" : quoted(r.what.weights)) + ", \"microseconds\": " + number(r.microseconds) + ", \"teraflops\": " +
         number(r.what.flops / r.microseconds / 1e6) + ", \"gigabytesPerSecond\": " + number(r.what.bytes / r.microseconds / 1e3) + ", \"bytes\": " +
         number(r.what.bytes) + ", \"flops\": " + number(r.what.flops) + ", \"share\": " + number(r.share) + ", \"bound\": " + quoted(r.bound) + "}";
}

struct Machine {
  std::string name, capability;  // of a GPU "9.0"; of a processor the instruction set
  BenchCeilings ceilings;
};

Machine machineOf(const BenchOptions& options) {
#ifdef LONGCAT_HAS_CUDA
  if (isGpu(options.isas[0])) {
    Machine m;
    m.ceilings = measureOnGpu(&m.name, &m.capability);
    return m;
  }
#endif
  return {"processor, " + std::to_string(options.threads) + " threads", nameOf(options.isas[0]), processorCeilings(options.threads, options.isas[0])};
}

void printMachine(const Machine& m) {
  const BenchCeilings& c = m.ceilings;
  std::printf("%s (%s); ceilings measured here: memory %.1f GB/s", m.name.c_str(), m.capability.c_str(), c.bytesPerSecond / 1e9);
  if (c.mmaFlops > 0) std::printf(", bf16 tensor cores %.1f TFLOP/s", c.mmaFlops / 1e12);
  std::printf(", f32 multiply-add %.3f TFLOP/s\n", c.fmaFlops / 1e12);
  if (c.mmaFlops == 0) std::printf("what fits the processor's caches stays there from run to run: more than 100 %% of memory\n");
  std::fflush(stdout);
}

void printJson(const Machine& m, const std::vector<BenchRow>& rows) {
  const BenchCeilings& c = m.ceilings;
  std::printf("{\"device\": %s, \"capability\": %s, \"ceilings\": {\"gigabytesPerSecond\": %s, \"mmaTeraflops\": %s, \"fmaTeraflops\": %s}, \"rows\": [",
              quoted(m.name).c_str(), quoted(m.capability).c_str(), number(c.bytesPerSecond / 1e9).c_str(),
              c.mmaFlops > 0 ? number(c.mmaFlops / 1e12).c_str() : "null", number(c.fmaFlops / 1e12).c_str());
  for (size_t i = 0; i < rows.size(); ++i) std::printf("%s\n  %s", i ? "," : "", jsonOf(rows[i]).c_str());
  std::printf("\n]}\n");
}

}  // namespace

int runBenches(const BenchOptions& options) {
  std::vector<Registered> all = benches(), chosen;
  std::stable_sort(all.begin(), all.end(), [](const Registered& a, const Registered& b) { return a.op < b.op; });
  for (const Registered& bench : all) {
    if (options.op.empty() || bench.op == options.op) chosen.push_back(bench);
  }
  if (chosen.empty()) {
    std::string names;
    for (const Registered& bench : all) names += (names.empty() ? "" : ", ") + bench.op;
    throw std::invalid_argument("no benchmark of \"" + options.op + "\"; there are " + names);
  }
  std::ofstream svg;
  if (!options.svg.empty()) {
    svg.open(options.svg);
    require(svg.good(), "cannot write " + options.svg);
  }
  const Machine machine = machineOf(options);
  if (!options.json) printMachine(machine);
  std::vector<BenchRow> rows;
  std::string nothing;  // why, of each operation without a row
  int failures = 0;
  for (const Registered& bench : chosen) {
    for (Isa isa : options.isas) {
      const auto without = [&](const std::string& why) { nothing += (nothing.empty() ? "" : "; ") + bench.op + " (" + nameOf(isa) + "): " + why; };
      if (isGpu(isa) && !findOp(bench.op.c_str())->cuda) {
        without("it has no body for GPUs");
        continue;
      }
      const size_t before = rows.size();
      BenchContext context(options, isa, machine.ceilings, [&](const BenchRow& row) {
        rows.push_back(row);
        if (!options.json) std::printf("%s\n", lineOf(row).c_str()), std::fflush(stdout);
      });
      try {
        bench.body(context);
        if (rows.size() == before) without(context.whyNothing());
      } catch (const std::exception& error) {
        ++failures;
        std::fprintf(stderr, "%s (%s): %s\n", bench.op.c_str(), nameOf(isa), error.what());
      }
    }
  }
  if (rows.empty() && failures == 0) throw std::invalid_argument("nothing to measure: " + nothing);
  if (options.json) printJson(machine, rows);
  if (svg.is_open()) svg << rooflineSvg(machine.name + " (" + machine.capability + ")", machine.ceilings, rows);
  return failures > 0 ? 1 : 0;
}

}  // namespace longcat
