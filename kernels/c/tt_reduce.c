/* Reductions. Orders of the sums:

     sum, mean   from +0, the reduced axes ascending, the last one fastest; a mean is divided last.
     sum_to      leading axes as rows in the order of tt_norm.c, other axes as sum; the stored value
                 is added last, as total + stored.
     softmax     along the axis ascending, from +0. */
#include "tt_kernels.h"
#include "tt_math.h"
#include "tt_rows.h"

enum { RANK = 6 };

/* An odometer over one part of a reduction: rank, sizes, strides. */
typedef struct {
    const int32_t *sizes, *steps;
    tt_ix rank, count, at, index[RANK];
} part;

static part part_of(const int32_t *g) {
    part s = {0};
    tt_ix k;
    s.rank = g[0], s.sizes = g + 1, s.steps = s.sizes + s.rank, s.count = 1;
    for (k = 0; k < s.rank; k++) s.count *= s.sizes[k];
    return s;
}

static void forward(part *s) {
    tt_ix k;
    for (k = s->rank - 1; k >= 0; k--) {
        s->at += s->steps[k];
        if (++s->index[k] < s->sizes[k]) return;
        s->at -= s->sizes[k] * (tt_ix)s->steps[k], s->index[k] = 0;
    }
}

static float sum_of(const float *x, const int32_t *g) {
    part s = part_of(g);
    float total = 0.0f;
    tt_ix k;
    for (k = 0; k < s.count; k++, forward(&s)) total += x[s.at];
    return total;
}

/* Where the first of the largest lies; a NaN is larger than any number. */
static tt_ix largest(const float *x, const int32_t *g) {
    part s = part_of(g);
    float best = x[0];
    tt_ix k, place = 0;
    for (k = 0; k < s.count; k++, forward(&s))
        if (!(x[s.at] <= best) && best == best) best = x[s.at], place = s.at;
    return place;
}

/* Sums that lie side by side, each over the same places from x on. */
ALWAYS void sum_side_by_side(float *y, const float *x, const int32_t *reduced, tt_ix divide,
                             const int cut, tt_ix n) {
    part s = part_of(reduced);
    wide total = {0};
    tt_ix k;
    for (k = 0; k < s.count; k++, forward(&s)) total += load(x + s.at, cut, n);
    if (divide) total = total / splat((float)divide);
    store(y, total, cut, n);
}

void tt_kernel_sum(void *const *p, const int32_t *g) {
    const int32_t *reduced = g + 2 + 2 * g[1];
    part stay = part_of(g + 1);
    float *y = p[0];
    tt_ix k, i, n, side = stay.steps[stay.rank - 1] == 1 ? stay.sizes[stay.rank - 1] : 1;
    for (k = 0; k < stay.count; k += n) {
        const float *x = (const float *)p[1] + stay.at;
        n = side - k % side < LANES ? side - k % side : LANES;
        if (n == LANES)
            sum_side_by_side(y + k, x, reduced, g[0], 0, n);
        else
            sum_side_by_side(y + k, x, reduced, g[0], 1, n);
        for (i = 0; i < n; i++) forward(&stay);
    }
}

void tt_kernel_max(void *const *p, const int32_t *g) {
    const int32_t *reduced = g + 1 + 2 * g[0];
    part stay = part_of(g);
    float *y = p[0];
    tt_ix k;
    for (k = 0; k < stay.count; k++, forward(&stay)) {
        const float *x = (const float *)p[1] + stay.at;
        y[k] = x[largest(x, reduced)];
    }
}

void tt_kernel_max_vjp(void *const *p, const int32_t *g) {
    const int32_t *reduced = g + 1 + 2 * g[0];
    part stay = part_of(g);
    const float *from = p[1];
    tt_ix k, i;
    for (k = 0; k < stay.count; k++, forward(&stay)) {
        const float *x = (const float *)p[2] + stay.at;
        float *dx = (float *)p[0] + stay.at;
        part s = part_of(reduced);
        tt_ix place = largest(x, reduced);
        for (i = 0; i < s.count; i++, forward(&s)) dx[s.at] = from[k] * (s.at == place ? 1.0f : 0.0f);
    }
}

void tt_kernel_sum_to(void *const *p, const int32_t *g) {
    float *y = p[0], total, sums[LANES];
    const float *from = p[1];
    tt_ix k, i, n;
    if (g[1] || g[2]) {
        for (k = 0; k < g[2]; k += n) {
            n = g[2] - k < LANES ? g[2] - k : LANES;
            tt_sum_rows(sums, from + k, 0, g[1], g[2], 0, TT_PLAIN, n);
            for (i = 0; i < n; i++) y[k + i] = g[0] ? sums[i] + y[k + i] : sums[i];
        }
    } else {
        part stay = part_of(g + 3);
        for (k = 0; k < stay.count; k++, forward(&stay)) {
            total = sum_of(from + stay.at, g + 4 + 2 * g[3]);
            y[k] = g[0] ? total + y[k] : total;
        }
    }
}

static float top_of(const float *x, tt_ix end, tt_ix step) {
    float top = x[0];
    tt_ix i;
    for (i = 0; i < end; i += step)
        if (!(x[i] <= top)) top = x[i];
    return top;
}

static void softmax(float *y, const float *x, tt_ix end, tt_ix step) {
    float top = top_of(x, end, step), total = 0.0f;
    tt_ix i;
    for (i = 0; i < end; i += step) {
        y[i] = tt_exp(x[i] - top);
        total += y[i];
    }
    for (i = 0; i < end; i += step) y[i] = y[i] / total;
}

static void softmax_vjp(float *dx, const float *g, const float *y, tt_ix end, tt_ix step) {
    float total = 0.0f;
    tt_ix i;
    for (i = 0; i < end; i += step) total += g[i] * y[i];
    for (i = 0; i < end; i += step) dx[i] = y[i] * (g[i] - total);
}

static void log_softmax(float *y, const float *x, tt_ix end, tt_ix step) {
    float top = top_of(x, end, step), total = 0.0f;
    tt_ix i;
    for (i = 0; i < end; i += step) total += tt_exp(x[i] - top);
    total = tt_log(total);
    for (i = 0; i < end; i += step) y[i] = (x[i] - top) - total;
}

static void log_softmax_vjp(float *dx, const float *g, const float *y, tt_ix end, tt_ix step) {
    float total = 0.0f;
    tt_ix i;
    for (i = 0; i < end; i += step) total += g[i];
    for (i = 0; i < end; i += step) dx[i] = g[i] - tt_exp(y[i]) * total;
}

/* Rows along an axis: outer, length, inner. */
#define FORWARD(body)                                                                              \
    void tt_kernel_##body(void *const *p, const int32_t *g) {                                      \
        tt_ix outer, inner, n = g[1], step = g[2];                                                 \
        for (outer = 0; outer < g[0]; outer++)                                                     \
            for (inner = 0; inner < step; inner++) {                                               \
                tt_ix at = outer * n * step + inner;                                               \
                body((float *)p[0] + at, (const float *)p[1] + at, n * step, step);                \
            }                                                                                      \
    }

#define BACKWARD(body)                                                                             \
    void tt_kernel_##body(void *const *p, const int32_t *g) {                                      \
        tt_ix outer, inner, n = g[1], step = g[2];                                                 \
        for (outer = 0; outer < g[0]; outer++)                                                     \
            for (inner = 0; inner < step; inner++) {                                               \
                tt_ix at = outer * n * step + inner;                                               \
                body((float *)p[0] + at, (const float *)p[1] + at, (const float *)p[2] + at,       \
                     n * step, step);                                                              \
            }                                                                                      \
    }

FORWARD(softmax)
BACKWARD(softmax_vjp)
FORWARD(log_softmax)
BACKWARD(log_softmax_vjp)
