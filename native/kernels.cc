// Tests and benchmarks of the operations, without Node:
//   kernels test  [op] [--threads N] [--isa plain|avx2|avx512]
//   kernels bench [op] [--threads N] [--isa plain|avx2|avx512]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "ops/harness.h"
#include "runtime/processor.h"

using namespace longcat;

namespace {

int usage(const std::string& complaint) {
  std::fprintf(stderr, "%s\nusage: kernels test|bench [op] [--threads N] [--isa plain|avx2|avx512]\n", complaint.c_str());
  return 2;
}

std::vector<Isa> supportedIsas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::plain, Isa::avx2, Isa::avx512}) {
    if (supports(isa)) isas.push_back(isa);
  }
  return isas;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty()) return usage("nothing to do");
  const bool test = words[0] == "test";
  if (!test && words[0] != "bench") return usage("unknown command \"" + words[0] + "\"");

  std::vector<Isa> isas = supportedIsas();
  if (!test) isas = {bestIsa()};
  int threads = test ? std::max(3, availableThreads()) : availableThreads();
  std::string op;
  for (size_t i = 1; i < words.size(); ++i) {
    const std::string value = i + 1 < words.size() ? words[i + 1] : "";
    if (words[i] == "--threads") {
      threads = std::atoi(value.c_str());
      if (threads < 1) return usage("--threads " + value + ": an integer from 1 is wanted");
      ++i;
    } else if (words[i] == "--isa") {
      const std::vector<Isa> all = supportedIsas();
      const auto found = std::find_if(all.begin(), all.end(), [&](Isa isa) { return value == nameOf(isa); });
      if (found == all.end()) return usage("--isa " + value + ": unknown, or not supported by this processor");
      isas = {*found};
      ++i;
    } else if (words[i][0] == '-' || !op.empty()) {
      return usage("unknown argument \"" + words[i] + "\"");
    } else {
      op = words[i];
    }
  }
  return test ? runTests(op, threads, isas) : runBenches(op, threads, isas);
}
