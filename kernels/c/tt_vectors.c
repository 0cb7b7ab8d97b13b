/* The products for hosts (-DTT_VECTORS), in the vector extensions of GCC and Clang: a tile of sums is
   held in registers, lanes run along the columns. The sums are those of tt_product.c, bit for bit:
   a tile only chooses which outputs share the registers. */
#include "tt_product.h"

#include "tt_math.h"

#ifdef TT_VECTORS

/* Lanes of a vector, and the tile's rows and vectors: what does not spill where products and sums
   are two instructions. */
#if defined __AVX512F__
enum { LANES = 16, ROWS = 8, VECTORS = 2 };
#elif defined __AVX__
enum { LANES = 8, ROWS = 4, VECTORS = 2 };
#elif defined __aarch64__
enum { LANES = 4, ROWS = 6, VECTORS = 2 };
#else
enum { LANES = 4, ROWS = 4, VECTORS = 2 };
#endif
enum { MOST_ROWS = 8, MOST_VECTORS = 2 };
enum { DEEP = 128, BROAD = 2 * LANES }; /* a block of b that is brought together: 16 KB at most */
enum { FAR = 512, MANY = 32 }; /* floats between rows, and rows of a, from which that pays */

typedef float wide __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float four __attribute__((vector_size(16), aligned(4), may_alias));
typedef float eight __attribute__((vector_size(32), aligned(4), may_alias));

#define ALWAYS static inline __attribute__((always_inline))
#if defined __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

/* Of type T: `rows` x `vectors` sums from row m, column n on. */
#define TILE(name, T)                                                                              \
    ALWAYS void name(const tt_product *q, tt_ix m, tt_ix n, const int rows, const int vectors,     \
                     const int lanewise) {                                                         \
        const tt_ix width = (tt_ix)(sizeof(T) / 4);                                                \
        const tt_ix a_rs = q->a_rs, a_ki = q->a_ki, b_ki = q->b_ki;                                \
        float *c = q->c + m * q->c_rs + n;                                                         \
        T s[MOST_ROWS][MOST_VECTORS], b[MOST_VECTORS];                                             \
        tt_ix o, k;                                                                                \
        int r, v;                                                                                  \
        UNROLL for (r = 0; r < rows; r++) UNROLL for (v = 0; v < vectors; v++) {                   \
            const T nothing = {0};                                                                 \
            s[r][v] = q->add ? *(const T *)(c + r * q->c_rs + v * width) : nothing;                \
        }                                                                                          \
        for (o = 0; o < q->ko; o++) {                                                              \
            const float *at = q->a + m * a_rs + o * q->a_ko + (lanewise ? n : 0);                  \
            const float *from = q->b + n + o * q->b_ko;                                            \
            for (k = q->ki; k > 0; k--, at += a_ki, from += b_ki) {                                \
                UNROLL for (v = 0; v < vectors; v++) b[v] = *(const T *)(from + v * width);        \
                UNROLL for (r = 0; r < rows; r++) UNROLL for (v = 0; v < vectors; v++) {           \
                    if (lanewise)                                                                  \
                        s[r][v] += *(const T *)(at + r * a_rs + v * width) * b[v];                 \
                    else                                                                           \
                        s[r][v] += at[r * a_rs] * b[v];                                            \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        UNROLL for (r = 0; r < rows; r++) UNROLL for (v = 0; v < vectors; v++) {                   \
            if (q->bias) s[r][v] += *(const T *)(q->bias + n + v * width);                         \
            *(T *)(c + r * q->c_rs + v * width) = s[r][v];                                         \
        }                                                                                          \
    }

/* All rows of some columns: as many at a time as a tile has, then fewer. */
#define COLUMNS(name, tile, most, vectors, lanewise)                                               \
    static void name(const tt_product *q, tt_ix n) {                                               \
        tt_ix m = 0;                                                                               \
        for (; q->m - m >= most; m += most) tile(q, m, n, most, vectors, lanewise);                \
        for (; most > 4 && q->m - m >= 4; m += 4) tile(q, m, n, 4, vectors, lanewise);             \
        for (; q->m - m >= 2; m += 2) tile(q, m, n, 2, vectors, lanewise);                         \
        for (; m < q->m; m++) tile(q, m, n, 1, vectors, lanewise);                                 \
    }

TILE(tile_wide, wide)
TILE(tile_one, float)
COLUMNS(gemm_many, tile_wide, ROWS, VECTORS, 0)
COLUMNS(gemm_wide, tile_wide, ROWS, 1, 0)
COLUMNS(gemm_one, tile_one, 4, 1, 0)
COLUMNS(lanewise_wide, tile_wide, 4, 1, 1)
COLUMNS(lanewise_one, tile_one, 4, 1, 1)
#if defined __AVX512F__
TILE(tile_eight, eight)
COLUMNS(gemm_eight, tile_eight, ROWS, 1, 0)
COLUMNS(lanewise_eight, tile_eight, 4, 1, 1)
#endif
#if defined __AVX__
TILE(tile_four, four)
COLUMNS(gemm_four, tile_four, ROWS, 1, 0)
COLUMNS(lanewise_four, tile_four, 4, 1, 1)
#endif

static void gemm_near(const tt_product *q) {
    tt_ix n = 0;
    for (; q->n - n >= VECTORS * LANES; n += VECTORS * LANES) gemm_many(q, n);
    for (; q->n - n >= LANES; n += LANES) gemm_wide(q, n);
#if defined __AVX512F__
    for (; q->n - n >= 8; n += 8) gemm_eight(q, n);
#endif
#if defined __AVX__
    for (; q->n - n >= 4; n += 4) gemm_four(q, n);
#endif
    for (; n < q->n; n++) gemm_one(q, n);
}

void tt_lanewise(const tt_product *q) {
    tt_ix n = 0;
    for (; q->n - n >= LANES; n += LANES) lanewise_wide(q, n);
#if defined __AVX512F__
    for (; q->n - n >= 8; n += 8) lanewise_eight(q, n);
#endif
#if defined __AVX__
    for (; q->n - n >= 4; n += 4) lanewise_four(q, n);
#endif
    for (; n < q->n; n++) lanewise_one(q, n);
}

/* A block of b, `deep` by `broad`, as rows of a buffer. */
static void pack(float *block, const float *b, tt_ix deep, tt_ix broad, tt_ix b_ki, tt_ix b_ko) {
    tt_ix i, k;
    if (b_ko == 1) {
        for (k = 0; k < deep; k++)
            for (i = 0; i < broad; i++) block[k * BROAD + i] = b[k * b_ki + i];
        return;
    }
    for (i = 0; i < broad; i++)
        for (k = 0; k < deep; k++) block[k * BROAD + i] = b[i * b_ko + k * b_ki];
}

/* A block of b at a time is brought together in a buffer, its columns as rows. */
void tt_across(const tt_product *q) {
    float block[DEEP * BROAD];
    tt_product part = *q;
    tt_ix n, first;
    part.b = block, part.b_ki = BROAD, part.ko = 1, part.a_ko = part.b_ko = 0;
    for (n = 0; n < q->n; n += BROAD) {
        part.n = q->n - n < BROAD ? q->n - n : BROAD;
        part.c = q->c + n;
        part.add = q->add;
        for (first = 0; first < q->ki || first == 0; first += DEEP, part.add = 1) {
            part.ki = q->ki - first < DEEP ? q->ki - first : DEEP;
            part.a = q->a + first * q->a_ki;
            pack(block, q->b + n * q->b_ko + first * q->b_ki, part.ki, part.n, q->b_ki, q->b_ko);
            gemm_near(&part);
        }
    }
}

/* Rows of b that lie pages apart are brought together where many rows of a use them. */
void tt_gemm(const tt_product *q) {
    if (q->b_ki >= FAR && q->m >= MANY && q->ko == 1 && !q->bias) {
        tt_product turned = *q;
        turned.b_ko = 1;
        tt_across(&turned);
    } else {
        gemm_near(q);
    }
}
#else
typedef int tt_no_vectors; /* a file may not be empty */
#endif
