// The two products of a backward pass, beside gemm()'s x · Wᵀ, compiled once for each instruction set (namespace LONGCAT_ISA):
//   gemmNN   A · B    what went in: dx = dy · W
//   gemmTN   Aᵀ · B   a weight: dW = dyᵀ · x
// Float32 alone, as what is trained is. Each result is one chain along the depth, ascending, which begins at 0 or, where it is added, at what is
// there: blocks, tiles and threads only choose which chains run side by side.
#pragma once

#include "cpu/math.h"
#include "ops/op.h"

namespace longcat::LONGCAT_ISA {

/// Rows of a matrix, `stride` numbers apart; with an index, row r is row index[r].
struct Rows {
  const float* data;
  int64_t stride;
  const int32_t* index = nullptr;
  const float* at(int64_t r) const { return data + (index ? index[r] : r) * stride; }
};

/// Where results go: over what is there, or added to it.
struct Into {
  float* data;
  int64_t stride;
  bool add = false;
};

/// out[r][j] = Σ_{n in [0, depth)} a.at(r)[n] · b.at(n)[j] for r in [0, rows), j in [0, columns). Serial.
void gemmNN(const Rows& a, int64_t rows, int64_t depth, const Rows& b, int64_t columns, const Into& out);

/// out[i][j] = Σ_{n in [0, depth)} a.at(n)[i] · b.at(n)[j] for i in [begin, end), j in [0, columns). Serial.
void gemmTN(const Rows& a, int64_t begin, int64_t end, int64_t depth, const Rows& b, int64_t columns, const Into& out);

/// The same, their rows of results cut in tasks for the pool.
void gemmNNParallel(const CpuContext& context, const Rows& a, int64_t rows, int64_t depth, const Rows& b, int64_t columns, const Into& out);
void gemmTNParallel(const CpuContext& context, const Rows& a, int64_t outputs, int64_t depth, const Rows& b, int64_t columns, const Into& out);

/// out[j] += Σ_{r in [0, rows), ascending} a.at(r)[j] for j in [0, columns), cut in tasks by columns: the gradient of a bias.
void addColumnSums(const CpuContext& context, const Rows& a, int64_t rows, int64_t columns, float* out);

}  // namespace longcat::LONGCAT_ISA
