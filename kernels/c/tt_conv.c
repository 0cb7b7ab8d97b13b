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
    if (s.lo > out) s.lo = out;
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

/* Output row i of one image, to y. */
static void output_row(const window *s, float *y, const float *x, const float *w, const float *b,
                       tt_ix i) {
    span rows = taps_of(i, s->h, s->kh, s->sh, s->top, s->dh), columns, in = {0, 0};
    tt_ix part, j, count;
    const float *corner = x + ((i * s->sh - s->top) * s->w - s->left) * s->c;
    in.lo = positions_of(0, s->w, s->wo, s->sw, s->left, s->dw).lo;
    in.hi = positions_of(s->kw - 1, s->w, s->wo, s->sw, s->left, s->dw).hi;
    for (part = 0; part < s->parts; part++) {
        for (j = 0; j < s->wo; j += count) {
            count = 1, columns.lo = 0, columns.hi = s->kw;
            if (j == in.lo && in.hi > in.lo)
                count = in.hi - in.lo; /* pixels whose whole window lies inside */
            else
                columns = taps_of(j, s->w, s->kw, s->sw, s->left, s->dw);
            pixels(s, count, y + j * s->o + part * s->n,
                   corner + j * s->sw * s->c + part * s->depth, w + part * s->n,
                   b ? b + part * s->n : 0, rows, columns);
        }
    }
}

void tt_kernel_conv2d(void *const *p, const int32_t *g) {
    window s = window_of(g);
    tt_ix image, i;
    for (image = 0; image < s.images; image++)
        for (i = 0; i < s.ho; i++)
            output_row(&s, (float *)p[0] + (image * s.ho + i) * s.wo * s.o,
                       (const float *)p[1] + image * s.h * s.w * s.c, p[2], p[3], i);
}

/* Of the output rows [done, made) in `lines`, write those below `ready` where they belong. */
static tt_ix flush(float *lines, float *target, tt_ix row, tt_ix done, tt_ix ready, tt_ix made) {
    tt_ix k, count = (ready - done) * row;
    for (k = 0; k < count; k++) target[done * row + k] = lines[k];
    for (k = 0; k < (made - ready) * row; k++) lines[k] = lines[count + k];
    return ready;
}

/* The same sums over their own input: `lines` holds output rows until nobody reads the input rows
   below them any more. */
void tt_kernel_conv2d_lines(void *const *p, const int32_t *g) {
    window s = window_of(g);
    float *lines = p[4];
    tt_ix image, i, k, row = s.wo * s.o, strip = g[16] - (s.top < s.h - 1 ? s.top : s.h - 1);
    for (image = 0; image < s.images; image++) {
        float *target = (float *)p[0] + image * s.ho * row;
        const float *source = (const float *)p[1] + image * s.h * s.w * s.c;
        tt_ix done = 0, ready;
        for (i = 0; i < s.ho; i += strip) {
            tt_ix rows = s.ho - i < strip ? s.ho - i : strip;
            for (k = i; k < i + rows; k++)
                output_row(&s, lines + (k - done) * row, source, p[2], p[3], k);
            ready = i + rows == s.ho ? s.ho : i + rows > s.top ? i + rows - s.top : 0;
            done = flush(lines, target, row, done, ready, i + rows);
        }
    }
}

/* dx += row i of g times one tap, for one image and group; b holds the tap's weights. */
static void scatter(const window *s, float *dx, const float *g, const float *b, span columns,
                    tt_ix column) {
    tt_product q = {0};
    q.m = columns.hi - columns.lo, q.n = s->deep ? s->c : s->depth, q.add = 1;
    q.c = dx + column * s->c, q.c_rs = s->sw * s->c;
    q.a = g + columns.lo * s->o, q.a_rs = s->o, q.b = b, q.ko = 1;
    if (s->deep) {
        q.ki = 1;
        tt_lanewise(&q);
    } else {
        q.a_ki = 1, q.b_ki = s->depth, q.ki = s->n;
        tt_gemm(&q);
    }
}

/* The weights of tap k of a group, lanes over input channels; depthwise ones lie so already. */
static const float *turned(const window *s, float *tap, const float *w, tt_ix k, tt_ix part) {
    const float *from = w + k * s->depth * s->o + part * s->n;
    tt_ix o, c;
    if (s->deep) return from;
    for (o = 0; o < s->n; o++)
        for (c = 0; c < s->depth; c++) tap[o * s->depth + c] = from[c * s->o + o];
    return tap;
}

/* Rows [lo, hi) of dx, to `to`, gain what tap k of g gives them, for one image. */
static void tap_to_rows(const window *s, float *to, const float *g, const float *b, tt_ix k,
                        tt_ix part, tt_ix lo, tt_ix hi) {
    span rows = positions_of(k / s->kw, s->h, s->ho, s->sh, s->top, s->dh);
    span columns = positions_of(k % s->kw, s->w, s->wo, s->sw, s->left, s->dw);
    tt_ix i, column = columns.lo * s->sw + k % s->kw * s->dw - s->left;
    if (columns.hi == columns.lo) return;
    for (i = rows.lo; i < rows.hi; i++) {
        tt_ix row = i * s->sh + k / s->kw * s->dh - s->top;
        if (row >= lo && row < hi)
            scatter(s, to + (row - lo) * s->w * s->c + part * s->depth,
                    g + i * s->wo * s->o + part * s->n, b, columns, column);
    }
}

void tt_kernel_conv2d_vjp_x(void *const *p, const int32_t *geometry) {
    window s = window_of(geometry);
    float *dx = p[0];
    tt_ix k, image, part, whole = s.h * s.w * s.c;
    if (!geometry[16])
        for (k = 0; k < s.images * whole; k++) dx[k] = 0.0f;
    for (k = s.kh * s.kw - 1; k >= 0; k--) {
        for (part = 0; part < s.parts; part++) {
            const float *b = p[3] || s.deep ? turned(&s, p[3], p[2], k, part) : 0;
            for (image = 0; b && image < s.images; image++)
                tap_to_rows(&s, dx + image * whole,
                            (const float *)p[1] + image * s.ho * s.wo * s.o, b, k, part, 0, s.h);
        }
    }
}

void tt_kernel_conv2d_vjp_x_lines(void *const *p, const int32_t *geometry) {
    window s = window_of(geometry);
    float *lines = p[3];
    tt_ix row = s.w * s.c, before = (s.kh - 1) * s.dh - s.top, image, i, k, part;
    tt_ix strip = geometry[16] - (before < s.h - 1 ? before : s.h - 1);
    for (image = 0; image < s.images; image++) {
        float *target = (float *)p[0] + image * s.h * row;
        const float *g = (const float *)p[1] + image * s.ho * s.wo * s.o;
        tt_ix done = 0, ready;
        for (i = 0; i < s.h; i += strip) {
            tt_ix rows = s.h - i < strip ? s.h - i : strip;
            float *to = lines + (i - done) * row;
            for (k = 0; k < rows * row; k++) to[k] = 0.0f;
            for (k = s.kh * s.kw - 1; k >= 0; k--) {
                for (part = 0; part < s.parts; part++) {
                    const float *b = p[4] || s.deep ? turned(&s, p[4], p[2], k, part) : 0;
                    if (b) tap_to_rows(&s, to, g, b, k, part, i, i + rows);
                }
            }
            ready = i + rows == s.h ? s.h : i + rows > before ? i + rows - before : 0;
            done = flush(lines, target, row, done, ready, i + rows);
        }
    }
}

/* dw += what tap k of one image and group gives. */
static void weights_of_tap(const window *s, float *dw, const float *x, const float *g, tt_ix k,
                           tt_ix part) {
    span rows = positions_of(k / s->kw, s->h, s->ho, s->sh, s->top, s->dh);
    span columns = positions_of(k % s->kw, s->w, s->wo, s->sw, s->left, s->dw);
    tt_ix row = rows.lo * s->sh + k / s->kw * s->dh - s->top;
    tt_ix column = columns.lo * s->sw + k % s->kw * s->dw - s->left;
    tt_product q = {0};
    q.ko = rows.hi - rows.lo, q.ki = columns.hi - columns.lo;
    if (q.ko == 0 || q.ki == 0) return;
    q.m = s->deep ? 1 : s->depth, q.n = s->n, q.add = 1, q.c = dw + part * s->n, q.c_rs = s->o;
    q.a = x + (row * s->w + column) * s->c + part * s->depth, q.a_rs = 1;
    q.a_ko = s->sh * s->w * s->c, q.a_ki = s->sw * s->c;
    q.b = g + (rows.lo * s->wo + columns.lo) * s->o + part * s->n;
    q.b_ko = s->wo * s->o, q.b_ki = s->o;
    if (s->deep)
        tt_lanewise(&q);
    else
        tt_gemm(&q);
}

void tt_kernel_conv2d_vjp_w(void *const *p, const int32_t *geometry) {
    window s = window_of(geometry);
    float *dw = p[0];
    tt_ix k, image, part, tap = s.depth * s.o;
    if (!geometry[16])
        for (k = 0; k < s.kh * s.kw * tap; k++) dw[k] = 0.0f;
    for (image = 0; image < s.images; image++)
        for (k = 0; k < s.kh * s.kw; k++)
            for (part = 0; part < s.parts; part++)
                weights_of_tap(&s, dw + k * tap, (const float *)p[1] + image * s.h * s.w * s.c,
                               (const float *)p[2] + image * s.ho * s.wo * s.o, k, part);
}

/* Weights - lr * their gradient, a tap at a time. */
void tt_kernel_conv2d_vjp_w_sgd(void *const *p, const int32_t *geometry) {
    window s = window_of(geometry);
    float *y = p[0], *dw = p[5], rate = *(const float *)p[4];
    const float *weights = p[1];
    tt_ix k, i, image, part, tap = s.depth * s.o;
    for (k = 0; k < s.kh * s.kw; k++, y += tap, weights += tap) {
        for (i = 0; i < tap; i++) dw[i] = 0.0f;
        for (image = 0; image < s.images; image++)
            for (part = 0; part < s.parts; part++)
                weights_of_tap(&s, dw, (const float *)p[2] + image * s.h * s.w * s.c,
                               (const float *)p[3] + image * s.ho * s.wo * s.o, k, part);
        for (i = 0; i < tap; i++) y[i] = weights[i] - rate * dw[i];
    }
}
