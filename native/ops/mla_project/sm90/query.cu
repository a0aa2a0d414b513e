// The query's product on Hopper, for few rows, and its rotation: a cluster has 64 outputs, each of its blocks one lane of k (steps.cuh), so that many
// small blocks share a multiprocessor and its memory is never idle while one of them waits. Sums go to the block of the cluster that owns the
// pair of rows; it adds the lanes in ascending order, rounds as a product would, and writes nope numbers as they are, rope pairs rotated.
#include "ops/mla_project/sm90/query.h"

#include "cuda/hopper/exchange.cuh"
#include "cuda/vectors.cuh"
#include "ops/mla_project/rotation.cuh"
#include "ops/mla_project/sm90/steps.cuh"

namespace longcat::cuda {
namespace {

using namespace steps;

constexpr int64_t kMostBf16Rows = 64, kMostFp8Rows = 256;  // more are gemm()'s

/// Blocks that a multiprocessor should have registers for; their memory is what a lane takes.
template <int kRows>
constexpr int kBlocksTogether = kRows <= 16 ? 4 : kRows <= 32 ? 3 : 2;

/// All lanes' sums of the pairs of rows that a block owns: pairs rank, rank + lanes, … of the tile.
template <int kRows>
struct Sums {
  static constexpr int kPairs = kRows / 2, kBytes = kRows * kOutputs * 4;  // enough for the most that a block of 2, 4 or 8 owns
  static constexpr int kReserved = kBytes < 8 * kOutputs * 8 ? 8 * kOutputs * 8 : kBytes;

  float2* data;
  Barrier* all;
  int lanes, rank;

  __device__ __forceinline__ Sums(unsigned char* memory, Barrier* barrier)
      : data(reinterpret_cast<float2*>(memory)), all(barrier), lanes(static_cast<int>(clusterSize())), rank(static_cast<int>(clusterRank())) {}

  __device__ __forceinline__ int owned() const { return (kPairs - rank + lanes - 1) / lanes; }
  __device__ __forceinline__ float2* at(int pair, int lane, int output) const { return data + (pair * lanes + lane) * kOutputs + output; }
  /// One thread; then a barrier of the cluster.
  __device__ void initialise() const {
    initBarrier(all, 1);
    fenceBarriers();
    arriveExpecting(all, owned() * lanes * kOutputs * static_cast<int>(sizeof(float2)));
  }
  /// A thread's sums of the block's lane to their owners.
  __device__ __forceinline__ void send(const float (&sum)[kRows / 2]) const {
    const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j) {
      const int pair = 4 * j + thread % 4, owner = pair % lanes;
      const uint32_t barrier = addressIn(all, owner);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int output = thread / 32 * 16 + thread % 32 / 4 + 8 * half;
        storeAt(addressIn(at(pair / lanes, rank, output), owner), make_float2(sum[4 * j + 2 * half], sum[4 * j + 2 * half + 1]), barrier);
      }
    }
  }
  /// Two outputs, from `output` on, of both rows of an owned pair: x and y of the first output, z and w of the next.
  __device__ __forceinline__ float4 total(int pair, int output) const {
    float4 of[kMaxLanes];
#pragma unroll
    for (int lane = 0; lane < kMaxLanes; ++lane) {
      if (lane < lanes) of[lane] = *reinterpret_cast<const float4*>(at(pair, lane, output));
    }
    float4 sum = of[0];
#pragma unroll
    for (int lane = 1; lane < kMaxLanes; ++lane) {
      if (lane < lanes) sum.x += of[lane].x, sum.y += of[lane].y, sum.z += of[lane].z, sum.w += of[lane].w;
    }
    return sum;
  }
};

/// Two neighbouring numbers of a query, finished: where a lane of a warp writes them in every row.
class Place {
 public:
  __device__ __forceinline__ Place(const MlaProjectParams& p, int output) : p_(p) {
    const int width = static_cast<int>(p.nope + p.rope), head = output / width, within = output - head * width;
    rotates_ = within >= p.nope;
    pair_ = (within - static_cast<int>(p.nope)) / 2;
    at_ = head * width + (rotates_ ? static_cast<int>(p.nope) + pair_ : within);
  }
  /// In a row; nothing where the numbers are not rotated, or no row can be.
  __device__ __forceinline__ Angle angle(int64_t row) const { return rotates_ && row < p_.capacity ? Angle(p_.cosSin + row * p_.rope, pair_, p_.rope / 2) : Angle(); }
  __device__ __forceinline__ void write(int64_t row, float first, float second, const Angle& angle) const {
    Bf16* q = static_cast<Bf16*>(p_.q.data) + row * p_.qB.rows + at_;
    const __nv_bfloat162 rounded = __floats2bfloat162_rn(first, second);
    if (!rotates_) {
      *reinterpret_cast<__nv_bfloat162*>(q) = rounded;
      return;
    }
    const Rotation rotated = rotate(__low2float(rounded), __high2float(rounded), angle);
    q[0] = numberOf<Bf16>(rotated.a);
    q[p_.rope / 2] = numberOf<Bf16>(rotated.b);
  }

 private:
  const MlaProjectParams& p_;
  bool rotates_;
  int pair_, at_;
};

/// The owned rows' queries: a warp has a pair of rows, a lane two outputs. How many rows are live, and the angles of a warp's first pair, are asked
/// for before the sums are known.
template <int kRows>
class Queries {
 public:
  __device__ __forceinline__ Queries(const MlaProjectParams& p, const Sums<kRows>& sums, const Part& part)
      : sums_(sums), firstRow_(part.firstRow), output_(2 * (static_cast<int>(threadIdx.x) & 31)), isOutput_(part.output + output_ < p.qB.rows),
        live_(static_cast<int>(liveRows(p.rows, p.capacity))), place_(p, part.output + output_), angles_(place_, rowOf(firstPair())) {}

  /// When all lanes' sums are there.
  __device__ __forceinline__ void write() const {
    waitAcross(sums_.all, 0);
    if (!isOutput_) return;
    for (int pair = firstPair(); pair < sums_.owned(); pair += kMultipliers / 32) {
      const float4 v = sums_.total(pair, output_);
      const int row = rowOf(pair);
      const Angles angles = pair == firstPair() ? angles_ : Angles(place_, row);
      if (row < live_) place_.write(row, v.x, v.z, angles.first);
      if (row + 1 < live_) place_.write(row + 1, v.y, v.w, angles.second);
    }
  }

 private:
  struct Angles {
    Angle first, second;
    __device__ __forceinline__ Angles(const Place& place, int64_t row) : first(place.angle(row)), second(place.angle(row + 1)) {}
  };
  static __device__ __forceinline__ int firstPair() { return static_cast<int>(threadIdx.x) >> 5; }
  __device__ __forceinline__ int rowOf(int pair) const { return firstRow_ + 2 * (pair * sums_.lanes + sums_.rank); }

  const Sums<kRows>& sums_;
  int firstRow_, output_;
  bool isOutput_;
  int live_;
  Place place_;
  Angles angles_;
};

/// Block (x, y, z): lane x of k, outputs from 64 · y on, rows from kRows · z on. A cluster is all lanes.
template <class W, int kRows>
__global__ void __launch_bounds__(kThreads, kBlocksTogether<kRows>)
    project(const __grid_constant__ MlaProjectParams p, const __grid_constant__ TensorMap weightMap, const __grid_constant__ TensorMap rowMap) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char shared[];
  letNextBegin();
  if (blockIdx.z > 0) {
    awaitPrevious();
    if (blockIdx.z * kRows >= liveRows(p.rows, p.capacity)) return;  // the whole cluster
  }
  const Memory<W, kRows, Sums<kRows>::kReserved> memory{shared};
  const Sums<kRows> sums(memory.more(), memory.spare());
  const Part part = Part::ofLane<W>(static_cast<int>(blockIdx.y) * kOutputs, p.qB.columns, sums.rank, sums.lanes,
                                    static_cast<int>(blockIdx.z) * kRows);
  if (threadIdx.x == 0) {
    memory.initialise();
    sums.initialise();
  }
  arriveAtCluster();
  __syncthreads();
  if (threadIdx.x >= kMultipliers) {
    if (threadIdx.x == kMultipliers) copySteps(memory, part, gridDim.z == 1 ? readOncePolicy() : readAgainPolicy(), weightMap, rowMap);
    waitForCluster();
    return;
  }
  float sum[kRows / 2] = {};
  awaitPrevious();
  const Queries<kRows> queries(p, sums, part);
  multiplySteps(memory, part, part.scales(p.qB), sum);
  waitForCluster();  // all barriers are there
  sums.send(sum);
  queries.write();  // and all that is sent here has come when the block ends
#endif
}

template <class W, int kRows>
void launchRows(const CudaContext& context, const MlaProjectParams& p) {
  const int64_t k = p.qB.columns;
  const auto lanes = static_cast<unsigned>(lanesOf(k));
  const size_t bytes = Memory<W, kRows, Sums<kRows>::kReserved>::bytesOf(ceilDiv(k / Step<W>::kNumbers, lanes));
  const dim3 grid(lanes, static_cast<unsigned>(ceilDiv(p.qB.rows, kOutputs)), static_cast<unsigned>(ceilDiv(p.capacity, kRows)));
  launch(context, project<W, kRows>, LaunchShape{grid, kThreads, bytes, lanes}, p, weightMapOf<W>(p.qB), rowMapOf(p.qLatent.data, p.capacity, k, kRows));
}

template <class W>
void launchFew(const CudaContext& context, const MlaProjectParams& p) {
  if (p.capacity <= 8) launchRows<W, 8>(context, p);
  else if (p.capacity <= 16) launchRows<W, 16>(context, p);
  else if (p.capacity <= 32) launchRows<W, 32>(context, p);
  else launchRows<W, 64>(context, p);
}

}  // namespace

bool launchQuery(const CudaContext& context, const MlaProjectParams& p) {
  const bool pairs = p.nope % 2 == 0 && reinterpret_cast<uintptr_t>(p.q.data) % 4 == 0;
  const int64_t most = p.qB.dtype == DType::f8e4m3 ? kMostFp8Rows : kMostBf16Rows;
  if (p.capacity <= 0 || p.capacity > most || !pairs || lanesOf(p.qB.columns) == 1 || !takesSteps(context, p.qLatent.data, p.activation, p.qB)) return false;
  if (p.qB.dtype == DType::f8e4m3) launchFew<Fp8>(context, p);
  else launchFew<Bf16>(context, p);
  return true;
}

}  // namespace longcat::cuda
