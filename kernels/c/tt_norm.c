/* Batch norm and group norm, forward and gradients, channels last. Orders of the sums:

     over rows      as tt_rows.h has it, for each channel
     over a group   channel k of the group goes to sum k % 8, each from +0: channels 0 to 7 over all
                    pixels ascending, then 8 to 15, ...; the eight meet as
                    ((0+4)+(2+6)) + ((1+5)+(3+7)).

   Variances take two passes. The group norm's parameter gradients add, from +0 and image by image,
   the sum over its pixels (the first order) times its 1 / sqrt(var + eps). */
#include "tt_kernels.h"
#include "tt_math.h"
#include "tt_rows.h"

static float term(const float *x, const float *g, float m, int mode) {
    float d = *x - m;
    return mode == TT_SQUARE ? d * d : mode == TT_PRODUCT ? d * *g : d;
}

float tt_sum_rows(const float *x, const float *g, tt_ix rows, tt_ix step, float m, int mode) {
    float total = 0.0f, s[4];
    tt_ix begin, r, g_step = mode == TT_PRODUCT ? step : 0;
    for (begin = 0; begin < rows; begin += 256) {
        tt_ix end = rows - begin < 256 ? rows : begin + 256;
        s[0] = s[1] = s[2] = s[3] = 0.0f;
        for (r = begin; r < end; r++) s[r & 3] += term(x + r * step, g ? g + r * g_step : x, m, mode);
        total = total + ((s[0] + s[1]) + (s[2] + s[3]));
    }
    return total;
}

static float rstd_of(float var, float eps) { return 1.0f / tt_sqrt(var + eps); }

/* ------------------------------------------------------------------ batch norm */

static void normed(float *y, const float *x, const float *gamma, const float *beta,
                   const float *mean, const float *var, const int32_t *g) {
    tt_ix r, k, rows = g[0], c = g[1];
    float eps = tt_float((uint32_t)g[2]);
    for (k = 0; k < c; k++) {
        float s = rstd_of(var[k], eps), b = beta ? beta[k] : 0.0f, m = mean[k];
        if (gamma) s = s * gamma[k];
        for (r = k; r < rows * c; r += c) y[r] = (x[r] - m) * s + b;
    }
}

void tt_kernel_batch_norm(void *const *p, const int32_t *g) {
    float *mean = p[1], *var = p[2], count = (float)g[0];
    const float *x = p[3];
    tt_ix k, c = g[1];
    for (k = 0; k < c; k++) {
        mean[k] = tt_sum_rows(x + k, 0, g[0], c, 0.0f, TT_PLAIN) / count;
        var[k] = tt_sum_rows(x + k, 0, g[0], c, mean[k], TT_SQUARE) / count;
    }
    normed(p[0], x, p[4], p[5], mean, var, g);
}

void tt_kernel_batch_norm_vjp_params(void *const *p, const int32_t *g) {
    float *dgamma = p[0], *dbeta = p[1], eps = tt_float((uint32_t)g[2]);
    const float *from = p[2], *x = p[3], *mean = p[4], *var = p[5];
    tt_ix k, c = g[1];
    for (k = 0; k < c; k++) {
        float r = rstd_of(var[k], eps);
        if (dbeta) dbeta[k] = tt_sum_rows(from + k, 0, g[0], c, 0.0f, TT_PLAIN);
        if (dgamma) dgamma[k] = tt_sum_rows(x + k, from + k, g[0], c, mean[k], TT_PRODUCT) * r;
    }
}

void tt_kernel_batch_norm_vjp_x(void *const *p, const int32_t *g) {
    float *dx = p[0], count = (float)g[0], eps = tt_float((uint32_t)g[2]);
    const float *from = p[1], *x = p[2], *mean = p[3], *var = p[4], *gamma = p[5];
    const float *dgamma = p[6], *dbeta = p[7];
    tt_ix r, k, rows = g[0], c = g[1];
    for (k = 0; k < c; k++) {
        float rstd = rstd_of(var[k], eps), slope = gamma ? rstd * gamma[k] : rstd;
        float middle = dbeta[k] / count, tilt = rstd * dgamma[k] / count, m = mean[k];
        for (r = k; r < rows * c; r += c) {
            float u = (x[r] - m) * tilt, d = from[r] - middle;
            dx[r] = slope * (d - u);
        }
    }
}

void tt_kernel_batch_norm_frozen(void *const *p, const int32_t *g) {
    normed(p[0], p[1], p[2], p[3], p[4], p[5], g);
}

void tt_kernel_batch_norm_frozen_vjp_x(void *const *p, const int32_t *g) {
    float *dx = p[0], eps = tt_float((uint32_t)g[2]);
    const float *from = p[1], *gamma = p[2], *var = p[3];
    tt_ix r, k, rows = g[0], c = g[1];
    for (k = 0; k < c; k++) {
        float s = rstd_of(var[k], eps);
        if (gamma) s = s * gamma[k];
        for (r = k; r < rows * c; r += c) dx[r] = from[r] * s;
    }
}

/* ------------------------------------------------------------------ group norm */

typedef struct {
    tt_ix images, pixels, c, groups, channels;
    float eps, count;
} groups;

static groups groups_of(const int32_t *g) {
    groups s;
    s.images = g[0], s.pixels = g[1], s.c = g[2], s.groups = g[3];
    s.channels = s.c / s.groups;
    s.eps = tt_float((uint32_t)g[4]), s.count = (float)(s.pixels * s.channels);
    return s;
}

static float total8(const float *s) {
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* The sum over a group of (x - m), or of its square. */
static float sum_group(const groups *s, const float *x, float m, int square) {
    float sums[8] = {0};
    tt_ix k, i, at;
    for (k = 0; k < s->channels; k += 8) {
        tt_ix n = s->channels - k < 8 ? s->channels - k : 8;
        for (at = k; at < s->pixels * s->c; at += s->c) {
            for (i = 0; i < n; i++) {
                float d = x[at + i] - m;
                sums[i] += square ? d * d : d;
            }
        }
    }
    return total8(sums);
}

void tt_kernel_group_norm(void *const *p, const int32_t *g) {
    groups s = groups_of(g);
    float *mean = p[1], *var = p[2];
    const float *gamma = p[4], *beta = p[5];
    tt_ix k, i, at;
    for (k = 0; k < s.images * s.groups; k++) {
        tt_ix first = k % s.groups * s.channels, start = k / s.groups * s.pixels * s.c + first;
        const float *x = (const float *)p[3] + start;
        float *y = (float *)p[0] + start, m = sum_group(&s, x, 0.0f, 0) / s.count;
        float v = sum_group(&s, x, m, 1) / s.count, r = rstd_of(v, s.eps);
        mean[k] = m, var[k] = v;
        for (i = 0; i < s.channels; i++) {
            float slope = gamma ? r * gamma[first + i] : r, b = beta ? beta[first + i] : 0.0f;
            for (at = i; at < s.pixels * s.c; at += s.c) y[at] = (x[at] - m) * slope + b;
        }
    }
}

void tt_kernel_group_norm_vjp_params(void *const *p, const int32_t *g) {
    groups s = groups_of(g);
    float *dgamma = p[0], *dbeta = p[1];
    const float *mean = p[4], *var = p[5];
    tt_ix k, image;
    for (k = 0; k < s.c; k++) {
        float slope = 0.0f, middle = 0.0f;
        for (image = 0; image < s.images; image++) {
            tt_ix at = image * s.pixels * s.c + k, group = image * s.groups + k / s.channels;
            const float *from = (const float *)p[2] + at, *x = (const float *)p[3] + at;
            float r = rstd_of(var[group], s.eps);
            slope += tt_sum_rows(x, from, s.pixels, s.c, mean[group], TT_PRODUCT) * r;
            middle += tt_sum_rows(from, 0, s.pixels, s.c, 0.0f, TT_PLAIN);
        }
        if (dgamma) dgamma[k] = slope;
        if (dbeta) dbeta[k] = middle;
    }
}

void tt_kernel_group_norm_vjp_x(void *const *p, const int32_t *g) {
    groups s = groups_of(g);
    const float *mean = p[3], *var = p[4], *gamma = p[5];
    tt_ix k, i, j, at;
    for (k = 0; k < s.images * s.groups; k++) {
        tt_ix first = k % s.groups * s.channels, start = k / s.groups * s.pixels * s.c + first;
        const float *from = (const float *)p[1] + start, *x = (const float *)p[2] + start;
        const float *factors = gamma ? gamma + first : 0;
        float *dx = (float *)p[0] + start, totals[8] = {0}, tilts[8] = {0}, shift, slope;
        float m = mean[k], r = rstd_of(var[k], s.eps);
        for (i = 0; i < s.channels; i += 8) {
            tt_ix n = s.channels - i < 8 ? s.channels - i : 8;
            for (at = i; at < s.pixels * s.c; at += s.c) {
                for (j = 0; j < n; j++) {
                    float d = factors ? from[at + j] * factors[i + j] : from[at + j];
                    totals[j] += d;
                    tilts[j] += d * (x[at + j] - m);
                }
            }
        }
        shift = total8(totals) / s.count, slope = total8(tilts) * r / s.count * r;
        for (i = 0; i < s.channels; i++) {
            for (at = i; at < s.pixels * s.c; at += s.c) {
                float d = factors ? from[at] * factors[i] : from[at], u = x[at] - m;
                dx[at] = r * ((d - shift) - u * slope);
            }
        }
    }
}

void tt_kernel_running_average(void *const *p, const int32_t *g) {
    float *y = p[0], momentum = tt_float((uint32_t)g[1]), correction = tt_float((uint32_t)g[2]);
    const float *old = p[1], *new_ = p[2];
    tt_ix i, n = g[0];
    for (i = 0; i < n; i++) y[i] = old[i] + momentum * (correction * new_[i] - old[i]);
}
