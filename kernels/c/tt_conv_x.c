/* The convolution's gradient over its input. Every element is one sum, from +0 or the stored value:
   taps last to first, within a tap the gradient's channels ascending. */
#include "tt_math.h"
#include "tt_product.h"
#include "tt_window.h"

/* dx += `count` pixels of g times one tap, for one group; b holds the tap's weights. */
static void scatter(const tt_window *s, float *dx, const float *g, const float *b, tt_ix count) {
    tt_product q = {0};
    q.m = count, q.n = s->deep ? s->c : s->depth, q.add = 1;
    q.c = dx, q.c_rs = s->sw * s->c, q.a = g, q.a_rs = s->o, q.b = b, q.ko = 1;
    if (s->deep) {
        q.ki = 1;
        tt_lanewise(&q);
    } else {
        q.a_ki = 1, q.b_ki = s->depth, q.ki = s->n;
        tt_gemm(&q);
    }
}

/* The weights of tap k of a group, lanes over input channels; depthwise ones lie so already. */
static const float *turned(const tt_window *s, float *tap, const float *w, tt_ix k, tt_ix part) {
    const float *from = w + k * s->depth * s->o + part * s->n;
    if (s->deep) return from;
    tt_turn(tap, s->depth, from, s->o, s->depth, s->n);
    return tap;
}

/* Rows [lo, hi) of dx, to `to`, gain what tap k of g gives them, for one image. */
static void tap_to_rows(const tt_window *s, float *to, const float *g, const float *b, tt_ix k,
                        tt_ix part, tt_ix lo, tt_ix hi) {
    tt_span rows = tt_positions_of(k / s->kw, s->h, s->ho, s->sh, s->top, s->dh);
    tt_span columns = tt_positions_of(k % s->kw, s->w, s->wo, s->sw, s->left, s->dw);
    tt_ix i, shift = k / s->kw * s->dh - s->top, count = columns.hi - columns.lo;
    if (count == 0) return;
    to += (columns.lo * s->sw + k % s->kw * s->dw - s->left) * s->c + part * s->depth;
    g += columns.lo * s->o + part * s->n;
    while (rows.lo < rows.hi && rows.lo * s->sh + shift < lo) rows.lo++;
    while (rows.lo < rows.hi && (rows.hi - 1) * s->sh + shift >= hi) rows.hi--;
    if (rows.lo == rows.hi) return;
    to += (rows.lo * s->sh + shift - lo) * s->w * s->c, g += rows.lo * s->wo * s->o;
    if (s->sh * s->sw == 1 && count == s->w && count == s->wo) /* whole rows lie end to end */
        scatter(s, to, g, b, (rows.hi - rows.lo) * count);
    else
        for (i = rows.lo; i < rows.hi; i++, to += s->sh * s->w * s->c, g += s->wo * s->o)
            scatter(s, to, g, b, count);
}

/* What input positions first, first + stride, ... read of the gradient: the last tap, how many (each
   `stride` before the last) and, as padding, where the gradient begins. */
typedef struct {
    tt_ix last, taps, before;
} phase;

static phase phase_of(tt_ix first, tt_ix kernel, tt_ix stride, tt_ix before, tt_ix dilation) {
    phase f = {0, 0, 0};
    tt_ix lowest = (first + before) % stride;
    if (stride == 1) {
        f.last = kernel - 1, f.taps = kernel, f.before = (kernel - 1) * dilation - before;
    } else if (lowest < kernel) {
        f.last = lowest + (kernel - 1 - lowest) / stride * stride;
        f.taps = (f.last - lowest) / stride + 1;
        f.before = (f.last - first - before) / stride;
    }
    return f;
}

/* A convolution of g at stride 1 with the taps last to first, for each of the stride's phases: the
   inputs that read the same taps. Wants a stride or a dilation of one. `k` has what is walked: its
   channels, and strides within a tap; w is the last tap, the one before it lies `tap` further. */
static void gather(const tt_window *s, tt_image k, float *dx, const float *g, const float *w,
                   tt_ix tap) {
    tt_ix i, j, at, last = s->kh * s->kw - 1;
    k.h = s->ho, k.w = s->wo, k.sh = k.sw = 1, k.dh = s->dh, k.dw = s->dw;
    k.y_row = s->sh * s->w * s->c, k.y_pixel = s->sw * s->c, k.x_pixel = s->o;
    k.w_row = s->sh * s->kw * tap, k.w_tap = s->sw * tap;
    for (i = 0; i < s->sh; i++) {
        for (j = 0; j < s->sw; j++) {
            phase down = phase_of(i, s->kh, s->sh, s->top, s->dh);
            phase across = phase_of(j, s->kw, s->sw, s->left, s->dw);
            k.kh = down.taps, k.kw = across.taps, k.top = down.before, k.left = across.before;
            k.ho = (s->h - i + s->sh - 1) / s->sh, k.wo = (s->w - j + s->sw - 1) / s->sw;
            for (at = 0; at < s->images; at++)
                tt_walk_image(&k, dx + ((at * s->h + i) * s->w + j) * s->c,
                              g + at * s->ho * s->wo * s->o,
                              w + (last - down.last * s->kw - across.last) * tap, 0, 0, k.ho);
        }
    }
}

static void gather_depthwise(const tt_window *s, float *dx, const float *g, const float *w, int add) {
    tt_image k = {0};
    k.c = 1, k.n = s->c, k.deep = 1, k.add = add;
    gather(s, k, dx, g, w + (s->kh * s->kw - 1) * s->c, -s->c);
}

#ifdef TT_VECTORS
/* Hosts have a stack: there all taps of a few input channels are turned at once, and over its own
   input, which is there but once, the whole kernel: a large one where threads have megabytes. */
enum { PANEL = 16, ROOM = 16 * 1024 };
#if defined __GLIBC__ || defined __APPLE__
enum { WHOLE = 40 * 1024 };
#else
enum { WHOLE = ROOM };
#endif

static int has_room(const tt_window *s) { return s->kh * s->kw * s->n * PANEL <= ROOM; }

/* All taps of `width` input channels from c on, turned, last to first. */
static void turn_panel(const tt_window *s, float *panel, const float *w, tt_ix part, tt_ix c,
                       tt_ix width) {
    tt_ix tap, taps = s->kh * s->kw;
    for (tap = 0; tap < taps; tap++)
        tt_turn(panel + (taps - 1 - tap) * s->n * width, width,
                w + (tap * s->depth + c) * s->o + part * s->n, s->o, width, s->n);
}

/* Whether the whole kernel of a convolution over its own input is turned at once. */
static int is_small(const tt_window *s) {
    return s->parts == 1 && !s->deep && s->kh * s->kw * s->n * s->depth <= WHOLE;
}

/* Rows [begin, end) of dx, to `to`, at stride 1; `panels` holds the whole kernel. */
static void gather_rows(const tt_window *s, float *to, const float *g, const float *panels,
                        tt_ix begin, tt_ix end) {
    tt_ix c;
    for (c = 0; c < s->depth; c += PANEL) {
        tt_image k = {0};
        k.c = s->n, k.n = k.w_in = s->depth - c < PANEL ? s->depth - c : PANEL;
        k.h = s->ho, k.w = s->wo, k.ho = s->h, k.wo = s->w, k.sh = k.sw = 1, k.dh = s->dh, k.dw = s->dw;
        k.kh = s->kh, k.kw = s->kw;
        k.top = (s->kh - 1) * s->dh - s->top, k.left = (s->kw - 1) * s->dw - s->left;
        k.y_row = s->w * s->c, k.y_pixel = s->c, k.x_pixel = s->o;
        k.w_tap = s->n * k.n, k.w_row = s->kw * k.w_tap;
        tt_walk_image(&k, to + c, g, panels + c * s->kh * s->kw * s->n, 0, begin, end);
    }
}

static void gather_dense(const tt_window *s, float *dx, const float *g, const float *w, int add) {
    float panel[ROOM];
    tt_ix part, c;
    for (part = 0; part < s->parts; part++) {
        for (c = 0; c < s->depth; c += PANEL) {
            tt_image k = {0};
            k.c = s->n, k.n = k.w_in = s->depth - c < PANEL ? s->depth - c : PANEL, k.add = add;
            turn_panel(s, panel, w, part, c, k.n);
            gather(s, k, dx + part * s->depth + c, g + part * s->n, panel, s->n * k.n);
        }
    }
}

/* Of a 1 x 1 convolution: g times the weights across, so that nothing is turned in memory. */
static void pointwise_vjp_x(const tt_window *s, float *dx, const float *g, const float *w, int add) {
    tt_ix part, at, total = s->images * s->h * s->w, step = tt_stretch(s);
    for (part = 0; part < s->parts; part++) {
        tt_product q = {0};
        q.n = s->depth, q.add = add, q.c_rs = s->c, q.a_rs = s->o, q.a_ki = 1;
        q.b = w + part * s->n, q.b_ko = s->o, q.b_ki = 1, q.ki = s->n;
        for (at = 0; at < total; at += step) {
            q.m = total - at < step ? total - at : step;
            q.c = dx + at * s->c + part * s->depth, q.a = g + at * s->o + part * s->n;
            tt_across(&q);
        }
    }
}

#endif

/* Images [first, last), all taps of one after the other. */
static void scatter_images(const tt_window *s, void *const *p, tt_ix first, tt_ix last) {
    tt_ix k, at, part, whole = s->h * s->w * s->c, from = s->ho * s->wo * s->o;
    for (k = s->kh * s->kw - 1; k >= 0; k--) {
        for (part = 0; part < s->parts; part++) {
            const float *b = p[3] || s->deep ? turned(s, p[3], p[2], k, part) : 0;
            for (at = first; b && at < last; at++)
                tap_to_rows(s, (float *)p[0] + at * whole, (const float *)p[1] + at * from, b, k,
                            part, 0, s->h);
        }
    }
}

void tt_kernel_conv2d_vjp_x(void *const *p, const int32_t *geometry) {
    tt_window s = tt_window_of(geometry);
    float *dx = p[0];
    tt_ix k, first, last, block, whole = s.h * s.w * s.c;
    int plain = s.sh * s.sw == 1 || s.dh * s.dw == 1;
    if (s.deep && plain) {
        gather_depthwise(&s, dx, p[1], p[2], geometry[16]);
        return;
    }
#ifdef TT_VECTORS
    if (tt_is_pointwise(&s)) {
        pointwise_vjp_x(&s, dx, p[1], p[2], geometry[16]);
        return;
    }
    if (plain && has_room(&s)) {
        gather_dense(&s, dx, p[1], p[2], geometry[16]);
        return;
    }
#endif
    /* A tap is turned once for as many images as stay in the cache. */
    block = TT_CACHED / (whole + s.ho * s.wo * s.o) + 1;
    for (first = 0; first < s.images; first = last) {
        last = s.images - first < block ? s.images : first + block;
        if (!geometry[16])
            for (k = first * whole; k < last * whole; k++) dx[k] = 0.0f;
        scatter_images(&s, p, first, last);
    }
}

/* Rows [begin, end) of dx, to `to`, a tap after the other. */
static void scatter_rows(const tt_window *s, void *const *p, float *to, const float *g, tt_ix begin,
                         tt_ix end) {
    tt_ix k, part;
    for (k = 0; k < (end - begin) * s->w * s->c; k++) to[k] = 0.0f;
    for (k = s->kh * s->kw - 1; k >= 0; k--) {
        for (part = 0; part < s->parts; part++) {
            const float *b = p[4] || s->deep ? turned(s, p[4], p[2], k, part) : 0;
            if (b) tap_to_rows(s, to, g, b, k, part, begin, end);
        }
    }
}

void tt_kernel_conv2d_vjp_x_lines(void *const *p, const int32_t *geometry) {
    tt_window s = tt_window_of(geometry);
    float *lines = p[3];
    tt_ix row = s.w * s.c, before = (s.kh - 1) * s.dh - s.top, image, i;
    tt_ix strip = tt_strip_of(geometry[16], s.h, before);
#ifdef TT_VECTORS
    float panels[WHOLE];
    const int small = is_small(&s);
    for (i = 0; small && i < s.depth; i += PANEL)
        turn_panel(&s, panels + i * s.kh * s.kw * s.n, p[2], 0, i,
                   s.depth - i < PANEL ? s.depth - i : PANEL);
#endif
    for (image = 0; image < s.images; image++) {
        float *target = (float *)p[0] + image * s.h * row;
        const float *g = (const float *)p[1] + image * s.ho * s.wo * s.o;
        tt_ix done = 0, ready;
        for (i = 0; i < s.h; i += strip) {
            tt_ix rows = s.h - i < strip ? s.h - i : strip;
            float *to = lines + (i - done) * row;
#ifdef TT_VECTORS
            if (small)
                gather_rows(&s, to, g, panels, i, i + rows);
            else
#endif
                scatter_rows(&s, p, to, g, i, i + rows);
            ready = i + rows == s.h ? s.h : i + rows > before ? i + rows - before : 0;
            done = tt_flush(lines, target, row, done, ready, i + rows);
        }
    }
}

