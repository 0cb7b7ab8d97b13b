/* Matrix products over leading axes that broadcast, and the embedding. Every output of a product is
   one sum over k ascending, from +0 or the stored value. */
#include "tt_product.h"

#include "tt_math.h"

enum { RANK = 6 };

void tt_kernel_matmul(void *const *p, const int32_t *g) {
    const int32_t *sizes = g + 9, *left = sizes + g[8], *right = left + g[8];
    tt_ix index[RANK] = {0}, a = 0, b = 0, items = 1, k, item;
    tt_product q = {0};
    q.m = g[0], q.n = g[1], q.ki = g[2], q.ko = 1, q.add = g[3];
    q.c_rs = q.n, q.a_rs = g[4], q.a_ki = g[5];
    for (k = 0; k < g[8]; k++) items *= sizes[k];
    for (item = 0; item < items; item++) {
        q.c = (float *)p[0] + item * q.m * q.n;
        q.a = (const float *)p[1] + a;
        q.b = (const float *)p[2] + b;
        if (g[7] == 1) {
            q.b_ki = g[6];
            tt_gemm(&q);
        } else {
            q.b_ki = g[6], q.b_ko = g[7];
            tt_across(&q);
        }
        for (k = g[8] - 1; k >= 0; k--) { /* the next matrices */
            a += left[k], b += right[k];
            if (++index[k] < sizes[k]) break;
            a -= sizes[k] * left[k], b -= sizes[k] * right[k], index[k] = 0;
        }
    }
}

/* p - lr * (a^T b): every tile of the gradient meets its weights in registers. */
void tt_kernel_matmul_tn_sgd(void *const *p, const int32_t *g) {
    tt_product q = {0};
    q.m = g[0], q.n = q.c_rs = q.b_ki = g[1], q.ki = g[2], q.ko = 1;
    q.c = p[0], q.weights = p[1], q.rate = *(const float *)p[4];
    q.a = p[2], q.a_rs = 1, q.a_ki = g[0], q.b = p[3];
    tt_gemm(&q);
}

/* velocity = momentum * velocity (+ decay * weights) + a^T b, and weights - lr * velocity, in one pass
   over both. */
void tt_kernel_matmul_tn_momentum(void *const *p, const int32_t *g) {
    tt_product q = {0};
    q.m = g[0], q.n = q.c_rs = q.b_ki = g[1], q.ki = g[2], q.ko = 1;
    q.momentum = tt_float((uint32_t)g[3]), q.decay = tt_float((uint32_t)g[4]);
    q.c = p[0], q.moved = p[1], q.velocity = p[2], q.weights = p[3];
    q.decayed = g[4] ? q.weights : 0, q.rate = *(const float *)p[6];
    q.a = p[4], q.a_rs = 1, q.a_ki = g[0], q.b = p[5];
    tt_gemm(&q);
}

static tt_ix row_of(const int32_t *indices, tt_ix k, tt_ix rows) {
    int32_t i = indices[k];
    return i < 0 ? 0 : i < rows ? i : rows - 1; /* bounds are checked before a step */
}

void tt_kernel_embedding(void *const *p, const int32_t *g) {
    float *y = p[0];
    const float *table = p[1];
    tt_ix k, i, width = g[2];
    for (k = 0; k < g[0]; k++) {
        const float *row = table + row_of(p[2], k, g[1]) * width;
        for (i = 0; i < width; i++) *y++ = row[i];
    }
}

void tt_kernel_embedding_vjp(void *const *p, const int32_t *g) {
    float *dtable = p[0];
    const float *from = p[1];
    tt_ix k, i, width = g[2];
    if (!g[3])
        for (k = 0; k < g[1] * width; k++) dtable[k] = 0.0f;
    for (k = 0; k < g[0]; k++) {
        float *row = dtable + row_of(p[2], k, g[1]) * width;
        for (i = 0; i < width; i++) row[i] += *from++;
    }
}
