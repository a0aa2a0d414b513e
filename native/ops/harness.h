// Tests of operations, for native/ops/<op>/test.cc. They run in the `kernels` program, on the processor or on a GPU. (Benchmarks:
// harness_bench.h.)
//
//   LONGCAT_TEST(rms_norm) {
//     Tensor x = t.randomF32({3, 64}), w = t.f32({1, 64}, ones), out = t.f32({3, 64}), rows = t.i32({1}, {3});
//     for (Isa isa : t.isas()) {
//       t.run(isa, "rms_norm", args({&x, nullptr, nullptr, &w, nullptr, &out, &rows}, {1e-5}));
//       t.expectClose("out", t.floats(out), wanted, 1e-5);
//     }
//   }
#pragma once

#include <cmath>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "ops/op.h"
#include "ops/registry.h"
#include "runtime/error.h"
#include "runtime/tensor.h"

namespace longcat {

using Shape = std::initializer_list<int64_t>;

// Inputs rounded to 8 bits, and an operation's intermediate results too: 2⁻⁸ each, some of them in a row.
constexpr double kBf16Tolerance = 2e-2;
// The same errors, of either sign, over a row of 64 numbers and more together: 3e-3 to 6e-3 of its length, 9e-3
// where they are of one attention head, which share its weights' errors (fewer even out less: rowTolerance()). Numbers far
// below 1, as averages over many keys are, are held to this one: a key lost or seen twice among hundreds changes each by less than kBf16Tolerance, but a
// row by more than this. Among thousands it is lost in the rounding.
constexpr double kBf16RowTolerance = 1.2e-2;
inline double rowTolerance(int64_t width) { return kBf16RowTolerance * std::sqrt(64.0 / static_cast<double>(width < 64 ? width : 64)); }
// Inputs rounded to 4 bits, in sums of terms of either sign, two products in a row in an FFN: 0.114 was the worst of 55,000 numbers seen.
constexpr double kFp8Tolerance = 1.5e-1;

/// Arguments in the order of params.h; null: absent.
OpArgs args(std::initializer_list<const Tensor*> tensors, std::initializer_list<double> scalars = {});

/// Stored numbers of a weight and, for FP8, its block scales.
struct Fp8Weight {
  Tensor data, scale;
};

/// What OpContext::run does, on threads of the caller's own.
void runOn(ThreadPool& pool, Isa isa, const char* op, const OpArgs& arguments);

/// Memory, numbers and threads that tests use.
class OpContext {
 public:
  OpContext(int threads, std::vector<Isa> isas, uint64_t seed);

  ThreadPool& pool() { return pool_; }
  /// What this processor can run (or what --isa asked for); on a GPU Isa::cuda and Isa::cudaBf16.
  const std::vector<Isa>& isas() const { return isas_; }
  /// Those of them on which `op` has a body: backward operations are the processor's alone.
  std::vector<Isa> isasOf(const char* op) const;

  // Tensors over fresh memory, dense, zero unless values are given (then exactly as many as the shape has).
  Tensor empty(DType dtype, Shape shape);
  Tensor f32(Shape shape, const std::vector<float>& values = {});
  Tensor bf16(Shape shape, const std::vector<float>& values);  // rounded to nearest, ties to even
  Tensor i32(Shape shape, const std::vector<int32_t>& values = {});
  Tensor f64(Shape shape, const std::vector<double>& values = {});
  /// [rows, columns] quantised in blocks of kFp8Block × kFp8Block (docs/numerics.md, 7: scale = max(max|w|, 1e-12) / 448).
  Fp8Weight fp8(int64_t rows, int64_t columns, const std::vector<float>& values);
  /// A stack of matrices of one shape, as the experts' are.
  Tensor stack(const std::vector<Tensor>& tensors);
  /// Columns [first, first + count) of each row.
  Tensor columns(const Tensor& tensor, int64_t first, int64_t count);

  // The same numbers on every machine and in every run.
  std::vector<float> randomFloats(int64_t count, float low = -1, float high = 1);
  int64_t randomInteger(int64_t below);
  Tensor randomF32(Shape shape, float low = -1, float high = 1);
  Tensor randomBf16(Shape shape, float low = -1, float high = 1);
  Fp8Weight randomFp8(int64_t rows, int64_t columns, float low = -1, float high = 1);

  // The numbers of a tensor, row by row (column views too). FP8 needs its scale to be what it stands for.
  std::vector<float> floats(const Tensor& tensor, const Tensor* scale = nullptr);
  std::vector<int32_t> integers(const Tensor& tensor);

  /// Checks, prepares, fills every output with 0xFF bytes (outputs that share memory with an input excepted) and runs. On a GPU the
  /// arguments' memory is mirrored; with Isa::cudaBf16 the activations are bfloat16 there and float32 here.
  void run(Isa isa, const char* op, const OpArgs& arguments);
  /// The same on another number of threads (which a GPU ignores).
  void run(Isa isa, const char* op, const OpArgs& arguments, int threads);

  /// Whether `isa` computes with the numbers as they are here; with bfloat16 activations it does not.
  static bool exact(Isa isa) { return isa != Isa::cudaBf16; }
  /// What activations of these values are on `isa`.
  static std::vector<float> asActivations(Isa isa, std::vector<float> values);

 protected:
  uint64_t next();
  ThreadPool pool_;
  std::vector<Isa> isas_;
  uint64_t random_;
  Isa lastIsa_ = Isa::plain;  // of the last run
};

class TestContext : public OpContext {
 public:
  TestContext(int threads, std::vector<Isa> isas, uint64_t seed, bool brief) : OpContext(threads, std::move(isas), seed), brief_(brief) {}

  /// Whether a test should take the same paths with fewer repetitions (--brief).
  bool brief() const { return brief_; }
  /// Cases of a test: `few` where it is to be brief.
  template <class T>
  std::vector<T> fewOrAll(std::initializer_list<T> few, std::initializer_list<T> all) const {
    return brief_ ? few : all;
  }

  // Each failing expectation is printed (the first few differences) and makes the program's exit code 1.
  void expect(bool ok, const std::string& what);
  /// |got - want| ≤ tolerance · max(1, |want|) everywhere; NaN never fits. After a run with bfloat16 activations the tolerance is at least
  /// kBf16Tolerance, after one with FP8 activations at least kFp8Tolerance; with bfloat16 activations alone all numbers together must also be
  /// within rowTolerance() (and `tolerance` each).
  void expectClose(const std::string& what, const std::vector<float>& got, const std::vector<float>& want, double tolerance);
  void expectClose(const std::string& what, const float* got, const float* want, int64_t count, double tolerance);
  /// expectClose, and within rowTolerance() each row of `width` numbers for itself.
  void expectCloseRows(const std::string& what, const std::vector<float>& got, const std::vector<float>& want, int64_t width, double tolerance);
  void expectSameBits(const std::string& what, const std::vector<float>& got, const std::vector<float>& want);
  void expectSameBits(const std::string& what, const void* got, const void* want, size_t bytes);
  /// Of one row in different batches: the same bits, or with --no-batch-invariant what is close.
  void expectSameInAnyBatch(const std::string& what, const std::vector<float>& got, const std::vector<float>& want);
  void expectSame(const std::string& what, const std::vector<int32_t>& got, const std::vector<int32_t>& want);
  /// `f` throws a longcat::Error of that code whose message contains `words`.
  void expectThrows(const std::string& what, const std::string& code, const std::string& words, const std::function<void()>& f);

  int checks() const { return checks_; }
  int failures() const { return failures_; }
  /// The largest |got - want| / max(1, |want|) that expectClose has seen after runs on `isa`.
  double worst(Isa isa) const { return worst_[static_cast<int>(isa)]; }
  /// The largest rowDistance() that they have seen after runs with bfloat16 activations.
  double worstRow() const { return worstRow_; }

 private:
  void expectRowsClose(const std::string& what, const float* got, const float* want, int64_t count, int64_t width, double tolerance);

  bool brief_;
  int checks_ = 0, failures_ = 0;
  double worst_[5] = {};
  double worstRow_ = 0;
};

/// ‖got − want‖ ÷ ‖want‖ of one row, with √width · `tolerance` of the difference for nothing.
double rowDistance(const float* got, const float* want, int64_t width, double tolerance = 0);

void registerTest(const char* op, void (*body)(TestContext&));

#define LONGCAT_JOIN2(a, b) a##b
#define LONGCAT_JOIN(a, b) LONGCAT_JOIN2(a, b)
#define LONGCAT_REGISTER(op, kind, Context, name)                                                            \
  static void LONGCAT_JOIN(kind, __LINE__)(Context&);                                                        \
  static const bool LONGCAT_JOIN(kind##Registered, __LINE__) =                                               \
      (::longcat::register##kind(#op, LONGCAT_JOIN(kind, __LINE__)), true);                                  \
  static void LONGCAT_JOIN(kind, __LINE__)([[maybe_unused]] Context& name)

/// LONGCAT_TEST(op) { …t is the TestContext… }; any number in a file.
#define LONGCAT_TEST(op) LONGCAT_REGISTER(op, Test, ::longcat::TestContext, t)

/// Which tests, and how thoroughly. `op` "": of all operations. `only`: the n-th of the operation's, from 1; 0: all.
struct TestOptions {
  std::string op;
  int only = 0;
  bool brief = false;
};

/// What `kernels test` does; an exit code.
int runTests(const TestOptions& options, int threads, const std::vector<Isa>& isas);
/// Each operation and the number of its tests, a line each.
void listTests();

}  // namespace longcat
