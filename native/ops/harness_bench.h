// Benchmarks of operations, for native/ops/<op>/bench.cc. They run in the `kernels` program, on the processor or on a GPU.
//
//   LONGCAT_BENCH(rms_norm) {
//     for (const ModelShape* m : b.models()) {
//       const Tensor weight = b.random(DType::bf16, {1, m->hidden});
//       for (int64_t T : b.tokens()) {
//         …
//         b.time({m, "6144", T, "", bytesMoved, flops}, "rms_norm", arguments);
//       }
//     }
//   }
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ops/harness.h"

namespace longcat {

/// The sizes of a checkpoint that operations see.
struct ModelShape {
  const char* name;
  int64_t hidden, ffn, expertFfn, experts, zeroExperts, topK;
  int64_t heads, qRank, kvRank, nope, rope, vDim, vocabulary;
  int64_t ngramNeighbors, ngramSplits;  // 0: no n-gram tables

  int64_t head() const { return nope + rope; }
  int64_t latent() const { return kvRank + rope; }
};

/// LongCat-Flash, LongCat-Flash-Lite, the bundled mini.
const std::vector<ModelShape>& modelShapes();

struct BenchOptions {
  std::string op;                    // "": all
  std::string shape = "all";         // a model's name
  std::vector<int64_t> tokens;       // empty: the defaults
  bool json = false;
  std::string svg;                   // a file for the roofline; "": none
  int threads = 1;
  std::vector<Isa> isas;
};

/// What the machine can do at most, measured in the same run.
struct BenchCeilings {
  double bytesPerSecond = 0;   // read; on a GPU read, or read and written by a copy
  double mmaFlops = 0;         // tensor cores, bfloat16; 0 on a processor
  double fmaFlops = 0;         // float32
};

struct BenchCase {
  const ModelShape* model;
  std::string shape;      // what is not said by model, tokens and dtypes
  int64_t tokens;
  std::string weights;    // their dtype; "" where there is no product with weights
  double bytes, flops;    // of one run, at least
};

struct BenchRow {
  std::string op;
  BenchCase what;
  std::string activations;
  double microseconds = 0;     // median
  double share = 0;            // least time by the ceilings ÷ time
  const char* bound = "";      // the ceiling that gives the least time: memory, mma, fma
};

namespace bench {

struct Weight {
  Tensor data, scale;
  bool fp8 = false;
  const Tensor* scales() const { return fp8 ? &scale : nullptr; }
  double bytes() const { return static_cast<double>(data.elements()) * static_cast<double>(bytesOf(data.dtype)); }
};

}  // namespace bench

/// Tensors where the benchmark runs, and the clock.
class BenchContext {
 public:
  BenchContext(const BenchOptions& options, Isa isa, const BenchCeilings& ceilings, std::function<void(const BenchRow&)> report);

  bool onGpu() const { return isGpu(isa_); }
  DType activation() const { return isa_ == Isa::cudaBf16 ? DType::bf16 : DType::f32; }
  /// Models asked for. With float32 activations on a GPU mini alone: it is the one that is served so.
  std::vector<const ModelShape*> models() const;
  std::vector<DType> weightDtypes(const ModelShape& model) const;
  /// Rows to try: from 1 to `most`, what was asked for or the defaults of the device.
  std::vector<int64_t> tokens(int64_t most = 8192) const;
  /// Whether a case of so many operations takes too long on this device for a list of cases.
  bool tooMuch(double flops) const;
  /// Bytes that an operation's weights may take.
  double weightBudget() const { return onGpu() ? 40e9 : 0.7e9; }

  Tensor empty(DType dtype, Shape shape);  // contents undefined on a GPU, zero on the processor
  Tensor activations(Shape shape) { return empty(activation(), shape); }
  Tensor random(DType dtype, Shape shape, float low = -1, float high = 1);
  Tensor randomActivations(Shape shape) { return random(activation(), shape); }
  /// A latent cache of activations or a packed one (latent_cache.h), whose bytes are small numbers whatever they stand for; bytes of a row.
  Tensor latentCache(const ModelShape& model, bool packed, int64_t blocks, int64_t blockSize);
  double latentBytes(const ModelShape& model, bool packed) const;
  Tensor i32(Shape shape, const std::vector<int32_t>& values = {});  // zero unless values are given
  Tensor f64(Shape shape, const std::vector<double>& values);
  bench::Weight weight(DType dtype, int64_t rows, int64_t columns);
  /// A stack of `count` matrices over `stored` different ones in one memory.
  bench::Weight stack(DType dtype, int64_t count, int64_t stored, int64_t rows, int64_t columns);
  int64_t randomInteger(int64_t below);

  /// One run on the processor, for what a later one is to find in memory.
  void once(const char* op, const OpArgs& arguments) { runOn(pool_, isa_, op, arguments); }

  /// Why no case was timed, as far as models(), tokens() and tooMuch() know.
  std::string whyNothing() const;

  /// Median time of the operation. On a GPU in a captured graph of many calls, over operands that the cache does not hold (harness_cuda.h).
  void time(const BenchCase& what, const char* op, const OpArgs& arguments);

 private:
  Tensor upload(DType dtype, Shape shape, const void* values);
  Tensor partsOf(const Tensor& all, int64_t count, int64_t stored, int64_t rows, int64_t columns);
  std::vector<double> samplesOnProcessor(const OpSpec& spec, const OpArgs& arguments);

  const BenchOptions& options_;
  Isa isa_;
  BenchCeilings ceilings_;
  std::function<void(const BenchRow&)> report_;
  ThreadPool pool_;
  uint64_t random_ = 1;
  mutable int64_t mostTokens_ = 0;    // that were asked about
  mutable bool leftOut_ = false;      // a case that takes too long
};

void registerBench(const char* op, void (*body)(BenchContext&));

/// LONGCAT_BENCH(op) { …b is the BenchContext… }
#define LONGCAT_BENCH(op) LONGCAT_REGISTER(op, Bench, ::longcat::BenchContext, b)

/// What `kernels bench` does; an exit code.
int runBenches(const BenchOptions& options);

/// A roofline: operations per byte and operations per second of each row, both logarithmic, with the ceilings as lines. SVG text.
std::string rooflineSvg(const std::string& title, const BenchCeilings& ceilings, const std::vector<BenchRow>& rows);

/// "bf16", "fp8", …: as the table has room for.
const char* shortName(DType dtype);

}  // namespace longcat
