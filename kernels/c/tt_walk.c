/* What runs a list of calls, and the check that this build's arithmetic is the promised one. */
#include "tt_kernels.h"
#include "tt_math.h"

int tt_walk(const tt_call *calls, tt_ix count) {
    for (; count > 0; count--, calls++) {
        if (calls->kernel)
            calls->kernel(calls->operands, calls->words);
        else if (*(const uint32_t *)(const void *)calls->operands)
            return 1;
    }
    return 0;
}

static int flushes_in_lanes(void) {
    float lanes[16];
    volatile float *seen = lanes;
    int i, k, found = 0;
    for (i = 0; i < 16; i++) seen[i] = 1.17549435e-38f;
    for (k = 0; k < 2; k++)
        for (i = 0; i < 16; i++) lanes[i] = lanes[i] * 0.5f;
    for (i = 0; i < 16; i++) found |= tt_bits(seen[i]) != 0x00200000u;
    return found;
}

int tt_selfcheck(void) {
    volatile float near_one = 1.000244140625f, square = 1.00048828125f, least = 1.17549435e-38f;
    volatile float one = 1.0f, three = 3.0f, big = 16777216.0f, seen;
    float a = near_one, b = square, tiny = least, unit = one, wide = big;
    volatile float half = tt_float(0x00400000u);
    int found = 0;
    seen = a * a - b; /* rounded alone, the square equals b */
    if (tt_bits(seen) != 0u) found |= 1;
    seen = (wide + unit) - wide; /* a tie, to even: back to 2^24 */
    if (seen != 0.0f) found |= 2;
    seen = tiny * 0.5f;
    if (tt_bits(seen) != 0x00400000u) found |= 4;
    seen = half + tiny;
    if (tt_bits(seen) != 0x00c00000u) found |= 8;
    seen = wide + unit * three; /* a tie, to even: upwards */
    if (seen != 16777220.0f) found |= 16;
    seen = unit / three;
    if (tt_bits(seen) != 0x3eaaaaabu) found |= 32;
    if (flushes_in_lanes()) found |= 64;
    return found;
}
