/* The convolution's gradient over its weights. Every element is one sum, from +0 or the stored value:
   image, output row, output column ascending. */
#include "tt_math.h"
#include "tt_product.h"
#include "tt_window.h"

/* dw += what output rows [rows.lo, rows.hi) of one image and group give to `count` taps, from (i, j)
   down. More than one only if a group has one channel: then they are the rows of the product. */
static tt_product taps_of(const tt_window *s, float *dw, const float *x, const float *g, tt_ix i,
                          tt_ix j, tt_ix count, tt_ix part, tt_span rows) {
    tt_span columns = tt_positions_of(j, s->w, s->wo, s->sw, s->left, s->dw);
    tt_ix row = rows.lo * s->sh + i * s->dh - s->top;
    tt_ix column = columns.lo * s->sw + j * s->dw - s->left;
    tt_product q = {0};
    q.ko = rows.hi > rows.lo ? rows.hi - rows.lo : 0, q.ki = columns.hi - columns.lo;
    q.m = s->depth, q.c_rs = s->o, q.a_rs = 1;
    if (s->depth == 1) q.m = count, q.c_rs = s->kw * s->o, q.a_rs = s->dh * s->w * s->c;
    q.n = s->n, q.add = 1, q.c = dw + part * s->n;
    q.a = x + (row * s->w + column) * s->c + part * s->depth;
    q.a_ko = s->sh * s->w * s->c, q.a_ki = s->sw * s->c;
    q.b = g + (rows.lo * s->wo + columns.lo) * s->o + part * s->n;
    q.b_ko = s->wo * s->o, q.b_ki = s->o;
    return q;
}

static void run(const tt_window *s, const tt_product *q) {
    if (s->deep)
        tt_lanewise(q);
    else
        tt_gemm(q);
}

static void weights_of_taps(const tt_window *s, float *dw, const float *x, const float *g, tt_ix i,
                            tt_ix j, tt_ix count, tt_ix part, tt_span rows) {
    tt_product q = taps_of(s, dw, x, g, i, j, count, part, rows);
    if (q.ko * q.ki > 0) run(s, &q);
}

/* dw += what one image and group give to the taps of kernel column j. */
static void weights_of_column(const tt_window *s, float *dw, const float *x, const float *g, tt_ix j,
                              tt_ix part) {
    tt_ix i, tap = s->depth * s->o;
    tt_span all = tt_inside(s->h, s->ho, s->kh, s->sh, s->top, s->dh);
    int together = s->depth == 1 && all.hi > all.lo; /* the rows that every tap reads inside */
    for (i = 0; i < s->kh; i++) {
        tt_span rows = tt_positions_of(i, s->h, s->ho, s->sh, s->top, s->dh);
        if (together) rows.hi = all.lo;
        weights_of_taps(s, dw + (i * s->kw + j) * tap, x, g, i, j, 1, part, rows);
    }
    if (!together) return;
    weights_of_taps(s, dw + j * tap, x, g, 0, j, s->kh, part, all);
    for (i = 0; i < s->kh; i++) {
        tt_span rows = tt_positions_of(i, s->h, s->ho, s->sh, s->top, s->dh);
        rows.lo = all.hi;
        weights_of_taps(s, dw + (i * s->kw + j) * tap, x, g, i, j, 1, part, rows);
    }
}

void tt_kernel_conv2d_vjp_w(void *const *p, const int32_t *geometry) {
    tt_window s = tt_window_of(geometry);
    float *dw = p[0];
    const float *x = p[1], *g = p[2];
    tt_ix k, at, part, tap = s.depth * s.o;
    if (!geometry[16])
        for (k = 0; k < s.kh * s.kw * tap; k++) dw[k] = 0.0f;
    for (at = 0; at < s.images; at++, x += s.h * s.w * s.c, g += s.ho * s.wo * s.o)
        for (k = 0; k < s.kw; k++)
            for (part = 0; part < s.parts; part++) weights_of_column(&s, dw, x, g, k, part);
}

/* Weights - lr * their gradient, a tap at a time. With one image (or one long row of pixels) a tap is
   one product, which meets its weights in registers. */
void tt_kernel_conv2d_vjp_w_sgd(void *const *p, const int32_t *geometry) {
    tt_window s = tt_window_of(geometry);
    float *y = p[0], *dw = p[5], rate = *(const float *)p[4];
    const float *weights = p[1], *x = p[2], *g = p[3];
    tt_ix k, i, at, part, tap = s.depth * s.o;
    if (tt_is_pointwise(&s)) s.w = s.wo = s.images * s.h * s.w, s.h = s.ho = s.images = 1;
    for (k = 0; k < s.kh * s.kw; k++, y += tap, weights += tap) {
        tt_span rows = tt_positions_of(k / s.kw, s.h, s.ho, s.sh, s.top, s.dh);
        for (part = 0; part < s.parts && s.images == 1; part++) {
            tt_product q = taps_of(&s, y, x, g, k / s.kw, k % s.kw, 1, part, rows);
            q.add = 0, q.weights = weights + part * s.n, q.rate = rate;
            run(&s, &q);
        }
        if (s.images == 1) continue;
        for (i = 0; i < tap; i++) dw[i] = 0.0f;
        for (at = 0; at < s.images; at++)
            for (part = 0; part < s.parts; part++)
                weights_of_taps(&s, dw, x + at * s.h * s.w * s.c, g + at * s.ho * s.wo * s.o,
                                k / s.kw, k % s.kw, 1, part, rows);
        for (i = 0; i < tap; i++) y[i] = weights[i] - rate * dw[i];
    }
}
