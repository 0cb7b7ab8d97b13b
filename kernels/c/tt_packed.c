/* Weight gradients that read a packed value, of which a few rows are dense at a time; and packing
   the largest elements alone. The sums are those of conv2d_vjp_w and of matmul, which go on from the
   stored value, so it does not matter where the rows are parted. */
#include "tt_packed.h"

/* A packed value that is read in order: elements passed, and the non-zeros among them. */
typedef struct {
    const uint8_t *mask;
    const float *values;
    tt_ix done, at;
} stream;

/* Set bits among elements [k, end), a byte at a time where whole ones are. */
static tt_ix ones(const uint8_t *mask, tt_ix k, tt_ix end) {
    tt_ix count = 0;
    for (; k < end && k & 7; k++) count += mask[k >> 3] >> (k & 7) & 1;
    for (; end - k >= 8; k += 8) {
        uint32_t byte = mask[k >> 3];
        byte -= byte >> 1 & 0x55u;
        byte = (byte & 0x33u) + (byte >> 2 & 0x33u);
        count += (tt_ix)((byte + (byte >> 4)) & 15u);
    }
    for (; k < end; k++) count += mask[k >> 3] >> (k & 7) & 1;
    return count;
}

/* Elements [begin, end) to `out`; what lies before `begin` is passed over. */
static void unpack(stream *s, float *out, tt_ix begin, tt_ix end) {
    s->at += ones(s->mask, s->done, begin);
    s->at = tt_unpack(out, s->mask, s->values, s->at, begin, end);
    s->done = end;
}

static tt_ix within(tt_ix row, tt_ix height) { return row < 0 ? 0 : row < height ? row : height; }

void tt_kernel_bitmap_conv2d_vjp_w(void *const *p, const int32_t *g) {
    stream s = {p[1], p[2], 0, 0};
    float *dw = p[0], *rows = p[4];
    const float *from = p[3];
    tt_ix h = g[1], row = (tt_ix)g[2] * g[3], ho = g[4], line = (tt_ix)g[5] * g[6];
    tt_ix step = g[9], top = g[11], extent = (g[7] - 1) * (tt_ix)g[14] + 1, most = g[17];
    tt_ix block = most >= h ? ho : (most - extent) / step + 1, image, begin, k;
    int32_t words[17]; /* of conv2d_vjp_w over the rows that are dense */
    memcpy(words, g, sizeof words);
    words[0] = 1, words[16] = 1;
    for (k = 0; !g[16] && k < (tt_ix)g[7] * g[8] * (g[3] / g[13]) * g[6]; k++) dw[k] = 0.0f;
    for (image = 0; image < g[0]; image++) {
        tt_ix held = image * h, base = held; /* `rows` holds rows [base, held) of all images' */
        for (begin = 0; begin < ho; begin += block) {
            tt_ix end = begin + block < ho ? begin + block : ho, first = begin * step - top;
            tt_ix low = within(first, h), high = within((end - 1) * step + extent - top, h);
            tt_ix start = image * h + low, stop = image * h + high;
            tt_ix stay = held > start ? (held - start) * row : 0; /* what the last rows read too */
            void *operands[3];
            if (high <= low) continue;
            for (k = 0; k < stay; k++) rows[k] = rows[(start - base) * row + k];
            unpack(&s, rows + stay, start * row + stay, stop * row);
            base = start, held = stop;
            words[1] = (int32_t)(high - low), words[4] = (int32_t)(end - begin);
            words[11] = (int32_t)(low - first);
            operands[0] = dw, operands[1] = rows;
            operands[2] = (void *)(uintptr_t)(from + (image * ho + begin) * line);
            tt_kernel_conv2d_vjp_w(operands, words);
        }
    }
}

void tt_kernel_bitmap_matmul_tn(void *const *p, const int32_t *g) {
    stream s = {p[1], p[2], 0, 0};
    float *y = p[0], *rows = p[4];
    const float *from = p[3];
    tt_ix m = g[0], n = g[1], k = g[2], first, i;
    int32_t words[13] = {0}; /* of matmul: m, n, k, add, steps of a by m and k, of b, no lead */
    words[0] = words[5] = g[0], words[1] = words[6] = g[1];
    words[3] = words[4] = words[7] = words[8] = words[9] = 1;
    for (i = 0; !g[4] && i < m * n; i++) y[i] = 0.0f;
    for (first = 0; first < k; first += g[3]) {
        tt_ix count = k - first < g[3] ? k - first : g[3];
        void *operands[3];
        unpack(&s, rows, first * m, (first + count) * m);
        words[2] = (int32_t)count;
        operands[0] = y, operands[1] = rows;
        operands[2] = (void *)(uintptr_t)(from + first * n);
        tt_kernel_matmul(operands, words);
    }
}

/* The order of magnitudes, as integers. */
static uint32_t size_of(float x) { return tt_bits(x) << 1; }

/* The k-th largest size, digit by digit, the highest byte first; to `left` how many of that very
   size are among the k. */
static uint32_t kth(const float *x, tt_ix n, uint32_t *histogram, uint32_t *left) {
    uint32_t least = 0, known = 0, digit;
    int shift;
    tt_ix i;
    for (shift = 24; shift >= 0; shift -= 8) {
        for (i = 0; i < 256; i++) histogram[i] = 0;
        for (i = 0; i < n; i++) {
            uint32_t size = size_of(x[i]);
            if ((size & known) == least) histogram[size >> shift & 255u]++;
        }
        for (digit = 255; histogram[digit] < *left; digit--) *left -= histogram[digit];
        least |= digit << shift;
        known |= 255u << shift;
    }
    return least;
}

void tt_kernel_topk_pack(void *const *p, const int32_t *g) {
    uint8_t *mask = p[0];
    float *values = p[1];
    const float *x = p[2];
    tt_ix i, n = g[0];
    uint32_t left = (uint32_t)g[1], least = kth(x, n, p[3], &left);
    for (i = 0; i < (n + 7) / 8; i++) mask[i] = 0;
    for (i = 0; i < n; i++) {
        uint32_t size = size_of(x[i]);
        int stays = size > least || (size == least && left > 0);
        left -= size == least && left > 0;
        if (stays && tt_bits(x[i])) {
            mask[i >> 3] = (uint8_t)(mask[i >> 3] | 1u << (i & 7));
            *values++ = x[i];
        }
    }
}

/* The gradient, but +0 where the weight is +0. */
void tt_kernel_zero_pruned(void *const *p, const int32_t *g) {
    float *y = p[0];
    const float *from = p[1], *weights = p[2];
    tt_ix i, n = g[0];
    for (i = 0; i < n; i++) y[i] = tt_bits(weights[i]) ? from[i] : 0.0f;
}
