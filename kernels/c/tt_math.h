/* exp, log, tanh, sqrt and rounding of float from + - * / and integer moves alone, so that every
   IEEE-754 target, hard or soft float, gives the same bits. No libm, no table, no double.

   exp and log are Cephes' (S. Moshier), to about 2 ulp; the Numba kernels have the same. */
#ifndef TT_MATH_H
#define TT_MATH_H
#include <stdint.h>
#include <string.h>

#ifdef __FAST_MATH__
#error "tinytrain promises the same bits everywhere: build without -ffast-math"
#endif
/* For builds whose flags are not ours: no product is fused with a sum, and where a vector unit
   flushes subnormals (MVE, 32-bit NEON) no loop is vectorised. */
#if defined __clang__
#pragma STDC FP_CONTRACT OFF
#elif defined __GNUC__
#pragma GCC optimize("fp-contract=off")
#if defined __arm__
#pragma GCC optimize("no-tree-vectorize")
#endif
#endif
#if defined __SSE__
#include <xmmintrin.h>
#endif

static inline uint32_t tt_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static inline float tt_float(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static inline int tt_is_finite(float x) { return (tt_bits(x) & 0x7f800000u) != 0x7f800000u; }

static inline float tt_abs(float x) { return tt_float(tt_bits(x) & 0x7fffffffu); }

static inline float tt_exp(float x) {
    float inside, t, f, r, p;
    int32_t n, half;
    if (!(x > -87.0f)) return x != x ? x : 0.0f; /* below, exp is subnormal and counts as 0 */
    if (x > 88.722839f) return tt_float(0x7f800000u);
    inside = x;
    t = inside * 1.44269504f;
    n = (int32_t)(t < 0.0f ? t - 0.5f : t + 0.5f);
    f = (float)n;
    /* ln 2 in two parts; the first ends in nine zero bits, so its multiples are exact */
    r = (inside - f * 0.693359375f) - f * -2.12194440e-4f;
    p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    half = (n - (n & 1)) / 2; /* in two factors, as 2^128 is not a float */
    return (p * (r * r) + r + 1.0f) * tt_float((uint32_t)(half + 127) << 23) *
           tt_float((uint32_t)(n - half + 127) << 23);
}

/* For a positive x; 0 and subnormals give -infinity, negative ones NaN. */
static inline float tt_log(float x) {
    uint32_t u = tt_bits(x);
    int32_t e;
    float m, z, f, y;
    if (!(x < tt_float(0x7f800000u))) return x;
    if (!(x >= 1.17549435e-38f)) return tt_float(x < 0.0f ? 0x7fc00000u : 0xff800000u);
    e = (int32_t)(u >> 23) - 126;
    m = tt_float((u & 0x007fffffu) | 0x3f000000u);
    if (m < 0.707106781f) {
        e -= 1;
        m = m + m;
    }
    m = m - 1.0f;
    z = m * m;
    f = (float)e;
    y = 7.0376836292e-2f * m + -1.1514610310e-1f;
    y = y * m + 1.1676998740e-1f;
    y = y * m + -1.2420140846e-1f;
    y = y * m + 1.4249322787e-1f;
    y = y * m + -1.6668057665e-1f;
    y = y * m + 2.0000714765e-1f;
    y = y * m + -2.4999993993e-1f;
    y = (y * m + 3.3333331174e-1f) * m * z;
    y = (y + f * -2.12194440e-4f) - 0.5f * z;
    return (m + y) + f * 0.693359375f;
}

/* An odd polynomial (Cephes) below 0.625, else 1 - 2 / (exp(2 |x|) + 1). */
static inline float tt_tanh(float x) {
    float a = tt_abs(x), y, z;
    if (x != x) return x;
    if (a > 9.1f) {
        y = 1.0f;
    } else if (a >= 0.625f) {
        y = 1.0f - 2.0f / (tt_exp(a + a) + 1.0f);
    } else {
        z = a * a;
        y = -5.70498872745e-3f * z + 2.06390887954e-2f;
        y = y * z + -5.37397155531e-2f;
        y = y * z + 1.33314422036e-1f;
        y = y * z + -3.33332819422e-1f;
        y = y * z * a + a;
    }
    return x < 0.0f ? -y : y;
}

/* 1 / (1 + exp(-x)) without overflow. */
static inline float tt_logistic(float x) {
    float e = tt_exp(-tt_abs(x));
    return x >= 0.0f ? 1.0f / (1.0f + e) : e / (1.0f + e);
}

/* Correctly rounded, so that every FPU's is the same; in integers where there is none. */
static inline float tt_sqrt(float x) {
#if defined __SSE__
    return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
#else
    uint32_t u = tt_bits(x), m, q = 0, s = 0, bit = 1u << 24;
    int32_t e;
    if ((u & 0x7fffffffu) == 0u) return x;
    if (u >= 0x7f800000u) return u == 0x7f800000u || x != x ? x : tt_float(0x7fc00000u);
    e = (int32_t)(u >> 23) - 127;
    m = u & 0x7fffffu;
    if (u >= 0x00800000u) {
        m |= 0x800000u;
    } else {
        for (e = -126; !(m & 0x800000u); e--) m += m;
    }
    if (e & 1) {
        m += m;
        e -= 1;
    }
    for (m += m; bit; bit >>= 1, m += m) { /* a bit of the root at a time */
        uint32_t t = s + bit;
        if (t <= m) {
            s = t + bit;
            m -= t;
            q += bit;
        }
    }
    if (m) q += q & 1u; /* to the nearest; a tie cannot be */
    return tt_float((q >> 1) + (uint32_t)(e / 2 + 126) * 0x800000u);
#endif
}

/* The nearest whole number, ties to even; the sign of zero is kept. */
static inline float tt_round(float x) {
    float a = tt_abs(x);
    if (!(a < 8388608.0f)) return x;
    a = (a + 8388608.0f) - 8388608.0f;
    return tt_float(tt_bits(a) | (tt_bits(x) & 0x80000000u));
}
#endif
