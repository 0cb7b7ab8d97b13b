/* Convolution and its gradients, channels last. Orders of the sums, float throughout:

     conv2d        from +0: kernel row, column, input channel, all ascending; taps in the padding
                   are left out. The bias comes last.
     conv2d_vjp_x  from +0 or the stored value: taps last to first, within a tap the gradient's
                   channels ascending.
     conv2d_vjp_w  from +0 or the stored value: image, output row, output column ascending.

   No image is padded; the one piece of scratch is a tap's weights, transposed. */
#include "tt_math.h"
#include "tt_product.h"

typedef struct {
    tt_ix images, h, w, c, ho, wo, o, kh, kw, sh, sw, top, left, groups, dh, dw;
    tt_ix depth, parts, n, deep; /* channels of a group; groups to walk, and outputs of each */
} window;

static window window_of(const int32_t *g) {
    window s;
    s.images = g[0], s.h = g[1], s.w = g[2], s.c = g[3];
    s.ho = g[4], s.wo = g[5], s.o = g[6];
    s.kh = g[7], s.kw = g[8], s.sh = g[9], s.sw = g[10], s.top = g[11], s.left = g[12];
    s.groups = g[13], s.dh = g[14], s.dw = g[15];
    s.depth = s.c / s.groups;
    s.deep = s.depth == 1 && s.groups == s.o;
    s.parts = s.deep ? 1 : s.groups;
    s.n = s.deep ? s.o : s.o / s.groups;
    return s;
}

typedef struct {
    tt_ix lo, hi;
} span;

/* Taps that an output position reads inside the image. */
static span taps_of(tt_ix position, tt_ix size, tt_ix kernel, tt_ix stride, tt_ix before,
                    tt_ix dilation) {
    tt_ix first = position * stride - before;
    span s = {0, kernel};
    if (first < 0) s.lo = (-first + dilation - 1) / dilation;
    if (s.lo > kernel) s.lo = kernel;
    if (size - 1 - first < 0) {
        s.hi = 0;
    } else if ((size - 1 - first) / dilation + 1 < kernel) {
        s.hi = (size - 1 - first) / dilation + 1;
    }
    if (s.hi < s.lo) s.hi = s.lo;
    return s;
}

/* Output positions at which tap k reads inside the image. */
static span positions_of(tt_ix k, tt_ix size, tt_ix out, tt_ix stride, tt_ix before,
                         tt_ix dilation) {
    tt_ix shift = k * dilation - before;
    span s = {0, 0};
    if (shift < 0) s.lo = (-shift + stride - 1) / stride;
    if (size - 1 - shift >= 0) s.hi = (size - 1 - shift) / stride + 1;
    if (s.hi > out) s.hi = out;
    if (s.hi < s.lo) s.hi = s.lo;
    return s;
}

/* `count` output pixels to the right of one another that read the same taps. */
static void pixels(const window *s, tt_ix count, float *y, const float *x, const float *w,
                   const float *bias, span rows, span columns) {
    tt_ix x_row = s->dh * s->w * s->c, x_tap = s->dw * s->c, k;
    tt_ix w_row = s->kw * s->depth * s->o, w_tap = s->depth * s->o;
    tt_product q = {0};
    q.m = count, q.n = s->n, q.c = y, q.c_rs = s->o, q.a_rs = s->sw * s->c;
    q.a = x + rows.lo * x_row + columns.lo * x_tap;
    q.b = w + rows.lo * w_row + columns.lo * w_tap;
    q.ko = rows.hi - rows.lo, q.ki = columns.hi - columns.lo, q.bias = bias;
    if (s->deep) {
        q.a_ko = x_row, q.a_ki = x_tap, q.b_ko = w_row, q.b_ki = w_tap;
        tt_lanewise(&q);
    } else if (x_tap == s->depth || q.ko * q.ki == 0) { /* a kernel row's inputs lie together */
        q.a_ko = x_row, q.a_ki = 1, q.b_ko = w_row, q.b_ki = s->o;
        q.ki *= s->depth;
        tt_gemm(&q);
    } else {
        tt_ix left = q.ko;
        q.a_ko = x_tap, q.a_ki = 1, q.b_ko = w_tap, q.b_ki = s->o;
        q.ko = q.ki, q.ki = s->depth, q.bias = 0;
        for (k = 0; k < left; k++, q.add = 1, q.a += x_row, q.b += w_row) {
            if (k == left - 1) q.bias = bias;
            tt_gemm(&q);
        }
    }
}

void tt_kernel_conv2d(void *const *p, const int32_t *g) {
    window s = window_of(g);
    const float *x = p[1], *w = p[2], *b = p[3];
    span all = positions_of(0, s.w, s.wo, s.sw, s.left, s.dw), in;
    tt_ix image, part, i, j, end;
    end = positions_of(s.kw - 1, s.w, s.wo, s.sw, s.left, s.dw).hi;
    in.lo = all.lo < s.wo ? all.lo : s.wo;
    in.hi = end > in.lo ? end : in.lo; /* columns whose whole window lies inside */
    all.lo = 0, all.hi = s.kw;
    for (image = 0; image < s.images; image++) {
        for (i = 0; i < s.ho; i++) {
            span rows = taps_of(i, s.h, s.kh, s.sh, s.top, s.dh);
            float *y = (float *)p[0] + (image * s.ho + i) * s.wo * s.o;
            const float *corner = x + ((image * s.h + i * s.sh - s.top) * s.w - s.left) * s.c;
            for (part = 0; part < s.parts; part++) {
                const float *at = corner + part * s.depth, *weights = w + part * s.n;
                const float *bias = b ? b + part * s.n : 0;
                for (j = 0; j < s.wo; j++) {
                    tt_ix count = j == in.lo && in.hi > in.lo ? in.hi - in.lo : 1;
                    span columns = all;
                    if (j < in.lo || j >= in.hi)
                        columns = taps_of(j, s.w, s.kw, s.sw, s.left, s.dw);
                    pixels(&s, count, y + j * s.o + part * s.n, at + j * s.sw * s.c, weights, bias,
                           rows, columns);
                    j += count - 1;
                }
            }
        }
    }
}

/* dx += g times one tap, for one image and group; b holds the tap's weights. */
static void scatter(const window *s, float *dx, const float *g, const float *b, span rows,
                    span columns, tt_ix row, tt_ix column) {
    tt_ix width = s->deep ? s->c : s->depth, i;
    tt_product q = {0};
    q.m = columns.hi - columns.lo, q.n = width, q.add = 1, q.c_rs = s->sw * s->c;
    q.a_rs = s->o, q.b = b, q.ko = 1;
    for (i = rows.lo; i < rows.hi; i++) {
        q.c = dx + ((row + (i - rows.lo) * s->sh) * s->w + column) * s->c;
        q.a = g + (i * s->wo + columns.lo) * s->o;
        if (s->deep) {
            q.ki = 1;
            tt_lanewise(&q);
        } else {
            q.a_ki = 1, q.b_ki = s->depth, q.ki = s->n;
            tt_gemm(&q);
        }
    }
}

void tt_kernel_conv2d_vjp_x(void *const *p, const int32_t *geometry) {
    window s = window_of(geometry);
    float *dx = p[0], *tap = p[3];
    const float *g = p[1], *w = p[2];
    tt_ix k, image, part, c, o;
    if (!geometry[16])
        for (k = 0; k < s.images * s.h * s.w * s.c; k++) dx[k] = 0.0f;
    for (k = s.kh * s.kw - 1; k >= 0; k--) {
        tt_ix i = k / s.kw, j = k % s.kw;
        span rows = positions_of(i, s.h, s.ho, s.sh, s.top, s.dh);
        span columns = positions_of(j, s.w, s.wo, s.sw, s.left, s.dw);
        tt_ix row = rows.lo * s.sh + i * s.dh - s.top;
        tt_ix column = columns.lo * s.sw + j * s.dw - s.left;
        if (rows.hi == rows.lo || columns.hi == columns.lo) continue;
        for (part = 0; part < s.parts; part++) {
            const float *b = w + k * s.c;
            if (!s.deep) {
                const float *from = w + k * s.depth * s.o + part * s.n;
                for (o = 0; o < s.n; o++)
                    for (c = 0; c < s.depth; c++) tap[o * s.depth + c] = from[c * s.o + o];
                b = tap;
            }
            for (image = 0; image < s.images; image++)
                scatter(&s, dx + image * s.h * s.w * s.c + part * s.depth,
                        g + image * s.ho * s.wo * s.o + part * s.n, b, rows, columns, row, column);
        }
    }
}

void tt_kernel_conv2d_vjp_w(void *const *p, const int32_t *geometry) {
    window s = window_of(geometry);
    float *dw = p[0];
    const float *x = p[1], *g = p[2];
    tt_ix k, image, part;
    tt_product q = {0};
    if (!geometry[16])
        for (k = 0; k < s.kh * s.kw * s.depth * s.o; k++) dw[k] = 0.0f;
    q.m = s.deep ? 1 : s.depth, q.n = s.n, q.add = 1, q.c_rs = s.o;
    q.a_rs = 1, q.a_ko = s.sh * s.w * s.c, q.a_ki = s.sw * s.c;
    q.b_ko = s.wo * s.o, q.b_ki = s.o;
    for (image = 0; image < s.images; image++) {
        for (k = 0; k < s.kh * s.kw; k++) {
            tt_ix i = k / s.kw, j = k % s.kw;
            span rows = positions_of(i, s.h, s.ho, s.sh, s.top, s.dh);
            span columns = positions_of(j, s.w, s.wo, s.sw, s.left, s.dw);
            tt_ix row = image * s.h + rows.lo * s.sh + i * s.dh - s.top;
            tt_ix column = columns.lo * s.sw + j * s.dw - s.left;
            q.ko = rows.hi - rows.lo, q.ki = columns.hi - columns.lo;
            if (q.ko == 0 || q.ki == 0) continue;
            for (part = 0; part < s.parts; part++) {
                q.c = dw + k * s.depth * s.o + part * s.n;
                q.a = x + (row * s.w + column) * s.c + part * s.depth;
                q.b = g + ((image * s.ho + rows.lo) * s.wo + columns.lo) * s.o + part * s.n;
                if (s.deep)
                    tt_lanewise(&q);
                else
                    tt_gemm(&q);
            }
        }
    }
}
