/* Tables that are cut short, damaged or of another version: an error code, no byte read beyond the end
   (built with AddressSanitizer, each table in memory of its own size), and the arena untouched; 0, or
   the line of the first surprise. */
#include <stdlib.h>
#include <string.h>

#include "expect.h"
#include "model.h"

enum { PAINT = 0xa5, HEADER = 20 };
static float arena[TT_ARENA_BYTES / 4];
static uint32_t whole[TT_FLASH_BYTES / 4];

/* What tt_init says of the first `count` words; -1 if it touched anything. */
static int init(const uint32_t *words, uint32_t count) {
    tt_net net = tt_model_net;
    tt_model m = {.net = &net, .arena = arena, .seed = 5u, .step = 6u, .slice = 7u};
    uint32_t *own = malloc(count ? 4u * (size_t)count : 1u);
    const unsigned char *painted = (const unsigned char *)arena;
    int status;
    size_t k;
    if (!own) return -1;
    memcpy(own, words, 4u * (size_t)count);
    memset(arena, PAINT, sizeof arena);
    net.words = own, net.count = count;
    status = tt_init(&m, 1u);
    free(own);
    for (k = 0; status != TT_OK && k < sizeof arena; k++)
        if (painted[k] != PAINT) return -1;
    return status == TT_OK || (m.seed == 5u && m.step == 6u && m.slice == 7u) ? status : -1;
}

int main(void) {
    const uint32_t count = TT_FLASH_BYTES / 4;
    uint32_t k, bit;
    EXPECT(tt_model_net.count == count);
    memcpy(whole, tt_model_net.words, sizeof whole);
    EXPECT(init(whole, count) == TT_OK);
    for (k = 0; k < count; k += k < 2u * HEADER ? 1u : count / 31u)
        EXPECT(init(whole, k) == TT_E_TABLE); /* cut short */
    EXPECT(init(whole, count - 1u) == TT_E_TABLE);
    for (k = HEADER; k < count; k += count / 13u) {
        whole[2] = k; /* and it says so */
        EXPECT(init(whole, k) == TT_E_TABLE);
    }
    whole[2] = count;
    for (k = 0; k < count; k += k < HEADER ? 1u : count / 101u)
        for (bit = k % 7u; bit < 32u; bit += k < HEADER ? 1u : 7u) { /* a flipped bit */
            whole[k] ^= 1u << bit;
            EXPECT(init(whole, count) == TT_E_TABLE);
            whole[k] ^= 1u << bit;
        }
    whole[1]++; /* another version */
    EXPECT(init(whole, count) == TT_E_TABLE);
    whole[1]--;
    EXPECT(init(whole, count) == TT_OK);
    return 0;
}
