// Many rows times bf16 weights on Hopper: how large a tile of rows is worth its waves.
#include "cuda/hopper/gemm_many.cuh"
#include "cuda/hopper/gemm_many.h"

namespace longcat::cuda {
namespace {

template <bool kDual>
void launchBf16(const CudaContext& context, const GemmProblem& p, int rowTile) {
  if (rowTile > 128) many::launchMany<many::Shape<kDual, 256>>(context, p, rowTile);
  else many::launchMany<many::Shape<kDual, 128>>(context, p, rowTile);
}

}  // namespace

bool manyBf16(const CudaContext& context, const GemmProblem& p, int64_t rows) {
  const bool dual = p.epilogue == Epilogue::swiglu;
  const int rowTile = manyRowTile(context, p, rows, dual ? 128 : 256);
  dual ? launchBf16<true>(context, p, rowTile) : launchBf16<false>(context, p, rowTile);
  return true;
}

}  // namespace longcat::cuda
