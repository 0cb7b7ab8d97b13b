/* Convolution, channels last. Every output is one sum from +0: kernel row, column, input channel, all
   ascending; taps in the padding are left out. The bias comes last. No image is padded. */
#include "tt_math.h"
#include "tt_product.h"
#include "tt_window.h"

tt_window tt_window_of(const int32_t *g) {
    tt_window s;
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

tt_span tt_taps_of(tt_ix position, tt_ix size, tt_ix kernel, tt_ix stride, tt_ix before,
                    tt_ix dilation) {
    tt_ix first = position * stride - before;
    tt_span s = {0, kernel};
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

tt_span tt_positions_of(tt_ix k, tt_ix size, tt_ix out, tt_ix stride, tt_ix before,
                         tt_ix dilation) {
    tt_ix shift = k * dilation - before;
    tt_span s = {0, 0};
    if (shift < 0) s.lo = (-shift + stride - 1) / stride;
    if (size - 1 - shift >= 0) s.hi = (size - 1 - shift) / stride + 1;
    if (s.lo > out) s.lo = out;
    if (s.hi > out) s.hi = out;
    if (s.hi < s.lo) s.hi = s.lo;
    return s;
}

/* `count` output pixels, downwards or to the right, that read the same taps; y and x are the first's,
   x being its window's corner. */
static void pixels(const tt_image *s, tt_ix count, int down, float *y, const float *x, const float *w,
                   const float *bias, tt_span rows, tt_span columns) {
    tt_ix x_row = s->dh * s->w * s->x_pixel, x_tap = s->dw * s->x_pixel, k;
    tt_product q = {0};
    q.m = count, q.n = s->n, q.add = s->add, q.c = y, q.c_rs = down ? s->y_row : s->y_pixel;
    q.a_rs = down ? s->sh * s->w * s->x_pixel : s->sw * s->x_pixel;
    q.a = x + rows.lo * x_row + columns.lo * x_tap;
    q.b = w + rows.lo * s->w_row + columns.lo * s->w_tap;
    q.ko = rows.hi - rows.lo, q.ki = columns.hi - columns.lo, q.bias = bias;
    q.a_ko = x_row, q.a_ki = x_tap, q.b_ko = s->w_row, q.b_ki = s->w_tap;
    if (s->deep) {
        tt_lanewise(&q);
    } else if ((x_tap == s->c && s->w_tap == s->c * s->w_in) || q.ko * q.ki == 0) {
        /* a kernel row's inputs lie together, and its weights */
        q.a_ki = 1, q.b_ki = s->w_in, q.ki *= s->c;
        tt_gemm(&q);
    } else {
        tt_ix left = q.ko;
        q.a_ko = x_tap, q.a_ki = 1, q.b_ko = s->w_tap, q.b_ki = s->w_in;
        q.ko = q.ki, q.ki = s->c, q.bias = 0;
        for (k = 0; k < left; k++, q.add = 1, q.a += x_row, q.b += s->w_row) {
            if (k == left - 1) q.bias = bias;
            tt_gemm(&q);
        }
    }
}

tt_span tt_inside(tt_ix size, tt_ix out, tt_ix kernel, tt_ix stride, tt_ix before, tt_ix dilation) {
    tt_span s = {0, 0};
    s.lo = tt_positions_of(0, size, out, stride, before, dilation).lo;
    s.hi = tt_positions_of(kernel - 1, size, out, stride, before, dilation).hi;
    return s;
}

void tt_walk_image(const tt_image *s, float *y, const float *x, const float *w, const float *bias,
                  tt_ix begin, tt_ix end) {
    tt_span in_rows = tt_inside(s->h, s->ho, s->kh, s->sh, s->top, s->dh);
    tt_span in_columns = tt_inside(s->w, s->wo, s->kw, s->sw, s->left, s->dw);
    tt_ix i, j, k, rows, columns;
    for (i = begin; i < end; i += rows) {
        tt_span down = tt_taps_of(i, s->h, s->kh, s->sh, s->top, s->dh);
        rows = i >= in_rows.lo && i < in_rows.hi ? (in_rows.hi < end ? in_rows.hi : end) - i : 1;
        for (j = 0; j < s->wo; j += columns) {
            tt_span across = tt_taps_of(j, s->w, s->kw, s->sw, s->left, s->dw);
            float *to = y + (i - begin) * s->y_row + j * s->y_pixel;
            const float *at =
                x + ((i * s->sh - s->top) * s->w + j * s->sw - s->left) * s->x_pixel;
            columns = j >= in_columns.lo && j < in_columns.hi ? in_columns.hi - j : 1;
            for (k = 0; k < rows && columns >= rows; k++)
                pixels(s, columns, 0, to + k * s->y_row, at + k * s->sh * s->w * s->x_pixel, w, bias,
                       down, across);
            for (k = 0; k < columns && columns < rows; k++)
                pixels(s, rows, 1, to + k * s->y_pixel, at + k * s->sw * s->x_pixel, w, bias, down,
                       across);
        }
    }
}

static tt_image walk_of(const tt_window *s) {
    tt_image k = {0};
    k.h = s->h, k.w = s->w, k.ho = s->ho, k.wo = s->wo, k.kh = s->kh, k.kw = s->kw;
    k.sh = s->sh, k.sw = s->sw, k.top = s->top, k.left = s->left, k.dh = s->dh, k.dw = s->dw;
    k.y_row = s->wo * s->o, k.y_pixel = s->o, k.x_pixel = s->c;
    k.w_row = s->kw * s->depth * s->o, k.w_tap = s->depth * s->o, k.w_in = s->o;
    k.c = s->depth, k.n = s->n, k.deep = s->deep;
    return k;
}

/* Output rows [begin, end) of one image, all groups. */
static void all_groups(const tt_window *s, const tt_image *k, float *y, const float *x, const float *w,
                       const float *b, tt_ix begin, tt_ix end) {
    tt_ix part;
    for (part = 0; part < s->parts; part++)
        tt_walk_image(k, y + part * s->n, x + part * s->depth, w + part * s->n, b ? b + part * s->n : 0,
              begin, end);
}

int tt_is_pointwise(const tt_window *s) {
    return s->kh * s->kw * s->sh * s->sw == 1 && s->h == s->ho && s->w == s->wo;
}

tt_ix tt_stretch(const tt_window *s) {
    tt_ix most = TT_CACHED / (s->c + s->o);
    return most < 8 ? 8 : most;
}

void tt_kernel_conv2d(void *const *p, const int32_t *g) {
    tt_window s = tt_window_of(g);
    tt_image k = walk_of(&s);
    float *y = p[0];
    const float *x = p[1];
    tt_ix at, total = s.images * s.h * s.w, step = tt_stretch(&s);
    if (tt_is_pointwise(&s)) { /* all images are one long row */
        k.h = k.ho = 1;
        for (at = 0; at < total; at += step, y += step * s.o, x += step * s.c) {
            k.w = k.wo = total - at < step ? total - at : step;
            all_groups(&s, &k, y, x, p[2], p[3], 0, 1);
        }
        return;
    }
    for (at = 0; at < s.images; at++, y += s.ho * s.wo * s.o, x += s.h * s.w * s.c)
        all_groups(&s, &k, y, x, p[2], p[3], 0, s.ho);
}

tt_ix tt_strip_of(tt_ix lines, tt_ix rows, tt_ix waiting) {
    return lines >= rows ? rows : lines - (waiting < rows - 1 ? waiting : rows - 1);
}

tt_ix tt_flush(float *lines, float *target, tt_ix row, tt_ix done, tt_ix ready, tt_ix made) {
    tt_ix k, count = (ready - done) * row;
    for (k = 0; k < count; k++) target[done * row + k] = lines[k];
    for (k = 0; k < (made - ready) * row; k++) lines[k] = lines[count + k];
    return ready;
}

/* The same sums over their own input: `lines` holds output rows until nobody reads the input rows
   below them any more. */
void tt_kernel_conv2d_lines(void *const *p, const int32_t *g) {
    tt_window s = tt_window_of(g);
    tt_image walked = walk_of(&s);
    float *lines = p[4];
    tt_ix image, i, row = s.wo * s.o, strip = tt_strip_of(g[16], s.h, s.top);
    for (image = 0; image < s.images; image++) {
        float *target = (float *)p[0] + image * s.ho * row;
        const float *source = (const float *)p[1] + image * s.h * s.w * s.c;
        tt_ix done = 0, ready;
        for (i = 0; i < s.ho; i += strip) {
            tt_ix rows = s.ho - i < strip ? s.ho - i : strip;
            all_groups(&s, &walked, lines + (i - done) * row, source, p[2], p[3], i, i + rows);
            ready = i + rows == s.ho ? s.ho : i + rows > s.top ? i + rows - s.top : 0;
            done = tt_flush(lines, target, row, done, ready, i + rows);
        }
    }
}

