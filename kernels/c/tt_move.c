/* Moving values without computing: strided copies, concat, pad, the gradient of a slice, fill. What
   is copied is four bytes, whatever they mean. */
#include <string.h>

#include "tt_kernels.h"
#include "tt_math.h"

enum { RANK = 6 };

/* One block (see kernels/geometry.py) copied, or, with `add`, added; returns what follows it. */
static const int32_t *block(char *to, const char *from, const int32_t *g, int add) {
    const int32_t *sizes = g + 3, *outs = sizes + g[0], *ins = outs + g[0];
    tt_ix rank = g[0], out = g[1], in = g[2], rows = 1, index[RANK] = {0}, row, k, i;
    tt_ix inner = sizes[rank - 1], out_step = outs[rank - 1], in_step = ins[rank - 1];
    for (k = 0; k < rank - 1; k++) rows *= sizes[k];
    for (row = 0; row < rows; row++) {
        char *y = to + 4 * out;
        const char *x = from + 4 * in;
        if (add) {
            for (i = 0; i < inner; i++) ((float *)y)[i * out_step] += ((const float *)x)[i * in_step];
        } else if (out_step == 1 && in_step == 1) {
            if (y != x && inner) memcpy(y, x, 4 * (size_t)inner);
        } else {
            for (i = 0; i < inner; i++) memcpy(y + 4 * i * out_step, x + 4 * i * in_step, 4);
        }
        for (k = rank - 2; k >= 0; k--) {
            out += outs[k], in += ins[k];
            if (++index[k] < sizes[k]) break;
            out -= sizes[k] * (tt_ix)outs[k], in -= sizes[k] * (tt_ix)ins[k], index[k] = 0;
        }
    }
    return ins + rank;
}

static void set(void *to, tt_ix n, int32_t bits) {
    char *y = to;
    for (; n > 0; n--, y += 4) memcpy(y, &bits, 4);
}

void tt_kernel_move(void *const *p, const int32_t *g) { block(p[0], p[1], g, 0); }

void tt_kernel_concat(void *const *p, const int32_t *g) {
    tt_ix k, parts = g[0];
    for (g++, k = 1; k <= parts; k++) g = block(p[0], p[k], g, 0);
}

void tt_kernel_pad(void *const *p, const int32_t *g) {
    set(p[0], g[0], g[1]);
    block(p[0], p[1], g + 2, 0);
}

void tt_kernel_slice_vjp(void *const *p, const int32_t *g) {
    if (!g[0]) set(p[0], g[1], 0);
    block(p[0], p[1], g + 2, g[0]);
}

void tt_kernel_fill(void *const *p, const int32_t *g) { set(p[0], g[0], g[1]); }
