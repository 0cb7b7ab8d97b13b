/* What a block device that fails does to a step; 0, or the line of the first surprise. Built with a
   digits network whose plan spills, under guard="loss", or (GUARD_STEP) guard="step". */
#include <string.h>

#include "expect.h"
#include "made_up.h"

static float other_arena[TT_ARENA_BYTES / 4];
static float before[TT_PERSISTENT_BYTES / 4 + 1];
static unsigned char device[TT_STORE_BYTES];
static uint32_t sums[TT_SPILLS];
static int puts_left, gets_left, puts_done, gets_done, lies_at = -1;

static int put(void *user, size_t offset, const void *data, size_t bytes) {
    unsigned char *to = user;
    if (puts_left-- == 0) return 1;
    if (offset % 512u || offset + bytes > TT_STORE_BYTES) return 1;
    memcpy(to + offset, data, bytes);
    puts_done++;
    return 0;
}

static int get(void *user, size_t offset, void *data, size_t bytes) {
    const unsigned char *from = user;
    if (gets_left-- == 0) {
        memset(data, 0xff, bytes);
        return 1;
    }
    memcpy(data, from + offset, bytes);
    if (gets_done++ == lies_at) ((unsigned char *)data)[0] ^= 1u; /* a last bit */
    return 0;
}

/* A step, with a device that fails at its puts-th write and its gets-th read (-1: never). */
static int step(tt_model *m, int puts, int gets) {
    puts_left = puts, gets_left = gets, puts_done = gets_done = 0;
    return tt_train(m, x, y, 0);
}

/* A step whose device gives back its k-th value with a flipped bit. */
static int lie(tt_model *m, int k) {
    int status;
    lies_at = k;
    status = step(m, -1, -1);
    lies_at = -1;
    return status;
}

static int same(const tt_model *m) { return !memcmp(before, m->arena, TT_PERSISTENT_BYTES); }

int main(void) {
    const tt_store store = {put, get, device, sums}, trusting = {put, get, device, 0};
    tt_model m = TT_MODEL, n = {.net = &tt_model_net, .arena = other_arena, .store = &store};
    int k, puts, gets;
    fill(1u);
    EXPECT(tt_init(&m, 1u) == TT_OK && tt_init(&n, 1u) == TT_OK);
    EXPECT(step(&m, -1, -1) == TT_E_STORE && m.step == 0u); /* it has none */
    m.store = &store;
    EXPECT(step(&m, -1, -1) == TT_OK && m.step == 1u);
    puts = puts_done, gets = gets_done;
    EXPECT(puts > 1 && gets == puts);
    memcpy(before, m.arena, TT_PERSISTENT_BYTES);
    for (k = 0; k < puts; k++) EXPECT(step(&m, k, -1) == TT_E_STORE && same(&m) && m.step == 1u);
#ifdef GUARD_STEP
    for (k = 0; k < gets; k++) EXPECT(step(&m, -1, k) == TT_E_STORE && same(&m) && m.step == 1u);
    for (k = 0; k < gets; k++) EXPECT(lie(&m, k) == TT_E_STORE && same(&m) && m.step == 1u);
#endif
    EXPECT(step(&n, -1, -1) == TT_OK); /* as if nothing had failed */
    EXPECT(step(&m, -1, -1) == TT_OK && step(&n, -1, -1) == TT_OK);
    EXPECT(!memcmp(m.arena, n.arena, TT_PERSISTENT_BYTES));
    n.store = &trusting;
    EXPECT(step(&n, -1, -1) == TT_OK && lie(&n, 0) == TT_OK); /* as it was told */
#ifndef GUARD_STEP
    EXPECT(step(&m, -1, gets - 1) == TT_E_HALF && m.step == 2u);
    EXPECT(tt_init(&m, 1u) == TT_OK && step(&m, -1, -1) == TT_OK && same(&m));
    EXPECT(lie(&m, gets - 1) == TT_E_HALF && m.step == 1u);
    EXPECT(tt_init(&m, 1u) == TT_OK && step(&m, -1, -1) == TT_OK && same(&m));
#endif
    return 0;
}
