/* Packed values, one bit an element and the non-zeros: the loops that pack and unpack them. They move
   values and compute nothing, so that a vector of lanes gives what one lane gives. */
#ifndef TT_PACKED_H
#define TT_PACKED_H
#include <string.h>

#if defined TT_VECTORS && defined __AVX512F__ && defined __AVX512VL__
#define TT_EXPANDS
#include <immintrin.h>
#endif

#include "tt_lanes.h"
#include "tt_math.h"

#ifdef TT_EXPANDS
enum { GROUP = 16 }; /* elements at a time */

/* The bits of the next sixteen elements; k is a multiple of 8. */
ALWAYS __mmask16 bits_of(const uint8_t *mask, tt_ix k) {
    uint16_t bits;
    memcpy(&bits, mask + (k >> 3), sizeof bits);
    return (__mmask16)bits;
}

/* A register of zeros that the compiler does not know to be: to expand or compress into it begins anew,
   where the form that fills with zeros waits for what the register held before (Zen 4). */
ALWAYS __m512 zeros(void) {
    __m512 nothing = _mm512_setzero_ps();
    __asm__("" : "+v"(nothing));
    return nothing;
}

/* So many floats from p on, in the lanes whose bits are set. To a register and from there: from memory
   alone it is slow on some processors, and reads what may not be there. */
ALWAYS __m512 expanded(const float *p, __mmask16 bits, int count) {
    const __m512 packed = _mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1u), p);
    return _mm512_mask_expand_ps(zeros(), bits, packed);
}
#endif

/* The element at k, whose non-zero, if it is one, is values[at]; without a branch, for what is zero is
   as good as random. */
ALWAYS float unpacked(const uint8_t *mask, const float *values, tt_ix k, tt_ix *at) {
    uint32_t bit = (uint32_t)mask[k >> 3] >> (k & 7) & 1u;
    float value = tt_float(tt_bits(values[bit ? *at : 0]) & (0u - bit));
    *at += (tt_ix)bit;
    return value;
}

/* Elements [begin, end) to `out`; the first non-zero among them is values[at]. How far it came. */
static inline tt_ix tt_unpack(float *out, const uint8_t *mask, const float *values, tt_ix at,
                              tt_ix begin, tt_ix end) {
    tt_ix k = begin;
#ifdef TT_EXPANDS
    for (; k < end && k & 7; k++) *out++ = unpacked(mask, values, k, &at);
    for (; end - k >= GROUP; k += GROUP, out += GROUP) {
        const __mmask16 bits = bits_of(mask, k);
        const int count = __builtin_popcount(bits);
        _mm512_storeu_ps(out, expanded(values + at, bits, count));
        at += count;
    }
#endif
    for (; k < end; k++) *out++ = unpacked(mask, values, k, &at);
    return at;
}

#endif
