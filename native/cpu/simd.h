// The vector type of the CPU operations. Code written with it is compiled once for each instruction set, in namespace
// LONGCAT_ISA: `avx512` has 16 lanes and fused multiply-add, `avx2` 8 lanes and fused multiply-add, `plain` 8 lanes in GCC's
// generic vectors with a separate product and sum. Results depend on the instruction set, never on full or partial loads.
//
// Only static inline functions and no std:: templates here: whatever a wide instruction set compiles must stay in its own object file.
#pragma once

#include <cstddef>
#include <cstdint>

#ifndef LONGCAT_ISA
#error "define LONGCAT_ISA as plain, avx2 or avx512"
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define LONGCAT_AVX512 1
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define LONGCAT_AVX2 1
#else
#define LONGCAT_PLAIN 1
#endif

#ifndef LONGCAT_PLAIN
#pragma GCC diagnostic ignored "-Wuninitialized"        // GCC 12 warns of its own undefined() intrinsics
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#endif

#define LONGCAT_INLINE [[maybe_unused]] static inline __attribute__((always_inline))

namespace longcat::LONGCAT_ISA {

/// Stored numbers of two narrow dtypes, as element types of pointers.
struct Bf16 { uint16_t bits; };
struct F8 { uint8_t bits; };  // e4m3fn

// ---- the three vectors -------------------------------------------------------------------------------------------------

#if LONGCAT_AVX512

constexpr int kLanes = 16;
struct Vec { __m512 v; };

LONGCAT_INLINE __mmask16 firstLanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
LONGCAT_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
LONGCAT_INLINE Vec set1(float a) { return {_mm512_set1_ps(a)}; }
LONGCAT_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
LONGCAT_INLINE Vec loadPartial(const float* p, int n) { return {_mm512_maskz_loadu_ps(firstLanes(n), p)}; }
LONGCAT_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
LONGCAT_INLINE void storePartial(float* p, Vec a, int n) { _mm512_mask_storeu_ps(p, firstLanes(n), a.v); }
LONGCAT_INLINE Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
LONGCAT_INLINE Vec sub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
LONGCAT_INLINE Vec mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
LONGCAT_INLINE Vec div(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
LONGCAT_INLINE Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
/// a·b + c.
LONGCAT_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
/// The larger of the two; b where a or b is NaN.
LONGCAT_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
/// The smaller of the two; b where a or b is NaN.
LONGCAT_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }

LONGCAT_INLINE Vec widenBf16(__m256i bits) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))}; }
LONGCAT_INLINE Vec load(const Bf16* p) { return widenBf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
LONGCAT_INLINE Vec loadPartial(const Bf16* p, int n) { return widenBf16(_mm256_maskz_loadu_epi16(firstLanes(n), p)); }

// Sign, exponent and mantissa fit a half-precision number, which is then the value / 256, denormals included: no detour
// over float's denormals, which processors multiply slowly.
LONGCAT_INLINE Vec widenF8(__m128i bytes) {
  const __m256i half = _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(bytes), 7), _mm256_set1_epi16(static_cast<short>(0xbfff)));
  const __mmask16 isNumber = _mm_cmpneq_epi8_mask(_mm_or_si128(bytes, _mm_set1_epi8(static_cast<char>(0x80))), _mm_set1_epi8(static_cast<char>(0xff)));
  return {_mm512_mask_cvtph_ps(_mm512_set1_ps(__builtin_nanf("")), isNumber, half)};
}
constexpr float kF8Unit = 256.0f;
LONGCAT_INLINE Vec loadUnits(const F8* p) { return widenF8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
LONGCAT_INLINE Vec loadUnitsPartial(const F8* p, int n) { return widenF8(_mm_maskz_loadu_epi8(firstLanes(n), p)); }

/// a · 2^n, where n is in the low bits of `biased` = n + 1.5·2^23 and -252 ≤ n ≤ 254: two steps, so that denormals come out right.
LONGCAT_INLINE Vec scaleByPowerOfTwo(Vec a, Vec biased) {
  const __m512i n = _mm512_sub_epi32(_mm512_castps_si512(biased.v), _mm512_set1_epi32(0x4b400000));
  const __m512i half = _mm512_srai_epi32(n, 1);
  const __m512i one = _mm512_set1_epi32(127);
  const __m512 first = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(half, one), 23));
  const __m512 second = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_sub_epi32(n, half), one), 23));
  return {_mm512_mul_ps(_mm512_mul_ps(a.v, first), second)};
}

/// Sums of the lanes of four vectors to out[0..3], each in the tree of sum().
LONGCAT_INLINE void sum4(Vec a, Vec b, Vec c, Vec d, float* out) {
  const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a.v, b.v, 0x44), _mm512_shuffle_f32x4(a.v, b.v, 0xee));
  const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c.v, d.v, 0x44), _mm512_shuffle_f32x4(c.v, d.v, 0xee));
  __m512 s = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  s = _mm512_add_ps(s, _mm512_permute_ps(s, 0x4e));
  s = _mm512_add_ps(s, _mm512_permute_ps(s, 0xb1));
  const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, s)));
}

#elif LONGCAT_AVX2

constexpr int kLanes = 8;
struct Vec { __m256 v; };

LONGCAT_INLINE __m256i firstLanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
LONGCAT_INLINE Vec zero() { return {_mm256_setzero_ps()}; }
LONGCAT_INLINE Vec set1(float a) { return {_mm256_set1_ps(a)}; }
LONGCAT_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
LONGCAT_INLINE Vec loadPartial(const float* p, int n) { return {_mm256_maskload_ps(p, firstLanes(n))}; }
LONGCAT_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
LONGCAT_INLINE void storePartial(float* p, Vec a, int n) { _mm256_maskstore_ps(p, firstLanes(n), a.v); }
LONGCAT_INLINE Vec add(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
LONGCAT_INLINE Vec sub(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
LONGCAT_INLINE Vec mul(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
LONGCAT_INLINE Vec div(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
LONGCAT_INLINE Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.v)}; }
LONGCAT_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
LONGCAT_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
LONGCAT_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }

LONGCAT_INLINE Vec widenBf16(__m128i bits) { return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))}; }
LONGCAT_INLINE Vec load(const Bf16* p) { return widenBf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
LONGCAT_INLINE Vec loadPartial(const Bf16* p, int n) {
  alignas(16) uint16_t whole[8] = {};
  for (int i = 0; i < n; ++i) whole[i] = p[i].bits;
  return widenBf16(_mm_load_si128(reinterpret_cast<const __m128i*>(whole)));
}

LONGCAT_INLINE Vec widenF8(__m128i bytes) {
  const __m128i half = _mm_and_si128(_mm_slli_epi16(_mm_cvtepi8_epi16(bytes), 7), _mm_set1_epi16(static_cast<short>(0xbfff)));
  const __m128i isNan = _mm_cmpeq_epi8(_mm_or_si128(bytes, _mm_set1_epi8(static_cast<char>(0x80))), _mm_set1_epi8(static_cast<char>(0xff)));
  return {_mm256_or_ps(_mm256_cvtph_ps(half), _mm256_castsi256_ps(_mm256_cvtepi8_epi32(isNan)))};
}
constexpr float kF8Unit = 256.0f;
LONGCAT_INLINE Vec loadUnits(const F8* p) { return widenF8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))); }
LONGCAT_INLINE Vec loadUnitsPartial(const F8* p, int n) {
  uint64_t whole = 0;
  for (int i = 0; i < n; ++i) whole |= static_cast<uint64_t>(p[i].bits) << (8 * i);
  return widenF8(_mm_cvtsi64_si128(static_cast<int64_t>(whole)));
}

LONGCAT_INLINE Vec scaleByPowerOfTwo(Vec a, Vec biased) {
  const __m256i n = _mm256_sub_epi32(_mm256_castps_si256(biased.v), _mm256_set1_epi32(0x4b400000));
  const __m256i half = _mm256_srai_epi32(n, 1);
  const __m256i one = _mm256_set1_epi32(127);
  const __m256 first = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, one), 23));
  const __m256 second = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(n, half), one), 23));
  return {_mm256_mul_ps(_mm256_mul_ps(a.v, first), second)};
}

LONGCAT_INLINE void sum4(Vec a, Vec b, Vec c, Vec d, float* out) {
  const __m256 ab = _mm256_add_ps(_mm256_permute2f128_ps(a.v, b.v, 0x20), _mm256_permute2f128_ps(a.v, b.v, 0x31));
  const __m256 cd = _mm256_add_ps(_mm256_permute2f128_ps(c.v, d.v, 0x20), _mm256_permute2f128_ps(c.v, d.v, 0x31));
  __m256 s = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));  // a a c c | b b d d
  s = _mm256_add_ps(s, _mm256_permute_ps(s, 0xb1));
  const __m256i firsts = _mm256_setr_epi32(0, 4, 2, 6, 0, 0, 0, 0);
  _mm_storeu_ps(out, _mm256_castps256_ps128(_mm256_permutevar8x32_ps(s, firsts)));
}

#else

constexpr int kLanes = 8;
typedef float Floats __attribute__((vector_size(32), aligned(16)));
typedef int32_t Ints __attribute__((vector_size(32), aligned(16)));
typedef uint32_t Words __attribute__((vector_size(32), aligned(16)));
typedef uint16_t Halves __attribute__((vector_size(16)));
typedef uint8_t Bytes __attribute__((vector_size(8)));
struct Vec { Floats v; };

template <class V>
LONGCAT_INLINE void loadAs(V& v, const void* p) { __builtin_memcpy(&v, p, sizeof v); }
template <class V, class E>
LONGCAT_INLINE void loadFirst(V& v, const E* p, int n) {
  E whole[kLanes] = {};
  for (int i = 0; i < n; ++i) whole[i] = p[i];
  loadAs(v, whole);
}
LONGCAT_INLINE Vec zero() { return {Floats{}}; }
LONGCAT_INLINE Vec set1(float a) { return {Floats{a, a, a, a, a, a, a, a}}; }
LONGCAT_INLINE Vec load(const float* p) {
  Vec r;
  loadAs(r.v, p);
  return r;
}
LONGCAT_INLINE Vec loadPartial(const float* p, int n) {
  Vec r;
  loadFirst(r.v, p, n);
  return r;
}
LONGCAT_INLINE void store(float* p, Vec a) { __builtin_memcpy(p, &a.v, sizeof a.v); }
LONGCAT_INLINE void storePartial(float* p, Vec a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.v[i];
}
LONGCAT_INLINE Vec add(Vec a, Vec b) { return {a.v + b.v}; }
LONGCAT_INLINE Vec sub(Vec a, Vec b) { return {a.v - b.v}; }
LONGCAT_INLINE Vec mul(Vec a, Vec b) { return {a.v * b.v}; }
LONGCAT_INLINE Vec div(Vec a, Vec b) { return {a.v / b.v}; }
LONGCAT_INLINE Vec sqrt(Vec a) {
  Vec r = a;
  for (int i = 0; i < kLanes; ++i) r.v[i] = __builtin_sqrtf(a.v[i]);
  return r;
}
LONGCAT_INLINE Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
LONGCAT_INLINE Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
LONGCAT_INLINE Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }

LONGCAT_INLINE Vec widenBf16(Halves h) { return {reinterpret_cast<Floats>(__builtin_convertvector(h, Words) << 16)}; }
LONGCAT_INLINE Vec load(const Bf16* p) {
  Halves stored;
  loadAs(stored, p);
  return widenBf16(stored);
}
LONGCAT_INLINE Vec loadPartial(const Bf16* p, int n) {
  Halves stored;
  loadFirst(stored, p, n);
  return widenBf16(stored);
}

// Exponent and mantissa at the bottom of float's exponent: that is the value × 2^-120, denormals included.
LONGCAT_INLINE Vec widenF8(Bytes bytes) {
  const Words b = __builtin_convertvector(bytes, Words);
  const Words magnitude = (b & 0x7f) << 20;
  const Floats value = reinterpret_cast<Floats>(magnitude | ((b & 0x80) << 24)) * 0x1p120f;
  const Ints isNan = magnitude == (0x7fu << 20);
  return {reinterpret_cast<Floats>(reinterpret_cast<Ints>(value) | isNan)};
}
constexpr float kF8Unit = 1.0f;
LONGCAT_INLINE Vec loadUnits(const F8* p) {
  Bytes stored;
  loadAs(stored, p);
  return widenF8(stored);
}
LONGCAT_INLINE Vec loadUnitsPartial(const F8* p, int n) {
  Bytes stored;
  loadFirst(stored, p, n);
  return widenF8(stored);
}

LONGCAT_INLINE Vec scaleByPowerOfTwo(Vec a, Vec biased) {
  const Words n = reinterpret_cast<Words>(biased.v) - 0x4b400000u;
  const Words half = reinterpret_cast<Words>(reinterpret_cast<Ints>(n) >> 1);
  return {a.v * reinterpret_cast<Floats>((half + 127) << 23) * reinterpret_cast<Floats>((n - half + 127) << 23)};
}

#endif

// ---- what all three share ----------------------------------------------------------------------------------------------

/// FP8 numbers. `loadUnits` gives value / kF8Unit, a power of two: a scale × kF8Unit makes the same bits in one product less.
LONGCAT_INLINE Vec load(const F8* p) { return mul(loadUnits(p), set1(kF8Unit)); }
LONGCAT_INLINE Vec loadPartial(const F8* p, int n) { return mul(loadUnitsPartial(p, n), set1(kF8Unit)); }

/// Lane 0 after folding halves: lane l with l + 8, then l + 4, l + 2, l + 1.
LONGCAT_INLINE float sum(Vec a) {
#if LONGCAT_PLAIN
  const Floats v = a.v;
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
#else
#if LONGCAT_AVX512
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
#else
  const __m256 eight = a.v;
#endif
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
#endif
}

#if LONGCAT_PLAIN
LONGCAT_INLINE void sum4(Vec a, Vec b, Vec c, Vec d, float* out) {
  out[0] = sum(a), out[1] = sum(b), out[2] = sum(c), out[3] = sum(d);
}
#endif

/// The largest lane. A NaN lane may or may not win; check for NaN otherwise where it matters.
LONGCAT_INLINE float maxLane(Vec a) {
  float lanes[kLanes];
  store(lanes, a);
  float m = lanes[0];
  for (int i = 1; i < kLanes; ++i) m = lanes[i] > m ? lanes[i] : m;
  return m;
}

/// One stored number as float.
LONGCAT_INLINE float widen(float a) { return a; }
LONGCAT_INLINE float widen(Bf16 a) {
  const uint32_t bits = static_cast<uint32_t>(a.bits) << 16;
  float f;
  __builtin_memcpy(&f, &bits, sizeof f);
  return f;
}

/// e^a, within 2 ulp: 0 below -104, infinity above 88.73, denormal results rounded as such, NaN stays NaN.
LONGCAT_INLINE Vec exp(Vec a) {
  const Vec x = min(set1(89.0f), max(set1(-105.0f), a));  // the order of operands keeps NaN
  const Vec biased = add(mul(x, set1(1.44269504088896341f)), set1(12582912.0f));  // 1.5·2^23 + round(x / ln 2)
  const Vec n = sub(biased, set1(12582912.0f));
  // ln 2 in two parts, the first with few enough bits that n times it is exact.
  const Vec r = sub(sub(x, mul(n, set1(0.693359375f))), mul(n, set1(-2.12194440e-4f)));
  Vec p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = add(fma(p, mul(r, r), r), set1(1.0f));
  return scaleByPowerOfTwo(p, biased);
}

/// a / (1 + e^-a).
LONGCAT_INLINE Vec silu(Vec a) { return div(a, add(set1(1.0f), exp(sub(zero(), a)))); }

/// Calls f(k, n) for the pieces of [0, count): n = kLanes, and once n < kLanes at the end if anything is left.
/// `f` is written for both: loadN and storeN below choose by n.
template <class F>
LONGCAT_INLINE void forLanes(int64_t count, const F& f) {
  int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes) f(k, kLanes);
  if (k < count) f(k, static_cast<int>(count - k));
}
template <class E>
LONGCAT_INLINE Vec loadN(const E* p, int n) { return n == kLanes ? load(p) : loadPartial(p, n); }
LONGCAT_INLINE void storeN(float* p, Vec a, int n) {
  if (n == kLanes) store(p, a);
  else storePartial(p, a, n);
}

}  // namespace longcat::LONGCAT_ISA
