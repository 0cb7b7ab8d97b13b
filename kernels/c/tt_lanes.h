/* A vector of floats, for kernels that say themselves what runs in lanes: with -DTT_VECTORS one register
   of the vector extensions of GCC and Clang, else (on boards) a float. It is computed with + - * /. */
#ifndef TT_LANES_H
#define TT_LANES_H
#include "tt_kernels.h"
#include "tt_math.h"

#ifdef TT_VECTORS
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

/* The first `left` lanes of a vector in memory; the others are +0, and not touched. As instructions,
   here and below: the compiler's header of them takes longer than most kernels to compile. */
#if defined __AVX512F__ && defined __AVX512VL__
#define FIRST const uint16_t first = (uint16_t)((1u << left) - 1u)
#define SOME(T)                                                                                    \
    ALWAYS T some_of_##T(const float *p, tt_ix left) {                                             \
        FIRST;                                                                                     \
        T x;                                                                                       \
        __asm__("vmovups %1, %0%{%2%}%{z%}" : "=v"(x) : "m"(*(const T *)p), "Yk"(first));          \
        return x;                                                                                  \
    }                                                                                              \
    ALWAYS void some_to_##T(float *p, T x, tt_ix left) {                                           \
        FIRST;                                                                                     \
        __asm__("vmovups %1, %0%{%2%}" : "+m"(*(T *)p) : "v"(x), "Yk"(first));                     \
    }
SOME(wide)
SOME(half)
#elif defined TT_MASKS
static const int32_t masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
#define FIRST(T) (*(const T *)(const void *)(masks + 8 - left))
#define SOME(T)                                                                                    \
    ALWAYS T some_of_##T(const float *p, tt_ix left) {                                             \
        T x;                                                                                       \
        __asm__("vmaskmovps %1, %2, %0" : "=x"(x) : "m"(*(const T *)p), "x"(FIRST(T)));            \
        return x;                                                                                  \
    }                                                                                              \
    ALWAYS void some_to_##T(float *p, T x, tt_ix left) {                                           \
        __asm__("vmaskmovps %1, %2, %0" : "+m"(*(T *)p) : "x"(x), "x"(FIRST(T)));                  \
    }
SOME(wide)
SOME(half)
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
#elif defined __AVX__
    __asm__("vsqrtps %0, %0" : "+v"(x));
    return x;
#elif defined __SSE__
    return (wide)_mm_sqrt_ps((__m128)x);
#elif defined __aarch64__
    __asm__("fsqrt %0.4s, %0.4s" : "+w"(x));
    return x;
#else
    int lane;
    for (lane = 0; lane < LANES; lane++) x[lane] = tt_sqrt(x[lane]);
    return x;
#endif
}

#endif
