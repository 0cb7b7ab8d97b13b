/* The bitmap policy: a value as one bit an element and its non-zeros. Bit k of byte j is element
   8 j + k. Only the bits of +0 are dropped; a gradient is a product with 0 or 1, not a choice. */
#include "tt_kernels.h"
#include "tt_math.h"

void tt_kernel_gate_mask(void *const *p, const int32_t *g) {
    uint8_t *mask = p[0];
    const float *y = p[1];
    float most = tt_float((uint32_t)g[1]);
    unsigned open = most > 6.0f; /* no number is too large */
    tt_ix i, k, n = g[0];
    for (i = 0; i < n; i += 8) { /* without a branch: what passes is as good as random */
        tt_ix count = n - i < 8 ? n - i : 8;
        unsigned byte = 0u;
        for (k = 0; k < count; k++)
            byte |= ((unsigned)(y[i + k] > 0.0f) & ((unsigned)(y[i + k] < most) | open)) << k;
        mask[i >> 3] = (uint8_t)byte;
    }
}

void tt_kernel_gate_mask_vjp(void *const *p, const int32_t *g) {
    float *dx = p[0];
    const float *from = p[1];
    const uint8_t *mask = p[2];
    tt_ix i, n = g[0];
    for (i = 0; i < n; i++) dx[i] = from[i] * (mask[i >> 3] >> (i & 7) & 1 ? 1.0f : 0.0f);
}

void tt_kernel_bitmap_pack(void *const *p, const int32_t *g) {
    uint8_t *mask = p[0];
    float *values = p[1];
    const float *x = p[3];
    uint32_t count = 0, capacity = (uint32_t)g[1];
    tt_ix i, n = g[0];
    for (i = 0; i < n; i++) {
        unsigned bit = tt_bits(x[i]) != 0u;
        if (bit && count < capacity) values[count] = x[i];
        count += bit;
        mask[i >> 3] = (uint8_t)((i & 7 ? mask[i >> 3] : 0u) | bit << (i & 7));
    }
    *(uint32_t *)p[2] = count;
}

void tt_kernel_bitmap_unpack(void *const *p, const int32_t *g) {
    float *y = p[0];
    const uint8_t *mask = p[1];
    const float *values = p[2];
    tt_ix i, n = g[0];
    for (i = 0; i < n; i++) y[i] = mask[i >> 3] >> (i & 7) & 1 ? *values++ : 0.0f;
}

void tt_kernel_bitmap_gate_vjp(void *const *p, const int32_t *g) {
    float *dx = p[0], most = tt_float((uint32_t)g[1]);
    const float *from = p[1], *values = p[3];
    const uint8_t *mask = p[2];
    tt_ix i, n = g[0];
    for (i = 0; i < n; i++) {
        float passes = 0.0f;
        if (mask[i >> 3] >> (i & 7) & 1) {
            passes = *values > 0.0f && (*values < most || most > 6.0f) ? 1.0f : 0.0f;
            values++;
        }
        dx[i] = from[i] * passes;
    }
}
