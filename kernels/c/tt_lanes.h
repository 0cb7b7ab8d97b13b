/* A vector of floats, for kernels that say themselves what runs in lanes: with -DTT_VECTORS one register
   of the vector extensions of GCC and Clang, else (on boards) a float. It is computed with + - * /. */
#ifndef TT_LANES_H
#define TT_LANES_H
#include "tt_kernels.h"
#include "tt_math.h"

#ifdef TT_VECTORS
#if defined __AVX__
#include <immintrin.h>
#elif defined __aarch64__
#include <arm_neon.h>
#endif
#define ALWAYS static inline __attribute__((always_inline, unused))

#if defined __AVX512F__ && defined __AVX512VL__
enum { LANES = 16 };
#define TT_MASKS
#elif defined __AVX__
enum { LANES = 8 };
#define TT_MASKS
#else
enum { LANES = 4 };
#endif
typedef float wide __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#ifdef TT_MASKS
typedef float half __attribute__((vector_size(2 * LANES), aligned(4), may_alias));
#endif

/* The first `left` lanes of a vector in memory; the others are +0, and not touched. */
#if defined __AVX512F__ && defined __AVX512VL__
#define MASK(kind) (kind)((1u << left) - 1u)
ALWAYS wide some_of_wide(const float *p, tt_ix left) {
    return (wide)_mm512_maskz_loadu_ps(MASK(__mmask16), p);
}
ALWAYS half some_of_half(const float *p, tt_ix left) {
    return (half)_mm256_maskz_loadu_ps(MASK(__mmask8), p);
}
ALWAYS void some_to_wide(float *p, wide x, tt_ix left) {
    _mm512_mask_storeu_ps(p, MASK(__mmask16), (__m512)x);
}
ALWAYS void some_to_half(float *p, half x, tt_ix left) {
    _mm256_mask_storeu_ps(p, MASK(__mmask8), (__m256)x);
}
#elif defined TT_MASKS
static const int32_t masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
#define MASK8 _mm256_loadu_si256((const __m256i *)(const void *)(masks + 8 - left))
#define MASK4 _mm_loadu_si128((const __m128i *)(const void *)(masks + 8 - left))
ALWAYS wide some_of_wide(const float *p, tt_ix left) { return (wide)_mm256_maskload_ps(p, MASK8); }
ALWAYS half some_of_half(const float *p, tt_ix left) { return (half)_mm_maskload_ps(p, MASK4); }
ALWAYS void some_to_wide(float *p, wide x, tt_ix left) {
    _mm256_maskstore_ps(p, MASK8, (__m256)x);
}
ALWAYS void some_to_half(float *p, half x, tt_ix left) { _mm_maskstore_ps(p, MASK4, (__m128)x); }
#else
ALWAYS wide some_of_wide(const float *p, tt_ix left) {
    float lanes[LANES] = {0};
    for (; left > 0; left--) lanes[left - 1] = p[left - 1];
    return *(const wide *)lanes;
}
ALWAYS void some_to_wide(float *p, wide x, tt_ix left) {
    for (; left > 0; left--) p[left - 1] = x[left - 1];
}
#endif
#else
#define ALWAYS static inline
typedef float wide;
enum { LANES = 1 };
#define some_of_wide(p, left) (*(p))
#define some_to_wide(p, x, left) (void)(*(p) = (x))
#endif

/* `cut` is a constant: whether the vector is one of `left` lanes. */
ALWAYS wide load(const float *p, const int cut, tt_ix left) {
    if (!cut) return *(const wide *)p;
    (void)left; /* where a vector is a float */
    return some_of_wide(p, left);
}

ALWAYS void store(float *p, wide x, const int cut, tt_ix left) {
    if (cut)
        some_to_wide(p, x, left);
    else
        *(wide *)p = x;
    (void)left;
}

/* The same float in every lane. */
ALWAYS wide splat(float x) {
    const wide nothing = {0};
    return x - nothing;
}

/* The square root of every lane, correctly rounded. */
ALWAYS wide root(wide x) {
#if !defined TT_VECTORS
    return tt_sqrt(x);
#elif defined __AVX512F__ && defined __AVX512VL__
    return (wide)_mm512_sqrt_ps((__m512)x);
#elif defined __AVX__
    return (wide)_mm256_sqrt_ps((__m256)x);
#elif defined __SSE__
    return (wide)_mm_sqrt_ps((__m128)x);
#elif defined __aarch64__
    return (wide)vsqrtq_f32((float32x4_t)x);
#else
    int lane;
    for (lane = 0; lane < LANES; lane++) x[lane] = tt_sqrt(x[lane]);
    return x;
#endif
}

#endif
