/* Arithmetic with broadcasting, and the activations. Each output is one expression, written as the
   reference has it. */
#include "tt_kernels.h"
#include "tt_math.h"

enum { RANK = 6 };

/* Where an odometer over sizes stands, for operands with strides of their own. */
typedef struct {
    const int32_t *sizes, *a_steps, *b_steps;
    tt_ix rank, rows, inner, a_step, b_step, a, b, index[RANK];
} walk;

static walk walk_of(tt_ix rank, const int32_t *sizes, const int32_t *a, const int32_t *b) {
    walk s = {0};
    tt_ix k;
    s.rank = rank, s.sizes = sizes, s.a_steps = a, s.b_steps = b, s.rows = 1;
    for (k = 0; k < rank - 1; k++) s.rows *= sizes[k];
    s.inner = sizes[rank - 1], s.a_step = a[rank - 1], s.b_step = b[rank - 1];
    return s;
}

/* The next run of the last axis. */
static void forward(walk *s) {
    tt_ix k;
    for (k = s->rank - 2; k >= 0; k--) {
        s->a += s->a_steps[k], s->b += s->b_steps[k];
        if (++s->index[k] < s->sizes[k]) return;
        s->a -= s->sizes[k] * (tt_ix)s->a_steps[k], s->b -= s->sizes[k] * (tt_ix)s->b_steps[k];
        s->index[k] = 0;
    }
}

#define BINARY(name, expression)                                                                   \
    void tt_kernel_##name(void *const *p, const int32_t *g) {                                      \
        walk s = walk_of(g[0], g + 1, g + 1 + g[0], g + 1 + 2 * g[0]);                             \
        float *out = p[0];                                                                         \
        tt_ix row, i;                                                                              \
        for (row = 0; row < s.rows; row++, out += s.inner, forward(&s)) {                          \
            const float *left = (const float *)p[1] + s.a, *right = (const float *)p[2] + s.b;     \
            if (s.a_step == 1 && s.b_step == 1) {                                                  \
                for (i = 0; i < s.inner; i++) {                                                    \
                    float a = left[i], b = right[i];                                               \
                    out[i] = expression;                                                           \
                }                                                                                  \
            } else {                                                                               \
                for (i = 0; i < s.inner; i++) {                                                    \
                    float a = left[i * s.a_step], b = right[i * s.b_step];                         \
                    out[i] = expression;                                                           \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }

BINARY(add, a + b)
BINARY(sub, a - b)
BINARY(mul, a *b)
BINARY(div, a / b)

void tt_kernel_div_vjp_b(void *const *p, const int32_t *g) {
    walk s = walk_of(g[0], g + 1, g + 1 + g[0], g + 1 + g[0]);
    float *out = p[0];
    const float *from = p[1], *y = p[2];
    tt_ix row, i, at = 0;
    for (row = 0; row < s.rows; row++, forward(&s))
        for (i = 0; i < s.inner; i++, at++)
            out[at] = -from[at] * y[at] / ((const float *)p[3])[s.a + i * s.a_step];
}

/* y = an expression of x and a constant k (the second word, if there is one); the gradients are of g
   too, with x what was saved. */
#define EACH(name, inputs, constants, expression)                                                  \
    void tt_kernel_##name(void *const *p, const int32_t *words) {                                  \
        float *out = p[0], k = constants ? tt_float((uint32_t)words[1]) : 0.0f;                    \
        const float *in = p[1], *saved = p[inputs];                                                \
        tt_ix i, n = words[0];                                                                     \
        (void)k;                                                                                   \
        for (i = 0; i < n; i++) {                                                                  \
            float g = in[i], x = saved[i];                                                         \
            (void)g;                                                                               \
            out[i] = expression;                                                                   \
        }                                                                                          \
    }

static float sign(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x; }

static float silu_slope(float x) {
    float s = tt_logistic(x);
    return s * (1.0f + x * (1.0f - s));
}

/* The tanh form of GELU (Hendrycks and Gimpel 2016). */
static float gelu_tanh(float x) { return tt_tanh(0.79788456f * (x + 0.044715f * x * x * x)); }

static float gelu_slope(float x) {
    float t = gelu_tanh(x);
    return 0.5f * (1.0f + t) +
           0.5f * x * (1.0f - t * t) * 0.79788456f * (1.0f + 0.134145f * x * x);
}

/* x to a whole power below 2^24, by squaring. */
static float whole_power(float x, float e) {
    float y = 1.0f;
    uint32_t n = (uint32_t)tt_abs(e);
    for (; n; n >>= 1, x *= x)
        if (n & 1u) y *= x;
    return e < 0.0f ? 1.0f / y : y;
}

/* x to the power e: whole and half powers by products and a root, others by exp and log. */
static float power(float x, float e) {
    float down = tt_round(e - 0.5f);
    if (tt_abs(e) < 64.0f) {
        if (tt_round(e) == e) return whole_power(x, e);
        if (down + 0.5f == e) return whole_power(x, down) * tt_sqrt(x);
    }
    return tt_exp(e * tt_log(x));
}

EACH(neg, 1, 0, -x)
EACH(exp, 1, 0, tt_exp(x))
EACH(log, 1, 0, tt_log(x))
EACH(sqrt, 1, 0, tt_sqrt(x))
EACH(sqrt_vjp, 2, 0, g / (2.0f * x))
EACH(abs, 1, 0, tt_abs(x))
EACH(abs_vjp, 2, 0, g *sign(x))
EACH(tanh, 1, 0, tt_tanh(x))
EACH(tanh_vjp, 2, 0, g *(1.0f - x * x))
EACH(sigmoid, 1, 0, tt_logistic(x))
EACH(sigmoid_vjp, 2, 0, g *(x * (1.0f - x)))
/* A NaN passes; a gradient is a product, not a choice, as through the packed forms. */
EACH(relu, 1, 0, x > 0.0f || x != x ? x : 0.0f)
EACH(relu_vjp, 2, 0, g *(x > 0.0f ? 1.0f : 0.0f))
EACH(relu6, 1, 0, x > 6.0f ? 6.0f : x < 0.0f ? 0.0f : x)
EACH(relu6_vjp, 2, 0, g *(x > 0.0f && x < 6.0f ? 1.0f : 0.0f))
EACH(silu, 1, 0, x *tt_logistic(x))
EACH(silu_vjp, 2, 0, g *silu_slope(x))
EACH(gelu, 1, 0, 0.5f * x * (1.0f + gelu_tanh(x)))
EACH(gelu_vjp, 2, 0, g *gelu_slope(x))
EACH(leaky_relu, 1, 1, x > 0.0f ? x : x * k)
EACH(leaky_relu_vjp, 2, 1, x > 0.0f ? g : g *k)
EACH(scale, 1, 1, x *k)
EACH(pow, 1, 1, power(x, k))
EACH(pow_vjp, 2, 1, k != 0.0f ? g * (k * power(x, k - 1.0f)) : g * 0.0f)

void tt_kernel_snap(void *const *p, const int32_t *g) {
    float *y = p[0], step = tt_float((uint32_t)g[1]), grid = tt_float((uint32_t)g[2]);
    const float *x = p[1];
    tt_ix i, n = g[0];
    for (i = 0; i < n; i++) y[i] = tt_round(x[i] * step) * grid;
}
