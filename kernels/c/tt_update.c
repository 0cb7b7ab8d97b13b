/* The update: optimizer steps, clipping and the guard. Each element is one expression, written as
   the reference has it; square_sum gives element k to sum k % 8, each from +0, and the eight meet
   as ((0+4)+(2+6)) + ((1+5)+(3+7)), behind the stored value. */
#include "tt_kernels.h"
#include "tt_math.h"

void tt_kernel_decay(void *const *p, const int32_t *g) {
    float *y = p[0], momentum = tt_float((uint32_t)g[1]), decay = tt_float((uint32_t)g[2]);
    const float *v = p[1], *weights = p[2];
    tt_ix i, n = g[0];
    for (i = 0; i < n; i++) {
        float value = v[i] * momentum;
        y[i] = weights ? value + decay * weights[i] : value;
    }
}

void tt_kernel_sgd(void *const *p, const int32_t *g) {
    float *y = p[0], rate = *(const float *)p[3];
    const float *weights = p[1], *grad = p[2];
    tt_ix i, n = g[0];
    for (i = 0; i < n; i++) y[i] = weights[i] - rate * grad[i];
}

void tt_kernel_nesterov(void *const *p, const int32_t *g) {
    float *y = p[0], rate = *(const float *)p[4], momentum = tt_float((uint32_t)g[1]);
    const float *weights = p[1], *grad = p[2], *v = p[3];
    tt_ix i, n = g[0];
    for (i = 0; i < n; i++) y[i] = weights[i] - rate * (grad[i] + momentum * v[i]);
}

/* Outs: parameter, first and second moment; then the same as ins, the gradient, the rate, and the
   corrections (1 - b1^t, 1 - b2^t). */
void tt_kernel_adam(void *const *p, const int32_t *g) {
    float *weights1 = p[0], *first1 = p[1], *second1 = p[2];
    const float *weights = p[3], *first = p[4], *second = p[5], *grad = p[6], *corrections = p[8];
    float b1 = tt_float((uint32_t)g[1]), c1 = tt_float((uint32_t)g[2]);
    float b2 = tt_float((uint32_t)g[3]), c2 = tt_float((uint32_t)g[4]);
    float eps = tt_float((uint32_t)g[5]), rate = *(const float *)p[7];
    float keep = 1.0f - rate * tt_float((uint32_t)g[6]), scale = rate / corrections[0];
    tt_ix i, n = g[0];
    for (i = 0; i < n; i++) {
        float d = grad[i], m = b1 * first[i] + c1 * d, v = b2 * second[i] + c2 * d * d;
        float step = scale * m / (tt_sqrt(v / corrections[1]) + eps);
        first1[i] = m;
        second1[i] = v;
        weights1[i] = weights[i] * keep - step;
    }
}

void tt_kernel_add_scaled(void *const *p, const int32_t *g) {
    float *y = p[0], factor = tt_float((uint32_t)g[1]);
    const float *grad = p[1], *weights = p[2];
    tt_ix i, n = g[0];
    for (i = 0; i < n; i++) y[i] = grad[i] + factor * weights[i];
}

void tt_kernel_square_sum(void *const *p, const int32_t *g) {
    float *y = p[0], s[8] = {0}, total;
    const float *grad = p[1];
    tt_ix i, n = g[0];
    for (i = 0; i < n; i++) s[i & 7] += grad[i] * grad[i];
    total = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    *y = g[1] ? *y + total : total;
}

void tt_kernel_clip_factor(void *const *p, const int32_t *g) {
    float norm = tt_sqrt(*(const float *)p[1]), factor;
    if (norm < 1e-12f) norm = 1e-12f;
    factor = tt_float((uint32_t)g[0]) / norm;
    *(float *)p[0] = factor > 1.0f ? 1.0f : factor;
}

/* 0, or 1 + the position of the first operand with a NaN or an infinity. */
void tt_kernel_check_finite(void *const *p, const int32_t *g) {
    uint32_t *flag = p[0];
    tt_ix k, i;
    *flag = 0u;
    for (k = 1; k <= g[0] && !*flag; k++) {
        const float *x = p[k];
        int bad = 0; /* so that it runs in lanes */
        for (i = 0; i < g[k]; i++) bad |= !tt_is_finite(x[i]);
        if (bad) *flag = (uint32_t)k;
    }
}

/* 0, or 1 + the position of the first count above its capacity. */
void tt_kernel_check_capacity(void *const *p, const int32_t *g) {
    uint32_t *flag = p[0];
    tt_ix k;
    *flag = 0u;
    for (k = g[0]; k > 0; k--)
        if (*(const uint32_t *)p[k] > (uint32_t)g[k]) *flag = (uint32_t)k;
}
