/* Trains an exported network from a file and tells what came of it: on a host by stdio, on a board
   (SEMIHOSTED) by semihosting. The file: steps; for each: rate, x, y of a whole batch; samples to
   classify; for each: x, label. Prints the bits of every loss's CRC and of the state's. */
#include <string.h>

#include "model.h"

#ifdef SEMIHOSTED
#include "board.h"
#else
#include <stdio.h>
static FILE *feed;
static int open_feed(void) { return (feed = fopen("feed.bin", "rb")) != 0; }
static int take(void *data, size_t bytes) { return fread(data, 1, bytes, feed) == bytes; }
static void say(const char *text) { fputs(text, stdout); }
static uint32_t ticks(void) { return 0u; }
#if TT_STORE_BYTES
static FILE *device;
static int put(void *user, size_t offset, const void *data, size_t bytes) {
    if (!device) device = tmpfile();
    (void)user;
    return !device || fseek(device, (long)offset, SEEK_SET) ||
           fwrite(data, 1, bytes, device) != bytes;
}
static int get(void *user, size_t offset, void *data, size_t bytes) {
    (void)user;
    return fseek(device, (long)offset, SEEK_SET) || fread(data, 1, bytes, device) != bytes;
}
#endif
#endif

#ifndef QUIET
#define QUIET 0
#endif

static unsigned char x[TT_X_BYTES], y[TT_Y_BYTES];
static float out[TT_OUT_BYTES / 4];

static void say_hex(const char *name, uint32_t value) {
    char digits[10];
    int i;
    for (i = 7; i >= 0; i--, value >>= 4) digits[i] = "0123456789abcdef"[value & 15u];
    digits[8] = '\n';
    digits[9] = 0;
    say(name);
    say(digits);
}

/* Only what the network learns: parameters, running statistics, optimizer state. */
static uint32_t state_crc(const tt_model *m) {
    const uint32_t *words = m->net->words, *leaf = words + words[14];
    uint32_t k, crc = 0u;
    for (k = 0; k < words[15]; k++, leaf += 4)
        if (leaf[0] == 0u || leaf[0] == 1u || leaf[0] == 4u)
            crc = tt_crc(crc, (unsigned char *)m->arena + leaf[1], leaf[2]);
    return crc;
}

static int train(tt_model *m, uint32_t count) {
    uint32_t k, slice, crc = 0u, spent = 0u, begun;
    for (k = 0; k < count; k++) {
        float loss = 0.0f;
        if (!take(&m->lr, 4)) return 1;
        for (slice = 0; slice < TT_SLICES; slice++) {
            int status;
            if (!take(x, sizeof x) || !take(y, sizeof y)) return 1;
            begun = ticks();
            status = tt_train(m, x, y, &loss);
            if (k == 1u) spent += (begun - ticks()) & 0xffffffu;
            if (status != TT_OK) {
                say_hex("tt_train ", (uint32_t)status);
                return 1;
            }
            crc = tt_crc(crc, &loss, 4);
        }
    }
    say_hex("losses ", crc);
    say_hex("ticks ", spent);
    return 0;
}

static int classify(tt_model *m, uint32_t count) {
    uint32_t k, c, right = 0u;
    int32_t label;
    for (k = 0; k < count; k++) {
        uint32_t best = 0u;
        if (!take(x, TT_X_BYTES / TT_SLICE) || !take(&label, 4)) return 1;
        if (tt_infer(m, x, out) != TT_OK) return 1;
        for (c = 1; c < TT_OUT_BYTES / 4; c++)
            if (out[c] > out[best]) best = c;
        right += best == (uint32_t)label;
    }
    say_hex("right ", right);
    return 0;
}

int main(void) {
    static tt_model m = TT_MODEL;
    uint32_t count;
    int status;
#if TT_STORE_BYTES
    static uint32_t sums[TT_SPILLS];
    static const tt_store store = {put, get, 0, sums};
    m.store = &store;
#endif
    status = tt_init(&m, 7u);
    if (status != TT_OK) {
        say_hex("tt_init ", (uint32_t)status);
        return 1;
    }
    if (!open_feed() || !take(&count, 4) || train(&m, count)) return 1;
    say_hex("state ", state_crc(&m));
    say_hex("overflows ", m.overflows);
    return !take(&count, 4) || classify(&m, count);
}
