/* Pooling over windows, channels last. An average is one sum from +0, window row then column
   ascending, times 1 / window. The gradients add, from +0 or the stored value, output pixels
   ascending. The first of equal maxima is taken, and a NaN is larger than any number. */
#include "tt_kernels.h"
#include "tt_math.h"

typedef struct {
    tt_ix h, w, c, wo, kh, kw, sh, sw, top, left, pixels, per_image;
    tt_ix corner, k0, k1, l0, l1; /* of the present pixel: its window's corner, the taps inside */
} pool;

static pool pool_of(const int32_t *g) {
    pool s = {0};
    s.h = g[1], s.w = g[2], s.c = g[3], s.wo = g[5];
    s.kh = g[7], s.kw = g[8], s.sh = g[9], s.sw = g[10], s.top = g[11], s.left = g[12];
    s.per_image = (tt_ix)g[4] * g[5];
    s.pixels = g[0] * s.per_image;
    return s;
}

static void look_at(pool *s, tt_ix pixel) {
    tt_ix image = pixel / s->per_image, i = pixel / s->wo % (s->per_image / s->wo);
    tt_ix y = i * s->sh - s->top, x = pixel % s->wo * s->sw - s->left;
    s->k0 = y < 0 ? -y : 0, s->k1 = s->h - y < s->kh ? s->h - y : s->kh;
    s->l0 = x < 0 ? -x : 0, s->l1 = s->w - x < s->kw ? s->w - x : s->kw;
    s->corner = (image * s->h + y) * s->w + x;
}

static void start(float *dx, const int32_t *g, int32_t add) {
    tt_ix k, n = (tt_ix)g[0] * g[1] * g[2] * g[3];
    if (!add)
        for (k = 0; k < n; k++) dx[k] = 0.0f;
}

/* One value more for each channel of a window. */
#define LOOK(kind)                                                                                 \
    static void look_##kind(float *best, kind *place, const float *x, tt_ix c, tt_ix tap) {        \
        tt_ix i;                                                                                   \
        for (i = 0; i < c; i++) {                                                                  \
            int better = !(x[i] <= best[i]) && best[i] == best[i];                                 \
            best[i] = better ? x[i] : best[i];                                                     \
            place[i] = better ? (kind)tap : place[i];                                              \
        }                                                                                          \
    }

LOOK(uint8_t)
LOOK(int32_t)

void tt_kernel_max_pool2d(void *const *p, const int32_t *g) {
    pool s = pool_of(g);
    float *y = p[0];
    const float *x = p[2];
    uint8_t *narrow = p[1], unused = 0;
    int32_t *broad = p[1];
    tt_ix pixel, c, k, l;
    for (pixel = 0; pixel < s.pixels; pixel++, y += s.c) {
        look_at(&s, pixel);
        for (c = 0; c < s.c; c++) y[c] = tt_float(0xff800000u);
        for (c = 0; c < s.c && p[1]; c++) {
            if (g[13] == 1)
                narrow[pixel * s.c + c] = 0;
            else
                broad[pixel * s.c + c] = 0;
        }
        for (k = s.k0; k < s.k1; k++) {
            for (l = s.l0; l < s.l1; l++) {
                const float *from = x + (s.corner + k * s.w + l) * s.c;
                tt_ix tap = k * s.kw + l;
                if (!p[1])
                    for (c = 0; c < s.c; c++) look_uint8_t(y + c, &unused, from + c, 1, 0);
                else if (g[13] == 1)
                    look_uint8_t(y, narrow + pixel * s.c, from, s.c, tap);
                else
                    look_int32_t(y, broad + pixel * s.c, from, s.c, tap);
            }
        }
    }
}

void tt_kernel_max_pool2d_vjp(void *const *p, const int32_t *g) {
    pool s = pool_of(g);
    float *dx = p[0];
    const float *from = p[1];
    const uint8_t *narrow = p[2];
    const int32_t *wide = p[2];
    tt_ix pixel, c, k, l;
    start(dx, g, g[14]);
    for (pixel = 0; pixel < s.pixels; pixel++) {
        look_at(&s, pixel);
        for (k = s.k0; k < s.k1; k++) {
            for (l = s.l0; l < s.l1; l++) {
                float *to = dx + (s.corner + k * s.w + l) * s.c;
                for (c = 0; c < s.c; c++) {
                    tt_ix at = pixel * s.c + c, place = g[13] == 1 ? narrow[at] : wide[at];
                    to[c] += place == k * s.kw + l ? from[at] : 0.0f;
                }
            }
        }
    }
}

void tt_kernel_avg_pool2d(void *const *p, const int32_t *g) {
    pool s = pool_of(g);
    float *y = p[0], factor = tt_float((uint32_t)g[13]);
    const float *x = p[1];
    tt_ix pixel, c, k, l;
    for (pixel = 0; pixel < s.pixels; pixel++) {
        look_at(&s, pixel);
        for (c = 0; c < s.c; c++) y[pixel * s.c + c] = 0.0f;
        for (k = s.k0; k < s.k1; k++) {
            for (l = s.l0; l < s.l1; l++) {
                const float *from = x + (s.corner + k * s.w + l) * s.c;
                for (c = 0; c < s.c; c++) y[pixel * s.c + c] += from[c];
            }
        }
        for (c = 0; c < s.c; c++) y[pixel * s.c + c] = y[pixel * s.c + c] * factor;
    }
}

void tt_kernel_avg_pool2d_vjp(void *const *p, const int32_t *g) {
    pool s = pool_of(g);
    float *dx = p[0], factor = tt_float((uint32_t)g[13]);
    const float *from = p[1];
    tt_ix pixel, c, k, l;
    start(dx, g, g[14]);
    for (pixel = 0; pixel < s.pixels; pixel++) {
        look_at(&s, pixel);
        for (k = s.k0; k < s.k1; k++) {
            for (l = s.l0; l < s.l1; l++) {
                float *to = dx + (s.corner + k * s.w + l) * s.c;
                for (c = 0; c < s.c; c++) to[c] += from[pixel * s.c + c] * factor;
            }
        }
    }
}
