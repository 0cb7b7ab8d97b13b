/* Batch norm and group norm, forward and gradients, channels last. Orders of the sums:

     over rows      as tt_rows.h has it, for each channel
     over a group   channel k of the group goes to sum k % 8, each from +0: channels 0 to 7 over all
                    pixels ascending, then 8 to 15, ...; the eight meet as
                    ((0+4)+(2+6)) + ((1+5)+(3+7)).

   Variances take two passes. The group norm's parameter gradients add, from +0 and image by image,
   the sum over its pixels (the first order) times its 1 / sqrt(var + eps). */
#include "tt_lanes.h"
#include "tt_rows.h"

ALWAYS wide term(const float *x, const float *g, wide m, const int mode, const int cut, tt_ix n) {
    const wide d = load(x, cut, n) - m;
    if (mode == TT_SQUARE) return d * d;
    if (mode == TT_PRODUCT) return d * load(g, cut, n);
    return d;
}

ALWAYS wide sum_block(const float *x, const float *g, tt_ix rows, tt_ix step, wide m, const int mode,
                      const int cut, tt_ix n) {
    const wide none = {0};
    wide s0 = none, s1 = none, s2 = none, s3 = none;
    for (; rows >= 4; rows -= 4, x += 4 * step, g += 4 * step) {
        s0 += term(x, g, m, mode, cut, n);
        s1 += term(x + step, g + step, m, mode, cut, n);
        s2 += term(x + 2 * step, g + 2 * step, m, mode, cut, n);
        s3 += term(x + 3 * step, g + 3 * step, m, mode, cut, n);
    }
    if (rows > 0) s0 += term(x, g, m, mode, cut, n);
    if (rows > 1) s1 += term(x + step, g + step, m, mode, cut, n);
    if (rows > 2) s2 += term(x + 2 * step, g + 2 * step, m, mode, cut, n);
    return (s0 + s1) + (s2 + s3);
}

ALWAYS void sum_rows(float *out, const float *x, const float *g, tt_ix rows, tt_ix step,
                     const float *m, const int mode, const int cut, tt_ix n) {
    const wide none = {0}, middle = m ? load(m, cut, n) : none;
    wide total = none;
    for (; rows > 0; rows -= 256, x += 256 * step, g += 256 * step)
        total += sum_block(x, g, rows < 256 ? rows : 256, step, middle, mode, cut, n);
    store(out, total, cut, n);
}

#define SUM_ROWS(mode)                                                                             \
    if (n < LANES)                                                                                 \
        sum_rows(out, x, g, rows, step, m, mode, 1, n);                                            \
    else                                                                                           \
        sum_rows(out, x, g, rows, step, m, mode, 0, n)

void tt_sum_rows(float *out, const float *x, const float *g, tt_ix rows, tt_ix step, const float *m,
                 int mode, tt_ix n) {
    if (!g) g = x;
    if (mode == TT_PLAIN)
        SUM_ROWS(TT_PLAIN);
    else if (mode == TT_SQUARE)
        SUM_ROWS(TT_SQUARE);
    else
        SUM_ROWS(TT_PRODUCT);
}

static float rstd_of(float var, float eps) { return 1.0f / tt_sqrt(var + eps); }

/* ------------------------------------------------------------------ batch norm */

enum { NEAR = 64 }; /* rows whose channels are all done before the next rows: pages stay near */

/* Runs `each(.., cut, n)` for every vector of channels k, all of some rows before the next rows. */
#define FOR_CHANNELS(each, c)                                                                      \
    for (k = 0; k < c; k += LANES) {                                                               \
        if (c - k >= LANES)                                                                        \
            each(0, LANES);                                                                        \
        else                                                                                       \
            each(1, c - k);                                                                        \
    }

/* `by` times the factors from p on, if there are any. */
ALWAYS wide times(const float *p, wide by, const int cut, tt_ix n) {
    if (p) by = by * load(p, cut, n);
    return by;
}

ALWAYS wide load_or_0(const float *p, const int cut, tt_ix n) {
    wide x = {0};
    if (p) x = load(p, cut, n);
    return x;
}

ALWAYS wide rstd_wide(const float *var, float eps, const int cut, tt_ix n) {
    return splat(1.0f) / root(load(var, cut, n) + splat(eps));
}

/* y = (x - m) * s + b over rows. */
ALWAYS void scale_rows(float *y, const float *x, tt_ix rows, tt_ix step, wide m, wide s, wide b,
                       const int cut, tt_ix n) {
    for (; rows > 0; rows--, y += step, x += step) store(y, (load(x, cut, n) - m) * s + b, cut, n);
}

ALWAYS void normed_lanes(float *y, const float *x, tt_ix rows, tt_ix c, const float *gamma,
                         const float *beta, const float *mean, const float *var, float eps,
                         const int cut, tt_ix n) {
    const wide s = times(gamma, rstd_wide(var, eps, cut, n), cut, n);
    scale_rows(y, x, rows, c, load(mean, cut, n), s, load_or_0(beta, cut, n), cut, n);
}

static void normed(float *y, const float *x, const float *gamma, const float *beta,
                   const float *mean, const float *var, const int32_t *g) {
    tt_ix k, first, rows, c = g[1];
    const float eps = tt_float((uint32_t)g[2]);
    for (first = 0; first < g[0]; first += NEAR, y += NEAR * c, x += NEAR * c) {
        rows = g[0] - first < NEAR ? g[0] - first : NEAR;
#define NORMED(cut, n)                                                                             \
    normed_lanes(y + k, x + k, rows, c, gamma ? gamma + k : 0, beta ? beta + k : 0, mean + k,      \
                 var + k, eps, cut, n)
        FOR_CHANNELS(NORMED, c)
    }
}

static tt_ix lanes_of(tt_ix k, tt_ix c) { return c - k < LANES ? c - k : LANES; }

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
    float *dgamma = p[0], *dbeta = p[1];
    const float *from = p[2], *x = p[3], *mean = p[4], *var = p[5], eps = tt_float((uint32_t)g[2]);
    tt_ix k, c = g[1];
    for (k = 0; k < c; k += LANES) {
        tt_ix n = lanes_of(k, c);
        if (dbeta) tt_sum_rows(dbeta + k, from + k, 0, g[0], c, 0, TT_PLAIN, n);
        if (dgamma) tt_sum_rows(dgamma + k, x + k, from + k, g[0], c, mean + k, TT_PRODUCT, n);
    }
#define TIMES_RSTD(cut, n)                                                                         \
    store(dgamma + k, load(dgamma + k, cut, n) * rstd_wide(var + k, eps, cut, n), cut, n)
    if (dgamma) FOR_CHANNELS(TIMES_RSTD, c)
}

ALWAYS void batch_lanes(float *dx, const float *from, const float *x, tt_ix rows, tt_ix step,
                        wide m, wide tilt, wide middle, wide slope, const int cut, tt_ix n) {
    for (; rows > 0; rows--, dx += step, from += step, x += step) {
        const wide u = (load(x, cut, n) - m) * tilt, d = load(from, cut, n) - middle;
        store(dx, slope * (d - u), cut, n);
    }
}

void tt_kernel_batch_norm_vjp_x(void *const *p, const int32_t *g) {
    float *dx = p[0], eps = tt_float((uint32_t)g[2]);
    const float *from = p[1], *x = p[2], *mean = p[3], *var = p[4], *gamma = p[5];
    const float *dgamma = p[6], *dbeta = p[7];
    const wide count = splat((float)g[0]);
    tt_ix k, first, rows, c = g[1];
    for (first = 0; first < g[0]; first += NEAR, dx += NEAR * c, from += NEAR * c, x += NEAR * c) {
        rows = g[0] - first < NEAR ? g[0] - first : NEAR;
#define GRADIENT(cut, n)                                                                           \
    do {                                                                                           \
        const wide r = rstd_wide(var + k, eps, cut, n), s = load(dbeta + k, cut, n) / count;       \
        const wide tilt = r * load(dgamma + k, cut, n) / count;                                    \
        batch_lanes(dx + k, from + k, x + k, rows, c, load(mean + k, cut, n), tilt, s,             \
                    times(gamma ? gamma + k : 0, r, cut, n), cut, n);                             \
    } while (0)
        FOR_CHANNELS(GRADIENT, c)
    }
}

void tt_kernel_batch_norm_frozen(void *const *p, const int32_t *g) {
    normed(p[0], p[1], p[2], p[3], p[4], p[5], g);
}

ALWAYS void frozen_lanes(float *dx, const float *from, tt_ix rows, tt_ix step, wide s, const int cut,
                         tt_ix n) {
    for (; rows > 0; rows--, dx += step, from += step) store(dx, load(from, cut, n) * s, cut, n);
}

void tt_kernel_batch_norm_frozen_vjp_x(void *const *p, const int32_t *g) {
    float *dx = p[0], eps = tt_float((uint32_t)g[2]);
    const float *from = p[1], *gamma = p[2], *var = p[3];
    tt_ix k, c = g[1];
#define FROZEN(cut, n)                                                                             \
    do {                                                                                           \
        const wide r = rstd_wide(var + k, eps, cut, n);                                            \
        frozen_lanes(dx + k, from + k, g[0], c, times(gamma ? gamma + k : 0, r, cut, n), cut, n);  \
    } while (0)
    FOR_CHANNELS(FROZEN, c)
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

#ifdef TT_VECTORS
/* Groups of at most eight channels: each channel is a sum of its own, so that lanes run over the
   channels of many groups at once. The same sums as below, and the same bits. */

enum { TOGETHER = 64 }; /* channels, of whole groups, that are done at a time */

static tt_ix whole_groups(const groups *s, tt_ix first) {
    tt_ix n = TOGETHER / s->channels * s->channels;
    return s->c - first < n ? s->c - first : n;
}

/* Of n channels' sums the group's, divided by its count. */
static void meet(const groups *s, float *out, const float *sums, tt_ix n) {
    tt_ix k, i;
    for (k = 0; k < n; k += s->channels) {
        float own[8] = {0};
        for (i = 0; i < s->channels; i++) own[i] = sums[k + i];
        *out++ = total8(own) / s->count;
    }
}

/* A number of each group, for each of its channels. */
static void spread(const groups *s, float *out, const float *of, tt_ix n) {
    tt_ix k, i;
    for (k = 0; k < n; k += s->channels, of++)
        for (i = 0; i < s->channels; i++) out[k + i] = *of;
}

ALWAYS void sum_lanes(float *out, const float *x, tt_ix rows, tt_ix step, wide m, const int square,
                      const int cut, tt_ix n) {
    wide total = {0};
    for (; rows > 0; rows--, x += step) {
        const wide d = load(x, cut, n) - m;
        if (square)
            total += d * d;
        else
            total += d;
    }
    store(out, total, cut, n);
}

static void norm_together(const groups *s, float *y, const float *x, const float *gamma,
                          const float *beta, float *mean, float *var, tt_ix c) {
    float m[TOGETHER], r[TOGETHER], sums[TOGETHER] = {0};
    tt_ix k;
#define PLAIN(cut, n) sum_lanes(sums + k, x + k, s->pixels, s->c, splat(0.0f), 0, cut, n)
    FOR_CHANNELS(PLAIN, c)
    meet(s, mean, sums, c), spread(s, m, mean, c);
#define SQUARES(cut, n)                                                                            \
    sum_lanes(sums + k, x + k, s->pixels, s->c, load(m + k, cut, n), 1, cut, n)
    FOR_CHANNELS(SQUARES, c)
    meet(s, var, sums, c), spread(s, r, var, c);
    for (k = 0; k < c; k++) r[k] = rstd_of(r[k], s->eps);
#define SCALED(cut, n)                                                                             \
    scale_rows(y + k, x + k, s->pixels, s->c, load(m + k, cut, n),                                 \
               times(gamma ? gamma + k : 0, load(r + k, cut, n), cut, n),                          \
               load_or_0(beta ? beta + k : 0, cut, n), cut, n)
    FOR_CHANNELS(SCALED, c)
}

ALWAYS void tilt_lanes(float *totals, float *tilts, const float *from, const float *x, tt_ix rows,
                       tt_ix step, wide m, wide factor, const int cut, tt_ix n) {
    wide total = {0}, tilt = {0};
    for (; rows > 0; rows--, from += step, x += step) {
        const wide d = load(from, cut, n) * factor;
        total += d;
        tilt += d * (load(x, cut, n) - m);
    }
    store(totals, total, cut, n), store(tilts, tilt, cut, n);
}

ALWAYS void group_lanes(float *dx, const float *from, const float *x, tt_ix rows, tt_ix step,
                        wide m, wide factor, wide r, wide shift, wide slope, const int cut,
                        tt_ix n) {
    for (; rows > 0; rows--, dx += step, from += step, x += step) {
        const wide d = load(from, cut, n) * factor, u = load(x, cut, n) - m;
        store(dx, r * ((d - shift) - u * slope), cut, n);
    }
}

/* What the gradient of each group is moved by, and by how much of x, for each of its channels. */
static void slopes(const groups *s, float *shift, float *slope, const float *totals,
                   const float *tilts, const float *r, tt_ix n) {
    tt_ix k, i;
    for (k = 0; k < n; k += s->channels) {
        float total[8] = {0}, tilt[8] = {0}, moved, tilted;
        for (i = 0; i < s->channels; i++) total[i] = totals[k + i], tilt[i] = tilts[k + i];
        moved = total8(total) / s->count, tilted = total8(tilt) * r[k] / s->count * r[k];
        for (i = 0; i < s->channels; i++) shift[k + i] = moved, slope[k + i] = tilted;
    }
}

static void vjp_together(const groups *s, float *dx, const float *from, const float *x,
                         const float *mean, const float *var, const float *gamma, tt_ix c) {
    float m[TOGETHER], r[TOGETHER], one[TOGETHER], totals[TOGETHER] = {0}, tilts[TOGETHER] = {0};
    float shift[TOGETHER], slope[TOGETHER];
    tt_ix k;
    spread(s, m, mean, c), spread(s, r, var, c);
    for (k = 0; k < c; k++) r[k] = rstd_of(r[k], s->eps), one[k] = 1.0f;
    if (!gamma) gamma = one;
#define TILTS(cut, n)                                                                              \
    tilt_lanes(totals + k, tilts + k, from + k, x + k, s->pixels, s->c, load(m + k, cut, n),       \
               load(gamma + k, cut, n), cut, n)
    FOR_CHANNELS(TILTS, c)
    slopes(s, shift, slope, totals, tilts, r, c);
#define GROUP_GRADIENT(cut, n)                                                                     \
    group_lanes(dx + k, from + k, x + k, s->pixels, s->c, load(m + k, cut, n),                     \
                load(gamma + k, cut, n), load(r + k, cut, n), load(shift + k, cut, n),             \
                load(slope + k, cut, n), cut, n)
    FOR_CHANNELS(GROUP_GRADIENT, c)
}
#endif

void tt_kernel_group_norm(void *const *p, const int32_t *g) {
    groups s = groups_of(g);
    float *mean = p[1], *var = p[2];
    const float *gamma = p[4], *beta = p[5];
    tt_ix k, at;
#ifdef TT_VECTORS
    if (s.channels <= 8) {
        for (at = 0; at < s.images; at++) {
            for (k = 0; k < s.c; k += whole_groups(&s, k)) {
                tt_ix start = at * s.pixels * s.c + k, group = at * s.groups + k / s.channels;
                norm_together(&s, (float *)p[0] + start, (const float *)p[3] + start,
                              gamma ? gamma + k : 0, beta ? beta + k : 0, mean + group, var + group,
                              whole_groups(&s, k));
            }
        }
        return;
    }
#endif
    for (at = 0; at < s.images * s.groups; at++) {
        tt_ix first = at % s.groups * s.channels, start = at / s.groups * s.pixels * s.c + first;
        const float *x = (const float *)p[3] + start, *slopes = gamma ? gamma + first : 0;
        const float *shifts = beta ? beta + first : 0;
        float *y = (float *)p[0] + start, m = sum_group(&s, x, 0.0f, 0) / s.count;
        float v = sum_group(&s, x, m, 1) / s.count, r = rstd_of(v, s.eps);
        mean[at] = m, var[at] = v;
#define GROUP_NORMED(cut, n)                                                                       \
    scale_rows(y + k, x + k, s.pixels, s.c, splat(m),                                              \
               times(slopes ? slopes + k : 0, splat(r), cut, n),                                   \
               load_or_0(shifts ? shifts + k : 0, cut, n), cut, n)
        FOR_CHANNELS(GROUP_NORMED, s.channels)
    }
}

void tt_kernel_group_norm_vjp_params(void *const *p, const int32_t *g) {
    groups s = groups_of(g);
    float *dgamma = p[0], *dbeta = p[1], means[LANES], sums[LANES];
    const float *mean = p[4], *var = p[5];
    tt_ix k, i, n, image;
    for (k = 0; k < s.c; k += n) {
        float slope[LANES] = {0}, middle[LANES] = {0};
        n = lanes_of(k, s.c);
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
#ifdef TT_VECTORS
    if (s.channels <= 8) {
        for (at = 0; at < s.images; at++) {
            for (k = 0; k < s.c; k += whole_groups(&s, k)) {
                tt_ix start = at * s.pixels * s.c + k, group = at * s.groups + k / s.channels;
                vjp_together(&s, (float *)p[0] + start, (const float *)p[1] + start,
                             (const float *)p[2] + start, mean + group, var + group,
                             gamma ? gamma + k : 0, whole_groups(&s, k));
            }
        }
        return;
    }
#endif
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
