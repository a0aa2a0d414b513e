// What this processor can do at most, for the floors that benchmarks are compared with.
#pragma once

#include <cstdint>

namespace longcat {

namespace plain {
float readAll(const float* data, int64_t count);
double multiplyAdd(int64_t rounds, float* sink);
}  // namespace plain
#ifndef LONGCAT_ONLY_PLAIN
namespace avx2 {
float readAll(const float* data, int64_t count);
double multiplyAdd(int64_t rounds, float* sink);
}  // namespace avx2
namespace avx512 {
float readAll(const float* data, int64_t count);
double multiplyAdd(int64_t rounds, float* sink);
}  // namespace avx512
#endif

}  // namespace longcat
