/* Losses with their gradients, and dropout. Orders of the sums:

     cross_entropy   a row's exponentials and logits by class ascending from +0, rows ascending
                     from +0
     others          element k goes to sum k % 8, each from +0; the eight meet as
                     ((0+4)+(2+6)) + ((1+5)+(3+7)). */
#include "tt_kernels.h"
#include "tt_math.h"

/* 1 / the number of places that count. */
static float share_of(const float *mask, tt_ix n) {
    float count = 0.0f;
    tt_ix i;
    if (!mask) return 1.0f / (float)n;
    for (i = 0; i < n; i++) count += mask[i];
    return 1.0f / (count > 1.0f ? count : 1.0f);
}

static float total8(const float *s) {
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* A row's share of the loss; its gradient to d, if that is wanted, which may lie over z. */
static float row_loss(float *d, const float *z, tt_ix classes, tt_ix label, float smooth,
                      float share) {
    float top = z[0], picked, mean = 0.0f, norm = 0.0f, log_norm, hit, low;
    tt_ix c;
    for (c = 0; c < classes; c++)
        if (!(z[c] <= top)) top = z[c];
    picked = z[label] - top;
    if (smooth > 0.0f)
        for (c = 0; c < classes; c++) mean += z[c] - top;
    if (!d) {
        for (c = 0; c < classes; c++) norm += tt_exp(z[c] - top);
    } else {
        low = smooth / (float)classes;
        for (c = 0; c < classes; c++) d[c] = tt_exp(z[c] - top);
        for (c = 0; c < classes; c++) norm += d[c];
        hit = d[label];
        for (c = 0; c < classes; c++) d[c] = (d[c] / norm - low) * share;
        d[label] = (hit / norm - (1.0f - smooth + low)) * share;
    }
    log_norm = tt_log(norm);
    mean = mean / (float)classes - log_norm;
    return ((picked - log_norm) * (1.0f - smooth) + mean * smooth) * share;
}

void tt_kernel_cross_entropy(void *const *p, const int32_t *g) {
    float *d = p[1], total = 0.0f, smooth = tt_float((uint32_t)g[2]), one;
    const float *z = p[2], *mask = p[4];
    const int32_t *labels = p[3];
    tt_ix r, classes = g[1];
    one = share_of(mask, g[0]);
    for (r = 0; r < g[0]; r++) {
        float share = mask ? mask[r] * one : one;
        if (labels[r] < 0 || labels[r] >= classes) { /* no class: the guard stops at this loss */
            total = tt_float(0x7fc00000u);
            continue;
        }
        total += row_loss(d ? d + r * classes : 0, z + r * classes, classes, labels[r], smooth, share);
    }
    *(float *)p[0] = -total;
}

void tt_kernel_binary_cross_entropy_with_logits(void *const *p, const int32_t *g) {
    float *dx = p[1], sums[8] = {0}, one;
    const float *x = p[2], *targets = p[3], *mask = p[4];
    tt_ix i, n = g[0];
    one = share_of(mask, n);
    for (i = 0; i < n; i++) {
        float share = mask ? mask[i] * one : one, v = x[i], e = tt_exp(-tt_abs(v)), u = 1.0f + e;
        /* log(1 + e), where 1 + e has lost digits of e (Higham 2002, 1.14.1) */
        float tail = u == 1.0f ? e : tt_log(u) * e / (u - 1.0f);
        sums[i & 7] += ((v > 0.0f || v != v ? v : 0.0f) - v * targets[i] + tail) * share;
        if (dx) dx[i] = (tt_logistic(v) - targets[i]) * share;
    }
    *(float *)p[0] = total8(sums);
}

void tt_kernel_mse(void *const *p, const int32_t *g) {
    float *dx = p[1], sums[8] = {0}, one;
    const float *x = p[2], *targets = p[3], *mask = p[4];
    tt_ix i, n = g[0];
    one = share_of(mask, n);
    for (i = 0; i < n; i++) {
        float share = mask ? mask[i] * one : one, d = x[i] - targets[i];
        sums[i & 7] += d * d * share;
        if (dx) dx[i] = 2.0f * d * share;
    }
    *(float *)p[0] = total8(sums);
}

/* A 32-bit integer hash (lowbias32, C. Wellons 2018). */
static uint32_t mix(uint32_t h) {
    h ^= h >> 16;
    h *= 0x7FEB352Du;
    h ^= h >> 15;
    h *= 0x846CA68Bu;
    return h ^ h >> 16;
}

void tt_kernel_dropout(void *const *p, const int32_t *g) {
    float *y = p[0], factor = tt_float((uint32_t)g[3]);
    const float *x = p[1];
    const uint32_t *key = p[2];
    uint32_t least = (uint32_t)g[2], r, k, rows = (uint32_t)g[0], size = (uint32_t)g[1];
    for (r = 0; r < rows; r++) {
        uint32_t h = mix(mix(mix((r + key[2]) ^ key[0]) ^ key[1]) ^ (uint32_t)g[4]);
        for (k = 0; k < size; k++) *y++ = *x++ * (mix(h ^ k) >= least ? factor : 0.0f);
    }
}
