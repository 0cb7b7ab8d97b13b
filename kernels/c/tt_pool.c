/* Pooling over windows, channels last. An average is one sum from +0, window row then column
   ascending, times 1 / window. The gradients add, from +0 or the stored value, output pixels
   ascending. The first of equal maxima is taken, and a NaN is larger than any number. */
#include "tt_lanes.h"

typedef struct {
    tt_ix h, w, c, ho, wo, kh, kw, sh, sw, top, left, pixels;
    tt_ix image, i, j, corner, k0, k1, l0, l1; /* the present pixel, its window, the taps inside */
} pool;

static void look(pool *s) {
    tt_ix y = s->i * s->sh - s->top, x = s->j * s->sw - s->left;
    s->k0 = y < 0 ? -y : 0, s->k1 = s->h - y < s->kh ? s->h - y : s->kh;
    s->l0 = x < 0 ? -x : 0, s->l1 = s->w - x < s->kw ? s->w - x : s->kw;
    s->corner = (s->image * s->h + y) * s->w + x;
}

static pool pool_of(const int32_t *g) {
    pool s = {0};
    s.h = g[1], s.w = g[2], s.c = g[3], s.ho = g[4], s.wo = g[5];
    s.kh = g[7], s.kw = g[8], s.sh = g[9], s.sw = g[10], s.top = g[11], s.left = g[12];
    s.pixels = (tt_ix)g[0] * g[4] * g[5];
    look(&s);
    return s;
}

static void next(pool *s) {
    if (++s->j == s->wo) {
        s->j = 0;
        if (++s->i == s->ho) s->i = 0, s->image++;
    }
    look(s);
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
    for (pixel = 0; pixel < s.pixels; pixel++, y += s.c, next(&s)) {
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
    for (pixel = 0; pixel < s.pixels; pixel++, next(&s)) {
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

/* The average of the present window, for some channels from x on. */
ALWAYS void average(float *y, const float *x, const pool *s, wide factor, const int cut, tt_ix n) {
    wide total = {0};
    tt_ix k, l;
    for (k = s->k0; k < s->k1; k++)
        for (l = s->l0; l < s->l1; l++)
            total += load(x + (s->corner + k * s->w + l) * s->c, cut, n);
    store(y, total * factor, cut, n);
}

void tt_kernel_avg_pool2d(void *const *p, const int32_t *g) {
    pool s = pool_of(g);
    float *y = p[0];
    const wide factor = splat(tt_float((uint32_t)g[13]));
    const float *x = p[1];
    tt_ix pixel, c;
    for (pixel = 0; pixel < s.pixels; pixel++, y += s.c, next(&s)) {
        for (c = 0; c + LANES <= s.c; c += LANES) average(y + c, x + c, &s, factor, 0, 0);
        if (c < s.c) average(y + c, x + c, &s, factor, 1, s.c - c);
    }
}

/* Every tap of the present window gains the same. */
ALWAYS void share_out(float *dx, const float *from, const pool *s, wide factor, const int cut,
                      tt_ix n) {
    const wide value = load(from, cut, n) * factor;
    tt_ix k, l;
    for (k = s->k0; k < s->k1; k++) {
        for (l = s->l0; l < s->l1; l++) {
            float *to = dx + (s->corner + k * s->w + l) * s->c;
            store(to, load(to, cut, n) + value, cut, n);
        }
    }
}

void tt_kernel_avg_pool2d_vjp(void *const *p, const int32_t *g) {
    pool s = pool_of(g);
    float *dx = p[0];
    const wide factor = splat(tt_float((uint32_t)g[13]));
    const float *from = p[1];
    tt_ix pixel, c;
    start(dx, g, g[14]);
    for (pixel = 0; pixel < s.pixels; pixel++, from += s.c, next(&s)) {
        for (c = 0; c + LANES <= s.c; c += LANES) share_out(dx + c, from + c, &s, factor, 0, 0);
        if (c < s.c) share_out(dx + c, from + c, &s, factor, 1, s.c - c);
    }
}

/* `share` numbers of `bits` bits lie in a byte: constants where these are called, so that a
   compiler can unroll the inner loops. */
static void index_pack(uint8_t *y, const uint8_t *index, tt_ix n, int share, int bits) {
    unsigned low = (1u << bits) - 1u;
    tt_ix i;
    int k;
    for (i = 0; i < n; i += share) {
        unsigned byte = 0u;
        if (n - i >= share)
            for (k = 0; k < share; k++) byte |= (index[i + k] & low) << bits * k;
        else
            for (k = 0; k < (int)(n - i); k++) byte |= (index[i + k] & low) << bits * k;
        *y++ = (uint8_t)byte;
    }
}

static void index_unpack(uint8_t *index, const uint8_t *y, tt_ix n, int share, int bits) {
    unsigned low = (1u << bits) - 1u;
    tt_ix i;
    int k;
    for (i = 0; i < n; i += share, y++) {
        if (n - i >= share)
            for (k = 0; k < share; k++) index[i + k] = (uint8_t)(*y >> bits * k & low);
        else
            for (k = 0; k < (int)(n - i); k++) index[i + k] = (uint8_t)(*y >> bits * k & low);
    }
}

void tt_kernel_index_pack(void *const *p, const int32_t *g) {
    if (g[1] == 2)
        index_pack(p[0], p[1], g[0], 4, 2);
    else
        index_pack(p[0], p[1], g[0], 2, 4);
}

void tt_kernel_index_unpack(void *const *p, const int32_t *g) {
    if (g[1] == 2)
        index_unpack(p[0], p[1], g[0], 4, 2);
    else
        index_unpack(p[0], p[1], g[0], 2, 4);
}
