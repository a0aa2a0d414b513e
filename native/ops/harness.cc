// The test harness of the operations (harness.h).
#include "ops/harness.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <map>

#include "ops/harness_cuda.h"
#include "runtime/float_formats.h"
#include "runtime/memory.h"
#include "runtime/processor.h"

namespace longcat {
namespace {

struct Registered {
  std::string op;
  void (*body)(TestContext&);
};
std::vector<Registered>& tests() {
  static std::vector<Registered> list;
  return list;
}

/// Nearest e4m3 value, ties to the even code; |value| ≤ 448.
uint8_t e4m3OfFloat(float value) {
  const float size = std::abs(value);
  uint8_t low = 0;
  while (low < 0x7e && floatOfE4m3(static_cast<uint8_t>(low + 1)) <= size) ++low;
  uint8_t best = low;
  if (low < 0x7e) {
    const float down = size - floatOfE4m3(low), up = floatOfE4m3(static_cast<uint8_t>(low + 1)) - size;
    if (up < down || (up == down && (low & 1))) best = static_cast<uint8_t>(low + 1);
  }
  return static_cast<uint8_t>(best | (std::signbit(value) ? 0x80 : 0));
}

void poisonOutputs(const OpSpec& spec, const OpArgs& arguments) {
  for (int i = 0; i < arguments.numTensors; ++i) {
    if (arguments.tensor[i] && tensorArg(spec, i).use == Use::out && !readsInto(spec, arguments, i)) fillBytes(*arguments.tensor[i], 0xff);
  }
}

}  // namespace

void runOn(ThreadPool& pool, Isa isa, const char* op, const OpArgs& arguments) {
  const OpSpec* spec = findOp(op);
  require(spec, std::string("no operation named ") + op);
  checkArity(*spec, arguments);
  if (isGpu(isa)) {
#ifdef LONGCAT_HAS_CUDA
    poisonOutputs(*spec, arguments);
    return runOnGpu(*spec, arguments, isa == Isa::cudaBf16);
#else
    throw Error("INTERNAL", "this build has no CUDA");
#endif
  }
  alignas(64) static thread_local std::byte params[kMaxParamBytes];
  spec->prepare(arguments, params);
  const size_t bytes = spec->threadScratch ? (spec->threadScratch(params) + 63) / 64 * 64 : 0;
  const auto scratch = allocateBuffer(bytes * static_cast<size_t>(pool.threads()), "scratch");
  std::memset(scratch->data(), 0xff, scratch->bytes());
  poisonOutputs(*spec, arguments);
  spec->cpu[static_cast<int>(isa)](params, CpuContext{pool, scratch->data(), bytes});
}

OpArgs args(std::initializer_list<const Tensor*> tensors, std::initializer_list<double> scalars) {
  OpArgs result;
  require(tensors.size() <= kMaxTensors && scalars.size() <= kMaxScalars, "too many arguments");
  for (const Tensor* tensor : tensors) result.tensor[result.numTensors++] = tensor;
  for (double scalar : scalars) result.scalar[result.numScalars++] = scalar;
  return result;
}

OpContext::OpContext(int threads, std::vector<Isa> isas, uint64_t seed) : pool_(threads), isas_(std::move(isas)), random_(seed) {}

std::vector<Isa> OpContext::isasOf(const char* op) const {
  const OpSpec* spec = findOp(op);
  require(spec, std::string("no operation named ") + op);
  std::vector<Isa> able;
  std::copy_if(isas_.begin(), isas_.end(), std::back_inserter(able), [&](Isa isa) { return !isGpu(isa) || spec->cuda; });
  return able;
}

Tensor OpContext::empty(DType dtype, Shape shape) { return allocateTensor(dtype, shape.begin(), static_cast<int>(shape.size())); }

namespace {
template <class T>
void put(const Tensor& tensor, const std::vector<T>& values) {
  if (values.empty()) return;
  require(static_cast<int64_t>(values.size()) == tensor.elements(),
          std::to_string(values.size()) + " values for a tensor of " + std::to_string(tensor.elements()));
  std::memcpy(tensor.data, values.data(), values.size() * sizeof(T));
}
}  // namespace

Tensor OpContext::f32(Shape shape, const std::vector<float>& values) {
  const Tensor tensor = empty(DType::f32, shape);
  put(tensor, values);
  return tensor;
}

Tensor OpContext::bf16(Shape shape, const std::vector<float>& values) {
  const Tensor tensor = empty(DType::bf16, shape);
  std::vector<uint16_t> bits(values.size());
  std::transform(values.begin(), values.end(), bits.begin(), bf16OfFloat);
  put(tensor, bits);
  return tensor;
}

Tensor OpContext::i32(Shape shape, const std::vector<int32_t>& values) {
  const Tensor tensor = empty(DType::i32, shape);
  put(tensor, values);
  return tensor;
}

Tensor OpContext::f64(Shape shape, const std::vector<double>& values) {
  const Tensor tensor = empty(DType::f64, shape);
  put(tensor, values);
  return tensor;
}

Fp8Weight OpContext::fp8(int64_t rows, int64_t columns, const std::vector<float>& values) {
  require(static_cast<int64_t>(values.size()) == rows * columns, "values do not fill the matrix");
  const int64_t blockRows = fp8Blocks(rows), blockColumns = fp8Blocks(columns);
  Fp8Weight weight{empty(DType::f8e4m3, {rows, columns}), empty(DType::f32, {blockRows, blockColumns})};
  auto* scale = reinterpret_cast<float*>(weight.scale.data);
  auto* data = reinterpret_cast<uint8_t*>(weight.data.data);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      float& largest = scale[r / kFp8Block * blockColumns + c / kFp8Block];
      largest = std::max({largest, std::abs(values[r * columns + c]), 1e-12f});
    }
  }
  for (int64_t b = 0; b < blockRows * blockColumns; ++b) scale[b] /= 448.0f;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      const float scaled = values[r * columns + c] / scale[r / kFp8Block * blockColumns + c / kFp8Block];
      data[r * columns + c] = e4m3OfFloat(std::clamp(scaled, -448.0f, 448.0f));
    }
  }
  return weight;
}

Tensor OpContext::stack(const std::vector<Tensor>& tensors) {
  require(!tensors.empty() && tensors[0].rank < kMaxRank, "nothing to stack");
  Tensor result;
  result.dtype = tensors[0].dtype;
  result.rank = tensors[0].rank + 1;
  result.shape[0] = static_cast<int64_t>(tensors.size());
  for (int i = 0; i < tensors[0].rank; ++i) result.shape[i + 1] = tensors[0].shape[i];
  result.rowStride = tensors[0].elements();
  struct Owned {
    std::vector<Tensor> tensors;
    std::vector<const std::byte*> parts;
  };
  auto owned = std::make_shared<Owned>(Owned{tensors, {}});
  for (const Tensor& tensor : tensors) owned->parts.push_back(tensor.data);
  result.parts = std::shared_ptr<const std::vector<const std::byte*>>(owned, &owned->parts);
  return result;
}

Tensor OpContext::columns(const Tensor& tensor, int64_t first, int64_t count) {
  require(tensor.rank == 2 && first >= 0 && first + count <= tensor.shape[1], "columns outside of the matrix");
  Tensor view = tensor;
  view.shape[1] = count;
  view.data = tensor.data + static_cast<size_t>(first) * bytesOf(tensor.dtype);
  return view;
}

uint64_t OpContext::next() {  // splitmix64
  uint64_t z = (random_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

std::vector<float> OpContext::randomFloats(int64_t count, float low, float high) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = low + (high - low) * static_cast<float>(next() >> 40) / 16777216.0f;
  return values;
}

int64_t OpContext::randomInteger(int64_t below) { return static_cast<int64_t>(next() % static_cast<uint64_t>(below)); }

namespace {
int64_t product(Shape shape) {
  int64_t n = 1;
  for (int64_t size : shape) n *= size;
  return n;
}
}  // namespace

Tensor OpContext::randomF32(Shape shape, float low, float high) { return f32(shape, randomFloats(product(shape), low, high)); }
Tensor OpContext::randomBf16(Shape shape, float low, float high) { return bf16(shape, randomFloats(product(shape), low, high)); }
Fp8Weight OpContext::randomFp8(int64_t rows, int64_t columns, float low, float high) {
  return fp8(rows, columns, randomFloats(rows * columns, low, high));
}

namespace {

double numberAt(const std::byte* data, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::f32: return reinterpret_cast<const float*>(data)[i];
    case DType::bf16: return floatOfBf16(reinterpret_cast<const uint16_t*>(data)[i]);
    case DType::f8e4m3: return floatOfE4m3(reinterpret_cast<const uint8_t*>(data)[i]);
    case DType::i32: return reinterpret_cast<const int32_t*>(data)[i];
    case DType::i64: return static_cast<double>(reinterpret_cast<const int64_t*>(data)[i]);
    case DType::f64: return reinterpret_cast<const double*>(data)[i];
    case DType::u8: return reinterpret_cast<const uint8_t*>(data)[i];
  }
  return NAN;
}

/// visit(index counting row by row, row, column, value)
template <class Visit>
void eachNumber(const Tensor& tensor, const Visit& visit) {
  const int64_t rows = tensor.rank ? tensor.shape[0] : 1, width = rows ? tensor.elements() / rows : 0;
  const int64_t stride = tensor.rank < 2 ? 1 : tensor.rowStride;
  for (int64_t r = 0; r < rows; ++r) {
    const std::byte* part = tensor.parts ? (*tensor.parts)[static_cast<size_t>(r)] : tensor.data;
    for (int64_t c = 0; c < width; ++c) {
      visit(r * width + c, r, c, numberAt(part, tensor.dtype, (tensor.parts ? 0 : r * stride) + c));
    }
  }
}

}  // namespace

std::vector<float> OpContext::floats(const Tensor& tensor, const Tensor* scale) {
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  eachNumber(tensor, [&](int64_t i, int64_t r, int64_t c, double value) {
    const float factor = scale ? reinterpret_cast<const float*>(scale->data)[r / kFp8Block * scale->shape[1] + c / kFp8Block] : 1.0f;
    values[static_cast<size_t>(i)] = static_cast<float>(value) * factor;
  });
  return values;
}

std::vector<int32_t> OpContext::integers(const Tensor& tensor) {
  std::vector<int32_t> values(static_cast<size_t>(tensor.elements()));
  eachNumber(tensor, [&](int64_t i, int64_t, int64_t, double value) { values[static_cast<size_t>(i)] = static_cast<int32_t>(value); });
  return values;
}

void OpContext::run(Isa isa, const char* op, const OpArgs& arguments) {
  lastIsa_ = isa;
  runOn(pool_, isa, op, arguments);
}

void OpContext::run(Isa isa, const char* op, const OpArgs& arguments, int threads) {
  if (isGpu(isa)) return run(isa, op, arguments);
  ThreadPool other(threads);
  lastIsa_ = isa;
  runOn(other, isa, op, arguments);
}

std::vector<float> OpContext::asActivations(Isa isa, std::vector<float> values) {
  if (!exact(isa)) {
    for (float& value : values) value = floatOfBf16(bf16OfFloat(value));
  }
  return values;
}

namespace {
bool fp8ActivationsOn([[maybe_unused]] Isa isa) {
#ifdef LONGCAT_HAS_CUDA
  return isGpu(isa) && gpuOptions().fp8Activations;
#else
  return false;
#endif
}

bool batchInvariantOn([[maybe_unused]] Isa isa) {
#ifdef LONGCAT_HAS_CUDA
  return !isGpu(isa) || gpuOptions().batchInvariant;
#else
  return true;
#endif
}

/// Whether the GPU is gone (said on the terminal then): nothing that follows could run.
bool lostGpu([[maybe_unused]] const std::vector<Isa>& isas) {
#ifdef LONGCAT_HAS_CUDA
  std::string why;
  if (!isas.empty() && isGpu(isas[0]) && gpuLost(&why)) {
    std::printf("the GPU is lost (%s): the other tests do not run\n", why.c_str());
    return true;
  }
#endif
  return false;
}
}  // namespace

void TestContext::expect(bool ok, const std::string& what) {
  ++checks_;
  if (ok) return;
  ++failures_;
  std::printf("    FAILED %s\n", what.c_str());
}

double rowDistance(const float* got, const float* want, int64_t width, double tolerance) {
  double difference = 0, length = 0;
  for (int64_t i = 0; i < width; ++i) {
    length += static_cast<double>(want[i]) * want[i];
    if (got[i] == want[i]) continue;  // infinities too
    difference += (static_cast<double>(got[i]) - want[i]) * (static_cast<double>(got[i]) - want[i]);
  }
  const double beyond = std::sqrt(difference) - tolerance * std::sqrt(static_cast<double>(width));
  return beyond <= 0 ? 0 : beyond / std::sqrt(length);
}

void TestContext::expectRowsClose(const std::string& what, const float* got, const float* want, int64_t count, int64_t width, double tolerance) {
  if (exact(lastIsa_) || fp8ActivationsOn(lastIsa_) || width == 0) return;
  int64_t wrong = 0, first = -1;
  double worst = 0;
  for (int64_t at = 0; at + width <= count; at += width) {
    const double distance = rowDistance(got + at, want + at, width, tolerance);
    if (!(distance <= worst)) worst = distance;
    if (distance <= rowTolerance(width)) continue;
    if (wrong++ == 0) first = at / width;
  }
  if (!(worst <= worstRow_)) worstRow_ = worst;
  if (wrong == 0) return expect(true, what);
  char text[160];
  std::snprintf(text, sizeof text, ": %lld of %lld rows of %lld numbers are off by up to %.3g of their length (tolerance %.3g), row %lld first", static_cast<long long>(wrong),
                static_cast<long long>(count / width), static_cast<long long>(width), worst, rowTolerance(width), static_cast<long long>(first));
  expect(false, what + text);
}

void TestContext::expectClose(const std::string& what, const float* got, const float* want, int64_t count, double tolerance) {
  expectRowsClose(what, got, want, count, count, tolerance);
  if (!exact(lastIsa_)) tolerance = std::max(tolerance, kBf16Tolerance);
  if (fp8ActivationsOn(lastIsa_)) tolerance = std::max(tolerance, kFp8Tolerance);
  double& worstOfIsa = worst_[static_cast<int>(lastIsa_)];
  int64_t wrong = 0, first = -1;
  double worst = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double distance = std::abs(static_cast<double>(got[i]) - want[i]) / std::max(1.0, std::abs(static_cast<double>(want[i])));
    if (got[i] == want[i]) continue;
    if (!(distance <= worstOfIsa)) worstOfIsa = distance;
    if (distance <= tolerance) continue;
    if (wrong++ == 0) first = i;
    if (!(distance <= worst)) worst = distance;
  }
  if (wrong == 0) return expect(true, what);
  char text[256];
  std::snprintf(text, sizeof text, ": %lld of %lld differ by up to %.3g (tolerance %.3g); [%lld] is %.9g, wanted %.9g",
                static_cast<long long>(wrong), static_cast<long long>(count), worst, tolerance, static_cast<long long>(first),
                static_cast<double>(got[first]), static_cast<double>(want[first]));
  expect(false, what + text);
}

void TestContext::expectClose(const std::string& what, const std::vector<float>& got, const std::vector<float>& want, double tolerance) {
  if (got.size() != want.size()) return expect(false, what + ": " + std::to_string(got.size()) + " numbers, wanted " + std::to_string(want.size()));
  expectClose(what, got.data(), want.data(), static_cast<int64_t>(got.size()), tolerance);
}

void TestContext::expectCloseRows(const std::string& what, const std::vector<float>& got, const std::vector<float>& want, int64_t width, double tolerance) {
  if (got.size() == want.size()) expectRowsClose(what, got.data(), want.data(), static_cast<int64_t>(got.size()), width, tolerance);
  expectClose(what, got, want, tolerance);
}

void TestContext::expectSameBits(const std::string& what, const void* got, const void* want, size_t bytes) {
  const auto* a = static_cast<const uint8_t*>(got);
  const auto* b = static_cast<const uint8_t*>(want);
  const size_t at = static_cast<size_t>(std::mismatch(a, a + bytes, b).first - a);
  expect(at == bytes, what + ": bits differ from byte " + std::to_string(at) + " of " + std::to_string(bytes));
}

void TestContext::expectSameBits(const std::string& what, const std::vector<float>& got, const std::vector<float>& want) {
  if (got.size() != want.size()) return expect(false, what + ": sizes differ");
  expectSameBits(what, got.data(), want.data(), got.size() * sizeof(float));
}

void TestContext::expectSameInAnyBatch(const std::string& what, const std::vector<float>& got, const std::vector<float>& want) {
  if (batchInvariantOn(lastIsa_)) return expectSameBits(what, got, want);
  expectClose(what, got, want, 3e-5);
}

void TestContext::expectSame(const std::string& what, const std::vector<int32_t>& got, const std::vector<int32_t>& want) {
  const auto list = [](const std::vector<int32_t>& values) {
    std::string text = "[";
    for (size_t i = 0; i < values.size() && i < 32; ++i) text += (i ? ", " : "") + std::to_string(values[i]);
    return text + (values.size() > 32 ? ", …]" : "]");
  };
  expect(got == want, got == want ? what : what + ": " + list(got) + ", wanted " + list(want));
}

void TestContext::expectThrows(const std::string& what, const std::string& code, const std::string& words, const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return expect(error.code() == code && std::string(error.what()).find(words) != std::string::npos,
                  what + ": threw " + error.code() + ": " + error.what());
  }
  expect(false, what + ": did not throw");
}

void registerTest(const char* op, void (*body)(TestContext&)) { tests().push_back({op, body}); }

void listTests() {
  std::map<std::string, int> numbers;
  for (const auto& test : tests()) ++numbers[test.op];
  for (const auto& [op, number] : numbers) std::printf("%s %d\n", op.c_str(), number);
}

int runTests(const TestOptions& options, int threads, const std::vector<Isa>& isas) {
  int checks = 0, failures = 0, bodies = 0;
  std::map<std::string, int> numbers;
  for (const auto& test : tests()) {
    if (!options.op.empty() && test.op != options.op) continue;
    if (const int number = ++numbers[test.op]; options.only && options.only != number) continue;
    TestContext context(threads, isas, 1, options.brief);
    std::printf("%s\n", test.op.c_str());
    std::fflush(stdout);
    try {
      test.body(context);
    } catch (const std::exception& error) {
      context.expect(false, std::string("threw ") + error.what());
    }
    for (Isa isa : isas) {
      if (isGpu(isa) && context.worst(isa) != 0) std::printf("    %-9s worst error %.2g\n", nameOf(isa), context.worst(isa));
    }
    if (context.worstRow() != 0) std::printf("    %-9s worst row %.2g of its length\n", nameOf(Isa::cudaBf16), context.worstRow());
    ++bodies;
    checks += context.checks();
    failures += context.failures();
    if (context.failures() > 0 && lostGpu(isas)) break;
  }
  std::printf("%d tests, %d checks, %d failed, %d threads\n", bodies, checks, failures, threads);
  if (bodies == 0) std::printf("no such test of \"%s\"\n", options.op.c_str());
  return failures > 0 || bodies == 0 ? 1 : 0;
}

}  // namespace longcat
