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

static const float zeros[TT_WIDE] = {0};

static float term(float x, float g, float m, int mode) {
    float d = x - m;
    return mode == TT_SQUARE ? d * d : mode == TT_PRODUCT ? d * g : d;
}

static inline void sum_lanes(float *out, const float *x, const float *g, tt_ix rows, tt_ix step,
                             const float *m, int mode, tt_ix n) {
    float s[4][TT_WIDE];
    tt_ix begin, r, i;
    for (i = 0; i < n; i++) out[i] = 0.0f;
    for (begin = 0; begin < rows; begin += 256) {
        tt_ix end = rows - begin < 256 ? rows : begin + 256;
        for (i = 0; i < n; i++) s[0][i] = s[1][i] = s[2][i] = s[3][i] = 0.0f;
        for (r = begin; r < end; r++) {
            const float *at = x + r * step, *other = mode == TT_PRODUCT ? g + r * step : at;
            float *sum = s[r & 3];
            for (i = 0; i < n; i++) sum[i] += term(at[i], other[i], m[i], mode);
        }
        for (i = 0; i < n; i++) out[i] = out[i] + ((s[0][i] + s[1][i]) + (s[2][i] + s[3][i]));
    }
}

void tt_sum_rows(float *out, const float *x, const float *g, tt_ix rows, tt_ix step, const float *m,
                 int mode, tt_ix n) {
    if (!m) m = zeros;
    if (n == TT_WIDE && mode == TT_PLAIN) /* known lanes and a known term: vectors */
        sum_lanes(out, x, g, rows, step, m, TT_PLAIN, TT_WIDE);
    else if (n == TT_WIDE && mode == TT_SQUARE)
        sum_lanes(out, x, g, rows, step, m, TT_SQUARE, TT_WIDE);
    else if (n == TT_WIDE)
        sum_lanes(out, x, g, rows, step, m, TT_PRODUCT, TT_WIDE);
    else
        sum_lanes(out, x, g, rows, step, m, mode, n);
}

static float rstd_of(float var, float eps) { return 1.0f / tt_sqrt(var + eps); }

static tt_ix lanes_of(tt_ix k, tt_ix c) { return c - k < TT_WIDE ? c - k : TT_WIDE; }

/* ------------------------------------------------------------------ batch norm */

static inline void scale_lanes(float *y, const float *x, tt_ix rows, tt_ix step, const float *m,
                               const float *s, const float *b, tt_ix n) {
    tt_ix r, i;
    for (r = 0; r < rows; r++, y += step, x += step)
        for (i = 0; i < n; i++) y[i] = (x[i] - m[i]) * s[i] + b[i];
}

/* y = (x - m) * s + b over rows, for n <= TT_WIDE channels. */
static void scale_rows(float *y, const float *x, tt_ix rows, tt_ix step, const float *m,
                       const float *s, const float *b, tt_ix n) {
    if (n == TT_WIDE)
        scale_lanes(y, x, rows, step, m, s, b, TT_WIDE);
    else
        scale_lanes(y, x, rows, step, m, s, b, n);
}

static void normed(float *y, const float *x, const float *gamma, const float *beta,
                   const float *mean, const float *var, const int32_t *g) {
    tt_ix i, k, n, c = g[1];
    float slope[TT_WIDE], eps = tt_float((uint32_t)g[2]);
    for (k = 0; k < c; k += n) {
        n = lanes_of(k, c);
        for (i = 0; i < n; i++) {
            slope[i] = rstd_of(var[k + i], eps);
            if (gamma) slope[i] = slope[i] * gamma[k + i];
        }
        scale_rows(y + k, x + k, g[0], c, mean + k, slope, beta ? beta + k : zeros, n);
    }
}

void tt_kernel_batch_norm(void *const *p, const int32_t *g) {
    float *mean = p[1], *var = p[2], count = (float)g[0];
    const float *x = p[3];
    tt_ix k, i, n, c = g[1];
    for (k = 0; k < c; k += n) {
        n = lanes_of(k, c);
        tt_sum_rows(mean + k, x + k, 0, g[0], c, 0, TT_PLAIN, n);
        for (i = k; i < k + n; i++) mean[i] = mean[i] / count;
        tt_sum_rows(var + k, x + k, 0, g[0], c, mean + k, TT_SQUARE, n);
        for (i = k; i < k + n; i++) var[i] = var[i] / count;
    }
    normed(p[0], x, p[4], p[5], mean, var, g);
}

void tt_kernel_batch_norm_vjp_params(void *const *p, const int32_t *g) {
    float *dgamma = p[0], *dbeta = p[1], eps = tt_float((uint32_t)g[2]);
    const float *from = p[2], *x = p[3], *mean = p[4], *var = p[5];
    tt_ix k, i, n, c = g[1];
    for (k = 0; k < c; k += n) {
        n = lanes_of(k, c);
        if (dbeta) tt_sum_rows(dbeta + k, from + k, 0, g[0], c, 0, TT_PLAIN, n);
        if (dgamma) {
            tt_sum_rows(dgamma + k, x + k, from + k, g[0], c, mean + k, TT_PRODUCT, n);
            for (i = k; i < k + n; i++) dgamma[i] = dgamma[i] * rstd_of(var[i], eps);
        }
    }
}

static inline void batch_lanes(float *dx, const float *from, const float *x, tt_ix rows, tt_ix step,
                               const float *m, const float *tilt, const float *middle,
                               const float *slope, tt_ix n) {
    tt_ix r, i;
    for (r = 0; r < rows; r++, dx += step, from += step, x += step) {
        for (i = 0; i < n; i++) {
            float u = (x[i] - m[i]) * tilt[i], d = from[i] - middle[i];
            dx[i] = slope[i] * (d - u);
        }
    }
}

void tt_kernel_batch_norm_vjp_x(void *const *p, const int32_t *g) {
    float *dx = p[0], count = (float)g[0], eps = tt_float((uint32_t)g[2]);
    float tilt[TT_WIDE], middle[TT_WIDE], slope[TT_WIDE];
    const float *from = p[1], *x = p[2], *mean = p[3], *var = p[4], *gamma = p[5];
    const float *dgamma = p[6], *dbeta = p[7];
    tt_ix k, i, n, c = g[1];
    for (k = 0; k < c; k += n) {
        n = lanes_of(k, c);
        for (i = 0; i < n; i++) {
            float rstd = rstd_of(var[k + i], eps);
            slope[i] = gamma ? rstd * gamma[k + i] : rstd;
            middle[i] = dbeta[k + i] / count;
            tilt[i] = rstd * dgamma[k + i] / count;
        }
        if (n == TT_WIDE)
            batch_lanes(dx + k, from + k, x + k, g[0], c, mean + k, tilt, middle, slope, TT_WIDE);
        else
            batch_lanes(dx + k, from + k, x + k, g[0], c, mean + k, tilt, middle, slope, n);
    }
}

void tt_kernel_batch_norm_frozen(void *const *p, const int32_t *g) {
    normed(p[0], p[1], p[2], p[3], p[4], p[5], g);
}

void tt_kernel_batch_norm_frozen_vjp_x(void *const *p, const int32_t *g) {
    float *dx = p[0], slope[TT_WIDE], eps = tt_float((uint32_t)g[2]);
    const float *from = p[1], *gamma = p[2], *var = p[3];
    tt_ix r, k, i, n, rows = g[0], c = g[1];
    for (k = 0; k < c; k += n) {
        n = lanes_of(k, c);
        for (i = 0; i < n; i++) {
            slope[i] = rstd_of(var[k + i], eps);
            if (gamma) slope[i] = slope[i] * gamma[k + i];
        }
        for (r = 0; r < rows; r++)
            for (i = 0; i < n; i++) dx[r * c + k + i] = from[r * c + k + i] * slope[i];
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
    float *mean = p[1], *var = p[2], slope[TT_WIDE], means[TT_WIDE];
    const float *gamma = p[4], *beta = p[5];
    tt_ix k, i, j, n;
    for (k = 0; k < s.images * s.groups; k++) {
        tt_ix first = k % s.groups * s.channels, start = k / s.groups * s.pixels * s.c + first;
        const float *x = (const float *)p[3] + start;
        float *y = (float *)p[0] + start, m = sum_group(&s, x, 0.0f, 0) / s.count;
        float v = sum_group(&s, x, m, 1) / s.count, r = rstd_of(v, s.eps);
        mean[k] = m, var[k] = v;
        for (i = 0; i < s.channels; i += n) {
            n = lanes_of(i, s.channels);
            for (j = 0; j < n; j++) {
                slope[j] = gamma ? r * gamma[first + i + j] : r;
                means[j] = m;
            }
            scale_rows(y + i, x + i, s.pixels, s.c, means, slope,
                       beta ? beta + first + i : zeros, n);
        }
    }
}

void tt_kernel_group_norm_vjp_params(void *const *p, const int32_t *g) {
    groups s = groups_of(g);
    float *dgamma = p[0], *dbeta = p[1], means[TT_WIDE], sums[TT_WIDE], slope[TT_WIDE];
    float middle[TT_WIDE];
    const float *mean = p[4], *var = p[5];
    tt_ix k, i, n, image;
    for (k = 0; k < s.c; k += n) {
        n = lanes_of(k, s.c);
        for (i = 0; i < n; i++) slope[i] = middle[i] = 0.0f;
        for (image = 0; image < s.images; image++) {
            tt_ix at = image * s.pixels * s.c + k, group = image * s.groups;
            const float *from = (const float *)p[2] + at, *x = (const float *)p[3] + at;
            for (i = 0; i < n; i++) means[i] = mean[group + (k + i) / s.channels];
            tt_sum_rows(sums, x, from, s.pixels, s.c, means, TT_PRODUCT, n);
            for (i = 0; i < n; i++)
                slope[i] += sums[i] * rstd_of(var[group + (k + i) / s.channels], s.eps);
            tt_sum_rows(sums, from, 0, s.pixels, s.c, 0, TT_PLAIN, n);
            for (i = 0; i < n; i++) middle[i] += sums[i];
        }
        for (i = 0; i < n; i++) {
            if (dgamma) dgamma[k + i] = slope[i];
            if (dbeta) dbeta[k + i] = middle[i];
        }
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
