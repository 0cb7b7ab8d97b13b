/* The products for hosts (-DTT_VECTORS), in the vector extensions of GCC and Clang: a tile of sums is
   held in registers, lanes run along the columns. The sums are those of tt_product.c, bit for bit:
   a tile only chooses which outputs share the registers. */
#if defined TT_VECTORS && defined __AVX__
#include <immintrin.h>
#elif defined TT_VECTORS && defined __aarch64__
#include <arm_neon.h>
#endif

#include "tt_lanes.h"
#include "tt_product.h"

#ifdef TT_VECTORS

/* The tile's rows and vectors: what measures best where products and sums are two instructions. With
   one vector of AVX-512 a factor of `a` is broadcast by the product that reads it; with two it wants an
   instruction of its own, and the tile half as much time again (Zen 4). THIN: vectors for four rows
   or fewer, so that weights which are read once are read in long pieces. */
#if defined __AVX512F__ && defined __AVX512VL__
enum { ROWS = 8, VECTORS = 1, THIN = 4 };
#elif defined __AVX__
enum { ROWS = 4, VECTORS = 2, THIN = 2 };
#elif defined __aarch64__
enum { ROWS = 6, VECTORS = 2, THIN = 4 };
#else
enum { ROWS = 4, VECTORS = 2, THIN = 2 };
#endif
enum { FEW = 4, LONG = 2 * THIN, MOST_ROWS = 8, MOST_VECTORS = LONG };

#define APART static __attribute__((noinline))
#if defined __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
#if defined __AVX512F__ && defined __AVX512VL__ && !defined __clang__
#define TWICE _Pragma("GCC unroll 2") /* two terms a turn: there are registers for it */
#else
#define TWICE
#endif
#ifndef TT_MASKS /* no column of a product is ever cut */
#define some_of_float(p, left) (*(p))
#define some_to_float(p, x, left) (void)(*(p) = (x))
#endif

/* s + a * b; where the products are asked to be fused (-DTT_FMA), with one rounding instead of two: the
   bits are then this machine's own. */
#if defined TT_FMA && defined __AVX512F__ && defined __AVX512VL__
#define PLUS_wide(s, a, b) (wide) _mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(s))
#define PLUS_half(s, a, b) (half) _mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(s))
#elif defined TT_FMA && defined __AVX__ && defined __FMA__
#define PLUS_wide(s, a, b) (wide) _mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(s))
#define PLUS_half(s, a, b) (half) _mm_fmadd_ps((__m128)(a), (__m128)(b), (__m128)(s))
#elif defined TT_FMA && defined __aarch64__
#define PLUS_wide(s, a, b) (wide) vfmaq_f32((float32x4_t)(s), (float32x4_t)(a), (float32x4_t)(b))
#define PLUS_float(s, a, b) __builtin_fmaf(a, b, s)
#else
#define PLUS_wide(s, a, b) ((s) + (a) * (b))
#define PLUS_half(s, a, b) ((s) + (a) * (b))
#define PLUS_float(s, a, b) ((s) + (a) * (b))
#endif
#define EVERY(T, x) ((x) - nothing) /* the same float in every lane */

#define EACH_ROW UNROLL for (r = 0; r < rows; r++)
#define EACH EACH_ROW UNROLL for (v = 0; v < vectors; v++)
#define LOAD(T, p) (cut ? some_of_##T(p, left) : *(const T *)(p))
#define STORE(T, p, x) (cut ? some_to_##T(p, x, left) : (void)(*(T *)(p) = (x)))

/* Of type T: `rows` x `vectors` sums from row m, column n on; with `cut`, of `left` columns. `outer`: a's
   rows lie side by side and the terms in one stretch, as in a dense weight's gradient. */
#define TILE(T)                                                                                    \
    ALWAYS void tile_##T(const tt_product *q, tt_ix m, tt_ix n, tt_ix left, const int rows,        \
                         const int vectors, const int lanewise, const int cut,                     \
                         const int outer) {                                                        \
        const tt_ix width = (tt_ix)(sizeof(T) / 4), c_rs = q->c_rs, a_rs = outer ? 1 : q->a_rs;    \
        const tt_ix a_ki = q->a_ki, b_ki = q->b_ki, ki = q->ki, ko = outer ? 1 : q->ko;            \
        float *c = q->c + m * c_rs + n;                                                            \
        T s[MOST_ROWS][MOST_VECTORS], b[MOST_VECTORS];                                             \
        const T nothing = {0};                                                                     \
        tt_ix o, k;                                                                                \
        int r, v;                                                                                  \
        (void)left; /* where no vector is cut */                                                   \
        if (!lanewise && q->velocity) {                                                            \
            const float *old = q->velocity + m * c_rs + n;                                         \
            EACH s[r][v] = LOAD(T, old + r * c_rs + v * width) * q->momentum;                      \
            if (q->decayed) {                                                                      \
                old = q->decayed + m * c_rs + n;                                                   \
                EACH s[r][v] += q->decay * LOAD(T, old + r * c_rs + v * width);                    \
            }                                                                                      \
        } else if (q->add) {                                                                       \
            EACH s[r][v] = LOAD(T, c + r * c_rs + v * width);                                      \
        } else {                                                                                   \
            EACH s[r][v] = nothing;                                                                \
        }                                                                                          \
        for (o = 0; o < ko; o++) {                                                                 \
            const float *at = q->a + m * a_rs + o * q->a_ko + (lanewise ? n : 0);                  \
            const float *from = q->b + n + o * q->b_ko;                                            \
            TWICE for (k = ki; k > 0; k--, at += a_ki, from += b_ki) {                             \
                UNROLL for (v = 0; v < vectors; v++) b[v] = LOAD(T, from + v * width);             \
                EACH {                                                                             \
                    if (lanewise)                                                                  \
                        s[r][v] = PLUS_##T(s[r][v], LOAD(T, at + r * a_rs + v * width), b[v]);     \
                    else                                                                           \
                        s[r][v] = PLUS_##T(s[r][v], EVERY(T, at[r * a_rs]), b[v]);                 \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        if (q->bias) EACH s[r][v] += LOAD(T, q->bias + n + v * width);                             \
        if (!lanewise && q->moved) {                                                               \
            const float *old = q->weights + m * c_rs + n, rate = q->rate;                          \
            float *to = q->moved + m * c_rs + n;                                                   \
            EACH STORE(T, to + r * c_rs + v * width,                                               \
                       LOAD(T, old + r * c_rs + v * width) - rate * s[r][v]);                      \
        } else if (q->weights) {                                                                   \
            const float *old = q->weights + m * c_rs + n, rate = q->rate;                          \
            EACH s[r][v] = LOAD(T, old + r * c_rs + v * width) - rate * s[r][v];                   \
        }                                                                                          \
        EACH STORE(T, c + r * c_rs + v * width, s[r][v]);                                          \
    }

/* The rows of the next tile, of `rest`: no tile of one or two is left over where it can be helped. */
ALWAYS int height(const int most, tt_ix rest) {
    if (most == 8 && (rest == 9 || rest == 10)) return 5;
    if (most == 8 && rest == 7) return 4;
    return rest < most ? (int)rest : most;
}

/* All rows of the columns from n on. */
#define ROWS_OF(T, rows, most, vectors, lanewise, cut)                                             \
    case rows:                                                                                     \
        if (rows <= most) tile_##T(q, m, n, left, rows, vectors, lanewise, cut, 0);                \
        break;
#define COLUMNS(name, T, most, vectors, lanewise, cut)                                             \
    static void name(const tt_product *q, tt_ix n, tt_ix left) {                                   \
        tt_ix m = 0;                                                                               \
        while (m < q->m) {                                                                         \
            const int rows = height(most, q->m - m);                                               \
            switch (rows) {                                                                        \
                ROWS_OF(T, 1, most, vectors, lanewise, cut)                                        \
                ROWS_OF(T, 2, most, vectors, lanewise, cut)                                        \
                ROWS_OF(T, 3, most, vectors, lanewise, cut)                                        \
                ROWS_OF(T, 4, most, vectors, lanewise, cut)                                        \
                ROWS_OF(T, 5, most, vectors, lanewise, cut)                                        \
                ROWS_OF(T, 6, most, vectors, lanewise, cut)                                        \
                ROWS_OF(T, 8, most, vectors, lanewise, cut)                                        \
            }                                                                                      \
            m += rows;                                                                             \
        }                                                                                          \
    }

TILE(wide)
COLUMNS(gemm_thin, wide, FEW, THIN, 0, 0)
COLUMNS(gemm_many, wide, ROWS, VECTORS, 0, 0)
COLUMNS(gemm_wide, wide, ROWS, 1, 0, 0)
COLUMNS(lanewise_wide, wide, 4, 1, 1, 0)
#ifdef TT_MASKS
TILE(half)
COLUMNS(gemm_some, wide, ROWS, 1, 0, 1)
COLUMNS(gemm_half, half, ROWS, 1, 0, 1)
COLUMNS(lanewise_some, wide, 4, 1, 1, 1)
COLUMNS(lanewise_half, half, 4, 1, 1, 1)

/* The columns from n on, less than a vector of them: half a vector costs half. */
#define LAST(kind)                                                                                 \
    if (q->n - n > LANES / 2)                                                                      \
        kind##_some(q, n, q->n - n);                                                               \
    else if (q->n > n)                                                                             \
        kind##_half(q, n, q->n - n)
#else
TILE(float)
COLUMNS(gemm_one, float, 4, 1, 0, 0)
COLUMNS(lanewise_one, float, 4, 1, 1, 0)
#define LAST(kind)                                                                                 \
    for (; n < q->n; n++) kind##_one(q, n, 0)
#endif

static void gemm_near(const tt_product *q) {
    tt_ix n = 0;
    for (; q->m <= FEW && q->n - n >= THIN * LANES; n += THIN * LANES) gemm_thin(q, n, 0);
    for (; VECTORS > 1 && q->n - n >= VECTORS * LANES; n += VECTORS * LANES) gemm_many(q, n, 0);
    for (; q->n - n >= LANES; n += LANES) gemm_wide(q, n, 0);
    LAST(gemm);
}

void tt_lanewise(const tt_product *q) {
    tt_ix n = 0;
    for (; q->n - n >= LANES; n += LANES) lanewise_wide(q, n, 0);
    LAST(lanewise);
}

/* ------------------------------------------------------------------ a matrix read across */

/* Rows r, r + 4, r + 8, ... of b side by side, four of each. */
#if defined __AVX512F__ && defined __AVX512VL__
ALWAYS __m512 beside(const float *const *rows, tt_ix k) {
    __m512 x = _mm512_castps128_ps512(_mm_loadu_ps(rows[0] + k));
    x = _mm512_insertf32x4(x, _mm_loadu_ps(rows[4] + k), 1);
    x = _mm512_insertf32x4(x, _mm_loadu_ps(rows[8] + k), 2);
    return _mm512_insertf32x4(x, _mm_loadu_ps(rows[12] + k), 3);
}
#define LOW(a, b) _mm512_unpacklo_ps(a, b)
#define HIGH(a, b) _mm512_unpackhi_ps(a, b)
#define FIRSTS(a, b) (wide)_mm512_shuffle_ps(a, b, 0x44)
#define LASTS(a, b) (wide)_mm512_shuffle_ps(a, b, 0xee)
#elif defined __AVX__
ALWAYS __m256 beside(const float *const *rows, tt_ix k) {
    __m256 x = _mm256_castps128_ps256(_mm_loadu_ps(rows[0] + k));
    return _mm256_insertf128_ps(x, _mm_loadu_ps(rows[4] + k), 1);
}
#define LOW(a, b) _mm256_unpacklo_ps(a, b)
#define HIGH(a, b) _mm256_unpackhi_ps(a, b)
#define FIRSTS(a, b) (wide)_mm256_shuffle_ps(a, b, 0x44)
#define LASTS(a, b) (wide)_mm256_shuffle_ps(a, b, 0xee)
#elif defined __SSE__
#define beside(rows, k) _mm_loadu_ps((rows)[0] + (k))
#define LOW(a, b) _mm_unpacklo_ps(a, b)
#define HIGH(a, b) _mm_unpackhi_ps(a, b)
#define FIRSTS(a, b) (wide)_mm_shuffle_ps(a, b, 0x44)
#define LASTS(a, b) (wide)_mm_shuffle_ps(a, b, 0xee)
#elif defined __aarch64__
#define beside(rows, k) vld1q_f32((rows)[0] + (k))
#define LOW(a, b) vzip1q_f32(a, b)
#define HIGH(a, b) vzip2q_f32(a, b)
#define FIRSTS(a, b) (wide)vcombine_f32(vget_low_f32(a), vget_low_f32(b))
#define LASTS(a, b) (wide)vcombine_f32(vget_high_f32(a), vget_high_f32(b))
#endif

/* Lanes [0, left) (all, if it is 0) of LANES rows, turned: to[k * step + lane] = rows[lane][k]. */
ALWAYS void turn(float *to, tt_ix step, const float *const *rows, tt_ix count, const int cut,
                 tt_ix left) {
    tt_ix k = 0, lane;
#ifdef LOW
    for (; k + 4 <= count; k += 4, to += 4 * step) {
        const __typeof__(beside(rows, k)) a = beside(rows, k), b = beside(rows + 1, k);
        const __typeof__(beside(rows, k)) c = beside(rows + 2, k), d = beside(rows + 3, k);
        const wide turned[4] = {FIRSTS(LOW(a, b), LOW(c, d)), LASTS(LOW(a, b), LOW(c, d)),
                                FIRSTS(HIGH(a, b), HIGH(c, d)), LASTS(HIGH(a, b), HIGH(c, d))};
        for (lane = 0; lane < 4; lane++) {
            if (cut)
                some_to_wide(to + lane * step, turned[lane], left);
            else
                *(wide *)(to + lane * step) = turned[lane];
        }
    }
#endif
    for (; k < count; k++, to += step)
        for (lane = 0; lane < (cut ? left : LANES); lane++) to[lane] = rows[lane][k];
}

void tt_turn(float *to, tt_ix step, const float *from, tt_ix stride, tt_ix lanes, tt_ix count) {
    const float *rows[LANES];
    tt_ix n, k, lane;
    for (n = 0; n < lanes; n += LANES, to += LANES) {
        for (lane = 0; lane < LANES; lane++) /* what is not there is the last row again */
            rows[lane] = from + (n + lane < lanes ? n + lane : lanes - 1) * stride;
        if (lanes - n >= LANES) {
            turn(to, step, rows, count, 0, 0);
            continue;
        }
#ifdef TT_MASKS
        turn(to, step, rows, count, 1, lanes - n);
#else
        for (k = 0; k < count; k++)
            for (lane = 0; lane < lanes - n; lane++) to[k * step + lane] = rows[lane][k];
#endif
    }
    (void)k;
}

/* As rows of a buffer, `deep` by `n` of a block of b: columns that lie `b_ko` apart are turned. */
static void gather(float *block, tt_ix broad, const float *b, tt_ix b_ki, tt_ix b_ko, tt_ix n,
                   tt_ix deep) {
    tt_ix k, lane;
    if (b_ko == 1)
        for (k = 0; k < deep; k++)
            for (lane = 0; lane < n; lane++) block[k * broad + lane] = b[k * b_ki + lane];
    else
        tt_turn(block, broad, b, b_ko, n, deep);
}

enum { DEEP = 64 * 4, ROOM = DEEP * LANES }; /* rows of a vector that a block has, and its floats */

/* A block of b at a time is brought together in a buffer: broad for few rows of a, else deep. */
void tt_across(const tt_product *q) {
    float block[ROOM];
    const tt_ix broad = q->m <= FEW ? THIN * LANES : LANES, deep = ROOM / broad;
    tt_product part = *q;
    tt_ix n, first;
    part.b = block, part.b_ki = broad, part.ko = 1, part.a_ko = part.b_ko = 0;
    for (n = 0; n < q->n; n += broad) {
        part.n = q->n - n < broad ? q->n - n : broad;
        part.c = q->c + n;
        part.add = q->add;
        for (first = 0; first < q->ki || first == 0; first += deep, part.add = 1) {
            const int last = first + deep >= q->ki;
            part.bias = last && q->bias ? q->bias + n : 0;
            part.weights = last && q->weights ? q->weights + n : 0;
            part.moved = last && q->moved ? q->moved + n : 0;
            part.velocity = first == 0 && q->velocity ? q->velocity + n : 0;
            part.decayed = q->decayed ? q->decayed + n : 0;
            part.ki = last ? q->ki - first : deep;
            part.a = q->a + first * q->a_ki;
            gather(block, broad, q->b + n * q->b_ko + first * q->b_ki, q->b_ki, q->b_ko, part.n,
                   part.ki);
            gemm_near(&part);
        }
    }
}

/* What is left of a product from row m, column n on. */
static tt_product left_of(const tt_product *q, tt_ix m, tt_ix n) {
    const tt_ix at = m * q->c_rs + n;
    tt_product p = *q;
    p.m -= m, p.n -= n, p.c += at, p.a += m * q->a_rs, p.b += n;
    if (p.bias) p.bias += n;
    if (p.weights) p.weights += at;
    if (p.moved) p.moved += at;
    if (p.velocity) p.velocity += at;
    if (p.decayed) p.decayed += at;
    return p;
}

/* A vector of velocities at `at`, of row factors and of b, and the weights that it moves. */
ALWAYS void move_some(const tt_product *q, tt_ix at, wide factor, const float *b, const int cut,
                      tt_ix left) {
    const wide old = load(q->weights + at, cut, left);
    wide s = load(q->velocity + at, cut, left) * q->momentum;
    if (q->decayed) s += q->decay * load(q->decayed + at, cut, left);
    s = PLUS_wide(s, factor, load(b, cut, left));
    store(q->c + at, s, cut, left);
    store(q->moved + at, old - q->rate * s, cut, left);
}

/* Velocities that gain one product each: there is hardly more than to read and write. */
static void move_rows(const tt_product *given) {
    const tt_product q = *given; /* its own: what is stored cannot change it */
    tt_ix m, n;
    for (m = 0; m < q.m; m++) {
        const wide factor = splat(q.a[m * q.a_rs]);
        for (n = 0; q.n - n >= LANES; n += LANES)
            move_some(&q, m * q.c_rs + n, factor, q.b + n, 0, 0);
        if (n < q.n) move_some(&q, m * q.c_rs + n, factor, q.b + n, 1, q.n - n);
    }
}

/* Columns that are less than a vector, of ROWS rows. By itself, as each of the blocks below: together
   they would want more registers than there are. */
APART void block_end(const tt_product *q, tt_ix m, tt_ix n) {
#ifdef TT_MASKS
    tile_wide(q, m, n, q->n - n, ROWS, 1, 0, 1, 0);
#else
    for (; n < q->n; n++) tile_float(q, m, n, 0, ROWS, 1, 0, 0, 0);
#endif
}

/* Outputs in the order in which they lie, for there is less to compute than to read and write: a few
   rows of one vector after the other. */
ALWAYS void in_blocks(const tt_product *given, const int outer) {
    const tt_product q = *given; /* its own: what is stored cannot change it */
    tt_ix m, n;
    for (m = 0; q.m - m >= ROWS; m += ROWS) {
        for (n = 0; VECTORS > 1 && q.n - n >= VECTORS * LANES; n += VECTORS * LANES)
            tile_wide(&q, m, n, 0, ROWS, VECTORS, 0, 0, outer);
        for (; q.n - n >= LANES; n += LANES) tile_wide(&q, m, n, 0, ROWS, 1, 0, 0, outer);
        if (n < q.n) block_end(&q, m, n);
    }
    if (m < q.m) {
        const tt_product left = left_of(&q, m, 0);
        gemm_near(&left);
    }
}

/* The same with a term or two: one row of long pieces after the other; the columns that are left. */
APART tt_product in_pieces(const tt_product *q) {
    enum { PIECE = LONG * LANES };
    tt_ix m, n = 0;
    for (m = 0; m < q->m; m++)
        for (n = 0; q->n - n >= PIECE; n += PIECE) tile_wide(q, m, n, 0, 1, LONG, 0, 0, 0);
    return left_of(q, 0, n);
}

APART void outer_blocks(const tt_product *q) { in_blocks(q, 1); }
APART void any_blocks(const tt_product *q) { in_blocks(q, 0); }

static void gemm_shallow(const tt_product *q) {
    const tt_product left = q->ko * q->ki <= 2 ? in_pieces(q) : *q;
    if (left.a_rs == 1 && left.ko == 1)
        outer_blocks(&left);
    else
        any_blocks(&left);
}

/* Rows of b that lie pages apart are brought together where many rows of a use them. Not where a sum
   of several blocks would wait in place of the weights that it is to be taken from. */
void tt_gemm(const tt_product *q) {
    enum { FAR = 512, MANY = 32 }; /* floats between rows, and rows of a, from which that pays */
    enum { SHALLOW = 64 }; /* terms of a sum */
    if (q->moved && q->ko * q->ki == 1 && q->n > LANES) {
        move_rows(q);
    } else if (q->ko * q->ki <= SHALLOW && q->n > LANES) {
        gemm_shallow(q);
    } else if (q->b_ki >= FAR && q->m >= MANY && q->ko == 1 &&
               (!q->weights || q->moved || q->ki <= DEEP)) {
        tt_product together = *q;
        together.b_ko = 1;
        tt_across(&together);
    } else {
        gemm_near(q);
    }
}
#else
typedef int tt_no_vectors; /* a file may not be empty */
#endif
