/* What the verbs refuse, and that refusing changes nothing; 0, or the line of the first surprise.
   Built with the digits network: float x, int32 class numbers below 10. */
#include <string.h>

#include "expect.h"
#include "made_up.h"

static float other_arena[TT_ARENA_BYTES / 4];
static float before[TT_PERSISTENT_BYTES / 4 + 1];
static unsigned char file[TT_PERSISTENT_BYTES + 64];
static size_t length, limit;

static int put(void *user, const void *data, size_t bytes) {
    (void)user;
    if (length + bytes > limit) return 1;
    memcpy(file + length, data, bytes);
    length += bytes;
    return 0;
}

static int get(void *user, size_t offset, void *data, size_t bytes) {
    (void)user;
    if (offset + bytes > length) return 1;
    memcpy(data, file + offset, bytes);
    return 0;
}

static int same(const tt_model *m) { return !memcmp(before, m->arena, TT_PERSISTENT_BYTES); }

static int refusals(tt_model *m) {
    float loss = -1.0f;
    const uint32_t nan = 0x7fc00000u;
    unsigned char *weight;
    uint32_t held;
    fill(1u);
    memcpy(before, m->arena, TT_PERSISTENT_BYTES);
    y[0] = 10;
    EXPECT(tt_train(m, x, y, &loss) == TT_E_LABEL && same(m));
    y[0] = -1;
    EXPECT(tt_train(m, x, y, &loss) == TT_E_LABEL && same(m));
    fill(1u);
    memcpy(x + 5, &nan, 4);
    /* The rate and what else is written before a step lie among what persists: not compared. */
    EXPECT(tt_train(m, x, y, &loss) == TT_E_INPUT);
    EXPECT(loss < 0.0f && m->step == 0u && m->slice == 0u);
    fill(1u);
    EXPECT(tt_train_sized(m, x, TT_X_BYTES - 4, y, TT_Y_BYTES, &loss) == TT_E_LENGTH);
    EXPECT(tt_train_sized(m, x, TT_X_BYTES, y, TT_Y_BYTES + 4, &loss) == TT_E_LENGTH);
    EXPECT(tt_infer_sized(m, x, TT_X_BYTES / TT_SLICE + 4, x, TT_OUT_BYTES) == TT_E_LENGTH);
    EXPECT(tt_infer_sized(m, x, TT_X_BYTES / TT_SLICE, x, TT_OUT_BYTES - 4) == TT_E_LENGTH);
    EXPECT(loss < 0.0f && m->step == 0u && m->slice == 0u);
    weight = (unsigned char *)m->arena + m->net->words[m->net->words[14] + 1];
    memcpy(&held, weight, 4);
    memcpy(weight, &nan, 4);
    EXPECT(tt_train(m, x, y, &loss) == TT_E_OUTPUT && m->step == 0u);
    memcpy(weight, &held, 4);
    return 0;
}

static int saving(tt_model *m) {
    tt_model n = {.net = &tt_model_net, .arena = other_arena};
    float one, two;
    size_t k;
    length = 0, limit = sizeof file;
    EXPECT(tt_save(m, put, 0) == TT_OK);
    EXPECT(tt_init(&n, 99u) == TT_OK);
    memcpy(before, n.arena, TT_PERSISTENT_BYTES);
    for (k = 0; k < length; k += k < 64 || k + 8 > length ? 1 : 509) {
        file[k] ^= 16;
        EXPECT(tt_restore(&n, get, 0) == TT_E_STATE && same(&n) && n.seed == 99u);
        file[k] ^= 16;
    }
    length -= 1;
    EXPECT(tt_restore(&n, get, 0) == TT_E_STATE && same(&n));
    length = 3;
    EXPECT(tt_restore(&n, get, 0) == TT_E_STATE && same(&n));
    length = 0, limit = sizeof file;
    EXPECT(tt_save(m, put, 0) == TT_OK);
    EXPECT(tt_restore(&n, get, 0) == TT_OK);
    for (k = 0; k < 5; k++) { /* two models side by side go the same way */
        fill((unsigned)k);
        EXPECT(tt_train(m, x, y, &one) == TT_OK);
        EXPECT(tt_train_sized(&n, x, TT_X_BYTES, y, TT_Y_BYTES, &two) == TT_OK);
        EXPECT(!memcmp(&one, &two, 4) && m->step == n.step);
    }
    EXPECT(!memcmp(m->arena, n.arena, TT_PERSISTENT_BYTES));
    length = 0, limit = 40;
    EXPECT(tt_save(m, put, 0) == TT_E_IO);
    return 0;
}

static int networks(void) {
    static uint32_t words[TT_FLASH_BYTES / 4];
    tt_net net = tt_model_net;
    tt_model m = {.net = &net, .arena = other_arena};
    memcpy(words, net.words, sizeof words);
    net.words = words;
    EXPECT(tt_init(&m, 1u) == TT_OK);
    words[TT_FLASH_BYTES / 8] ^= 1u;
    EXPECT(tt_init(&m, 1u) == TT_E_TABLE);
    words[TT_FLASH_BYTES / 8] ^= 1u;
    words[1]++;
    EXPECT(tt_init(&m, 1u) == TT_E_TABLE);
    words[1]--;
    m.arena = 0;
    EXPECT(tt_init(&m, 1u) == TT_E_ARENA);
    m.arena = (char *)other_arena + 1;
    EXPECT(tt_init(&m, 1u) == TT_E_ARENA);
    EXPECT(tt_selfcheck() == 0);
    return 0;
}

int main(void) {
    tt_model m = TT_MODEL;
    float out[TT_OUT_BYTES / 4], again[TT_OUT_BYTES / 4], loss;
    int line, k;
    EXPECT(tt_init(&m, 1u) == TT_OK);
    if ((line = refusals(&m)) != 0) return line;
    for (k = 0; k < 3 * TT_SLICES; k++) {
        fill((unsigned)k);
        EXPECT(tt_train(&m, x, y, &loss) == TT_OK && loss > 0.0f);
    }
    EXPECT(m.step == 3u);
    EXPECT(tt_infer(&m, x, out) == TT_OK);
    EXPECT(tt_infer_sized(&m, x, TT_X_BYTES / TT_SLICE, again, sizeof again) == TT_OK);
    EXPECT(!memcmp(out, again, sizeof out));
    if ((line = saving(&m)) != 0) return line;
    return networks();
}
