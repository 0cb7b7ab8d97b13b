/* The bitmap policy: a value as one bit an element and its non-zeros. Bit k of byte j is element
   8 j + k. Only the bits of +0 are dropped; a gradient is a product with 0 or 1, not a choice. */
#include "tt_packed.h"

#ifdef TT_EXPANDS
/* Which of sixteen outputs of a gate let the gradient pass. */
ALWAYS __mmask16 passing(__m512 y, float most, unsigned open) {
    const __mmask16 above = _mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_GT_OQ);
    return open ? above : above & _mm512_cmp_ps_mask(y, _mm512_set1_ps(most), _CMP_LT_OQ);
}
#endif

void tt_kernel_gate_mask(void *const *p, const int32_t *g) {
    uint8_t *mask = p[0];
    const float *y = p[1];
    float most = tt_float((uint32_t)g[1]);
    unsigned open = most > 6.0f; /* no number is too large */
    tt_ix i = 0, k, n = g[0];
#ifdef TT_EXPANDS
    for (; n - i >= GROUP; i += GROUP) {
        const uint16_t marks = (uint16_t)passing(_mm512_loadu_ps(y + i), most, open);
        memcpy(mask + (i >> 3), &marks, sizeof marks);
    }
#endif
    for (; i < n; i += 8) { /* without a branch: what passes is as good as random */
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
    tt_ix i = 0, n = g[0];
#ifdef TT_EXPANDS
    const __m512 one = _mm512_set1_ps(1.0f);
    for (; n - i >= GROUP; i += GROUP) {
        const __m512 passes = _mm512_maskz_mov_ps(bits_of(mask, i), one);
        _mm512_storeu_ps(dx + i, _mm512_mul_ps(_mm512_loadu_ps(from + i), passes));
    }
#endif
    for (; i < n; i++) dx[i] = from[i] * (mask[i >> 3] >> (i & 7) & 1 ? 1.0f : 0.0f);
}

void tt_kernel_bitmap_pack(void *const *p, const int32_t *g) {
    uint8_t *mask = p[0];
    float *values = p[1];
    const float *x = p[3];
    uint32_t count = 0, capacity = (uint32_t)g[1];
    tt_ix i = 0, n = g[0];
#ifdef TT_EXPANDS
    for (; n - i >= GROUP; i += GROUP) {
        const __m512 value = _mm512_loadu_ps(x + i);
        const __m512i bits = _mm512_castps_si512(value);
        const __mmask16 held = _mm512_test_epi32_mask(bits, bits);
        const uint16_t marks = (uint16_t)held;
        const __m512 packed = _mm512_mask_compress_ps(zeros(), held, value); /* to memory: slow */
        uint32_t room = count < capacity ? capacity - count : 0u;
        memcpy(mask + (i >> 3), &marks, sizeof marks);
        if (room >= GROUP)
            _mm512_storeu_ps(values + count, packed);
        else
            _mm512_mask_storeu_ps(values + count, (__mmask16)((1u << room) - 1u), packed);
        count += (uint32_t)__builtin_popcount(marks);
    }
#endif
    for (; i < n; i++) {
        unsigned bit = tt_bits(x[i]) != 0u;
        if (count < capacity) values[count] = x[i]; /* the next one lies over a zero */
        count += bit;
        mask[i >> 3] = (uint8_t)((i & 7 ? mask[i >> 3] : 0u) | bit << (i & 7));
    }
    *(uint32_t *)p[2] = count;
}

void tt_kernel_bitmap_unpack(void *const *p, const int32_t *g) {
    tt_unpack(p[0], p[1], p[2], 0, 0, g[0]);
}

void tt_kernel_bitmap_gate_vjp(void *const *p, const int32_t *g) {
    float *dx = p[0], most = tt_float((uint32_t)g[1]);
    const float *from = p[1], *values = p[3];
    const uint8_t *mask = p[2];
    unsigned open = most > 6.0f; /* no number is too large */
    tt_ix i = 0, at = 0, n = g[0];
#ifdef TT_EXPANDS
    const __m512 one = _mm512_set1_ps(1.0f);
    for (; n - i >= GROUP; i += GROUP) {
        const __mmask16 bits = bits_of(mask, i);
        const int count = __builtin_popcount(bits);
        const __m512 y = expanded(values + at, bits, count);
        const __m512 passes = _mm512_maskz_mov_ps(passing(y, most, open), one);
        _mm512_storeu_ps(dx + i, _mm512_mul_ps(_mm512_loadu_ps(from + i), passes));
        at += count;
    }
#endif
    for (; i < n; i++) {
        const float y = unpacked(mask, values, i, &at);
        const unsigned passes = (unsigned)(y > 0.0f) & ((unsigned)(y < most) | open);
        dx[i] = from[i] * (float)passes;
    }
}
