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

/* Taps of some channels, one a lane, and how they lie in memory if a byte holds one. */
#ifdef TT_VECTORS
typedef int32_t taps __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
#define LANE(x, k) (x)[k]
#else
typedef int32_t taps;
typedef uint8_t bytes;
#define LANE(x, k) (x)
#endif
/* Whether bytes become taps, and taps bytes, all at once: not for GCC before 9. */
#ifndef TT_VECTORS
#define AS(T, x) (T)(x)
enum { AT_ONCE = 1 };
#elif defined __clang__ || __GNUC__ >= 9
#define AS(T, x) __builtin_convertvector(x, T)
enum { AT_ONCE = 1 };
#else
#define AS(T, x) ((T){0})
enum { AT_ONCE = 0 };
#endif

/* x where the mask is set, else y. */
ALWAYS wide chosen(taps mask, wide x, wide y) {
#ifdef TT_VECTORS
    return (wide)((mask & (taps)x) | (~mask & (taps)y));
#else
    return mask ? x : y;
#endif
}

/* Set where x is larger than the best, which is no NaN, or is one. */
ALWAYS taps is_better(wide x, wide best) {
#ifdef TT_VECTORS
    return ~(x <= best) & (best == best);
#else
    return -(taps)(!(x <= best) && best == best);
#endif
}

ALWAYS taps is_tap(taps place, int32_t tap) {
#ifdef TT_VECTORS
    return place == tap;
#else
    return -(taps)(place == tap);
#endif
}

ALWAYS taps taps_at(const void *from, tt_ix at, int narrow, const int cut, tt_ix n) {
    taps found = {0};
    tt_ix k;
    if (!cut && !narrow) return *(const taps *)((const int32_t *)from + at);
    if (!cut && AT_ONCE) return AS(taps, *(const bytes *)((const uint8_t *)from + at));
    for (k = 0; k < (cut ? n : LANES); k++)
        LANE(found, k) = narrow ? ((const uint8_t *)from)[at + k] : ((const int32_t *)from)[at + k];
    return found;
}

ALWAYS void put_taps(void *to, tt_ix at, taps x, int narrow, const int cut, tt_ix n) {
    tt_ix k;
    if (!cut && !narrow) {
        *(taps *)((int32_t *)to + at) = x;
        return;
    }
    if (!cut && AT_ONCE) {
        *(bytes *)((uint8_t *)to + at) = AS(bytes, x);
        return;
    }
    for (k = 0; k < (cut ? n : LANES); k++) {
        if (narrow)
            ((uint8_t *)to)[at + k] = (uint8_t)LANE(x, k);
        else
            ((int32_t *)to)[at + k] = LANE(x, k);
    }
}

/* The largest of the present window, for some channels from c on, and its tap. */
ALWAYS void largest(const pool *s, float *y, void *index, int narrow, const float *x, tt_ix at, tt_ix c,
                    const int cut, tt_ix n) {
    wide best = splat(tt_float(0xff800000u));
    taps place = {0};
    tt_ix k, l;
    for (k = s->k0; k < s->k1; k++) {
        const float *from = x + (s->corner + k * s->w + s->l0) * s->c + c;
        for (l = s->l0; l < s->l1; l++, from += s->c) {
            const wide value = load(from, cut, n);
            const taps better = is_better(value, best);
            best = chosen(better, value, best);
            place = (better & (int32_t)(k * s->kw + l)) | (~better & place);
        }
    }
    store(y + at, best, cut, n);
    if (index) put_taps(index, at, place, narrow, cut, n);
}

void tt_kernel_max_pool2d(void *const *p, const int32_t *g) {
    pool s = pool_of(g);
    tt_ix pixel, at, c;
    for (pixel = 0; pixel < s.pixels; pixel++, next(&s)) {
        for (c = 0, at = pixel * s.c; s.c - c >= LANES; c += LANES, at += LANES)
            largest(&s, p[0], p[1], g[13] == 1, p[2], at, c, 0, 0);
        if (c < s.c) largest(&s, p[0], p[1], g[13] == 1, p[2], at, c, 1, s.c - c);
    }
}

/* What the present window's inputs gain, for some channels from c on. */
ALWAYS void give(const pool *s, float *dx, const float *gradient, const void *index, int narrow,
                 tt_ix at, tt_ix c, const int cut, tt_ix n) {
    const wide more = load(gradient + at, cut, n), nothing = {0};
    const taps place = taps_at(index, at, narrow, cut, n);
    tt_ix k, l;
    for (k = s->k0; k < s->k1; k++) {
        float *to = dx + (s->corner + k * s->w + s->l0) * s->c + c;
        for (l = s->l0; l < s->l1; l++, to += s->c) {
            const taps here = is_tap(place, (int32_t)(k * s->kw + l));
            store(to, load(to, cut, n) + chosen(here, more, nothing), cut, n);
        }
    }
}

void tt_kernel_max_pool2d_vjp(void *const *p, const int32_t *g) {
    pool s = pool_of(g);
    tt_ix pixel, at, c;
    start(p[0], g, g[14]);
    for (pixel = 0; pixel < s.pixels; pixel++, next(&s)) {
        for (c = 0, at = pixel * s.c; s.c - c >= LANES; c += LANES, at += LANES)
            give(&s, p[0], p[1], p[2], g[13] == 1, at, c, 0, 0);
        if (c < s.c) give(&s, p[0], p[1], p[2], g[13] == 1, at, c, 1, s.c - c);
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
