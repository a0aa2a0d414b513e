// Tests and benchmarks of the operations, without Node:
//   kernels list
//   kernels test  [op] [--only N] [--threads N] [--isa plain|avx2|avx512] [--brief]
//   kernels test  [op] --device cuda[:N] [--isa cuda|cuda-bf16] [--fp8-activations] [--no-batch-invariant] [--graph] [--no-guards] [--portable]
//   kernels bench [op] [--device cpu|cuda[:N]] [--threads N] [--isa NAME] [--shape flash|lite|mini|all] [--tokens 1,16] [--json] [--svg FILE]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "ops/harness.h"
#include "ops/harness_bench.h"
#include "ops/harness_cuda.h"
#include "runtime/processor.h"

using namespace longcat;

namespace {

const char kUsage[] =
    "usage: kernels test|bench [op] [options]\n"
    "       kernels list        the operations and how many tests each has\n"
    "  --device cpu|cuda[:N]   where the operations run (default: tests cpu, benchmarks a GPU where there is one)\n"
    "  --isa NAME              plain, avx2, avx512; on a GPU cuda (float32 activations), cuda-bf16\n"
    "  --threads N             of the processor\n"
    "tests:\n"
    "  --only N                the operation's N-th test alone\n"
    "  --brief                 the same paths with fewer repetitions, for tools under which kernels run slowly\n"
    "benchmarks:\n"
    "  --shape NAME            sizes of flash, lite, mini or all (default)\n"
    "  --tokens 1,16,…         rows to try\n"
    "  --json                  one JSON document on standard output, nothing else\n"
    "  --svg FILE              a roofline of all rows\n"
    "on a GPU:\n"
    "  --fp8-activations       inputs of products with FP8 weights are quantised\n"
    "  --no-batch-invariant    work may be cut as suits the batch: a row's bits depend on the others\n"
    "  --graph                 every call is captured and replayed\n"
    "  --no-guards             no poisoned bytes around buffers (compute-sanitizer then sees every byte beyond)\n"
    "  --portable              on compute capability 9.0 the kernels of other cards\n";

int usageError(const char* complaint) {
  std::fprintf(stderr, "usage error: %s; kernels --help says more\n", complaint);
  return 2;
}

struct Options {
  bool test = false, cuda = false, deviceGiven = false;
  std::string op, isa;
  int threads = 0;  // 0: as many as there are
  TestOptions tests;
  BenchOptions bench;
  GpuOptions gpu;
};

/// An integer from `low`; throws std::invalid_argument.
int integerOf(const std::string& flag, const std::string& value, int low) {
  char* end = nullptr;
  const long n = std::strtol(value.c_str(), &end, 10);
  if (value.empty() || *end || n < low || n > 1 << 30) throw std::invalid_argument(flag + " " + value + ": an integer from " + std::to_string(low) + " is wanted");
  return static_cast<int>(n);
}

void parseDevice(const std::string& value, Options& o) {
  o.deviceGiven = true;
  o.cuda = value == "cuda" || value.rfind("cuda:", 0) == 0;
  if (!o.cuda && value != "cpu") throw std::invalid_argument("--device " + value + ": cpu, cuda or cuda:N is wanted");
  if (o.cuda && value.size() > 4) o.gpu.device = integerOf("--device", value.substr(5), 0);
#ifndef LONGCAT_HAS_CUDA
  if (o.cuda) throw std::invalid_argument("--device " + value + ": built without CUDA (LONGCAT_CUDA=OFF, or no nvcc was found)");
#endif
}

std::vector<int64_t> parseTokens(const std::string& value) {
  std::vector<int64_t> tokens;
  for (size_t at = 0; at <= value.size();) {
    const size_t comma = std::min(value.find(',', at), value.size());
    tokens.push_back(integerOf("--tokens", value.substr(at, comma - at), 1));
    at = comma + 1;
  }
  return tokens;
}

std::string parseShape(const std::string& value) {
  std::string names = "all";
  for (const ModelShape& shape : modelShapes()) names += ", " + std::string(shape.name);
  if ((", " + names + ",").find(", " + value + ",") == std::string::npos || value.empty()) throw std::invalid_argument("--shape " + value + ": one of " + names + " is wanted");
  return value;
}

Options parse(const std::vector<std::string>& words) {
  Options o;
  if (words.empty()) throw std::invalid_argument("nothing to do");
  o.test = words[0] == "test";
  if (!o.test && words[0] != "bench") throw std::invalid_argument("unknown command \"" + words[0] + "\"");
  for (size_t i = 1; i < words.size(); ++i) {
    const std::string& word = words[i];
    const auto value = [&] { return ++i < words.size() ? words[i] : std::string(); };
    if (word == "--threads") o.threads = integerOf(word, value(), 1);
    else if (word == "--isa") o.isa = value();
    else if (word == "--device") parseDevice(value(), o);
    else if (!o.test && word == "--shape") o.bench.shape = parseShape(value());
    else if (!o.test && word == "--tokens") o.bench.tokens = parseTokens(value());
    else if (o.test && word == "--only") o.tests.only = integerOf(word, value(), 1);
    else if (o.test && word == "--brief") o.tests.brief = true;
    else if (!o.test && word == "--json") o.bench.json = true;
    else if (!o.test && word == "--svg") {
      o.bench.svg = value();
      if (o.bench.svg.empty()) throw std::invalid_argument("--svg: a file is wanted");
    }
    else if (word == "--fp8-activations") o.gpu.fp8Activations = true;
    else if (word == "--no-batch-invariant") o.gpu.batchInvariant = false;
    else if (word == "--graph") o.gpu.graph = true;
    else if (word == "--no-guards") o.gpu.guards = false;
    else if (word == "--portable") o.gpu.portable = true;
    else if (word.empty() || word[0] == '-' || !o.op.empty()) throw std::invalid_argument("unknown argument \"" + word + "\"");
    else o.op = word;
  }
#ifdef LONGCAT_HAS_CUDA
  const bool forProcessor = o.threads > 0 || (!o.isa.empty() && o.isa.rfind("cuda", 0) != 0);
  if (!o.test && !o.deviceGiven && !forProcessor) o.cuda = gpuAvailable();
#endif
  return o;
}

std::vector<Isa> isasOf(const Options& o) {
  std::vector<Isa> isas;
  if (o.cuda) isas = {Isa::cuda, Isa::cudaBf16};
  for (Isa isa : {Isa::plain, Isa::avx2, Isa::avx512}) {
    if (!o.cuda && supports(isa)) isas.push_back(isa);
  }
  if (o.isa.empty()) return o.test || o.cuda ? isas : std::vector<Isa>{bestIsa()};
  const auto found = std::find_if(isas.begin(), isas.end(), [&](Isa isa) { return o.isa == nameOf(isa); });
  if (found == isas.end()) throw std::invalid_argument("--isa " + o.isa + ": unknown, or not supported by this device");
  return {*found};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "--help") {
    std::fputs(kUsage, stdout);
    return 0;
  }
  if (argc == 2 && std::string(argv[1]) == "list") {
    listTests();
    return 0;
  }
  try {
    const Options o = parse({argv + 1, argv + argc});
    const std::vector<Isa> isas = isasOf(o);
    const int threads = o.threads ? o.threads : std::max(o.test ? 3 : 1, availableThreads());
#ifdef LONGCAT_HAS_CUDA
    if (o.cuda) useGpu(o.gpu);
#endif
    if (o.test) {
      TestOptions tests = o.tests;
      tests.op = o.op;
      return runTests(tests, threads, isas);
    }
    BenchOptions bench = o.bench;
    bench.op = o.op;
    bench.threads = threads;
    bench.isas = isas;
    return runBenches(bench);
  } catch (const std::invalid_argument& error) {
    return usageError(error.what());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
