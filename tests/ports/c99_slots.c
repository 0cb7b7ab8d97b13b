/* Cuts the power at every event of a save into flash (an erased sector, a written unit), whole and
   torn; flips bits, wears sectors out, fails some. Prints "fault tries last last-but-one", one a line;
   the exit status is 0, or 1 behind the first surprise. The flash is simulated: writing only clears
   bits, and a unit is written once between erasures. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "tt_slots.h"

/* Not expect.h's, which returns: most of what is checked here lies deep in callbacks. */
#define EXPECT(what)                                                                               \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            printf("line %d: %s\n", __LINE__, #what);                                              \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

enum { SECTOR = 256, MOST = 4 * TT_PERSISTENT_BYTES + 64 * SECTOR, VARIANTS = 4 };
static uint8_t memory[MOST];
static uint8_t written[MOST];
static uint32_t erased[MOST / SECTOR];
static long budget; /* events before the power goes */
static int variant, dead, bad_slot_sector = -1;
static tt_slots flash;
static float x[TT_X_BYTES / 4];
static int32_t y[TT_Y_BYTES / 4];
static uint32_t noise = 1u;
static long last, before; /* which state was found */

static uint32_t next(void) { return (noise = noise * 1664525u + 1013904223u) >> 8; }

/* Whether this event is the one in which the power goes. */
static int goes(void) { return budget-- == 0 ? dead = 1 : 0; }

static int erase(void *user, uint32_t sector) {
    uint8_t *p = memory + sector * SECTOR;
    uint32_t k;
    (void)user;
    if (dead || (int)sector == bad_slot_sector) return 1;
    EXPECT(sector < flash.sectors);
    if (goes()) {
        for (k = 0; k < SECTOR; k++) {
            if (variant == 1 && k < SECTOR / 2) p[k] = 0xffu;
            if (variant == 2) p[k] |= (uint8_t)next();
            if (variant == 3) p[k] = 0xffu;
        }
        return 1;
    }
    memset(p, 0xff, SECTOR);
    memset(written + sector * SECTOR, 0, SECTOR);
    erased[sector]++;
    return 0;
}

static int program(void *user, uint32_t offset, const void *data, uint32_t bytes) {
    const uint8_t *from = data;
    uint32_t k;
    (void)user;
    if (dead) return 1;
    EXPECT(offset % flash.unit == 0u && bytes == flash.unit);
    EXPECT(offset + bytes <= flash.sectors * SECTOR && !written[offset]);
    written[offset] = 1u;
    if (goes()) {
        for (k = 0; k < bytes; k++) {
            if (variant == 1 && k < (bytes + 1) / 2) memory[offset + k] &= from[k];
            if (variant == 2) memory[offset + k] &= (uint8_t)(from[k] | next());
            if (variant == 3) memory[offset + k] &= from[k];
        }
        return 1;
    }
    for (k = 0; k < bytes; k++) memory[offset + k] &= from[k];
    return 0;
}

static int look(void *user, uint32_t offset, void *data, uint32_t bytes) {
    (void)user;
    EXPECT(offset + bytes <= flash.sectors * SECTOR);
    if (dead) return 1;
    memcpy(data, memory + offset, bytes);
    return 0;
}

static void power(long events) { budget = events, dead = 0; }

static uint32_t state(const tt_model *m) {
    return tt_crc(tt_crc(0u, m->arena, TT_PERSISTENT_BYTES), &m->step, 4);
}

static void train(tt_model *m) {
    size_t k;
    float loss;
    for (k = 0; k < TT_X_BYTES / 4; k++) x[k] = (float)(next() % 256u) / 256.0f;
    for (k = 0; k < TT_Y_BYTES / 4; k++) y[k] = (int32_t)(next() % TT_CLASSES);
    for (k = 0; k < TT_SLICES; k++) EXPECT(tt_train(m, x, y, &loss) == TT_OK);
}

static void set_up(const tt_model *m, uint32_t unit, uint32_t slots) {
    uint32_t each = (tt_saved_bytes(m) + 2u * 32u + unit) / SECTOR + 1u;
    tt_slots made = {0, 0u, SECTOR, 0u, erase, program, look};
    made.unit = unit, flash = made;
    for (flash.sectors = each; tt_slots_count(m, &flash) < slots;) flash.sectors++;
    EXPECT(flash.sectors * SECTOR <= MOST);
    memset(memory, 0xff, sizeof memory);
    memset(written, 0, sizeof written);
    memset(erased, 0, sizeof erased);
    power(-1);
}

/* The power goes at event `at` of a save that follows `saves` whole ones; 0: the save was over. */
static int cut(uint32_t unit, uint32_t slots, uint32_t saves, int torn, long at) {
    tt_model m = TT_MODEL;
    tt_found found;
    uint32_t old, new, got, k;
    int status;
    EXPECT(tt_init(&m, 1u) == TT_OK);
    set_up(&m, unit, slots);
    for (k = 0; k < saves; k++) {
        train(&m);
        EXPECT(tt_slots_save(&m, &flash, &found) == TT_OK && found.sequence == k + 1u);
    }
    old = state(&m);
    train(&m);
    new = state(&m);
    variant = torn, power(at);
    status = tt_slots_save(&m, &flash, 0);
    if (status == TT_OK && !dead) return 0;
    power(-1);
    EXPECT(tt_init(&m, 9u) == TT_OK);
    status = tt_slots_restore(&m, &flash, &found);
    got = status == TT_OK ? state(&m) : 0u;
    if (status != TT_OK) {
        EXPECT(saves == 0u && status == TT_E_STATE && found.sequence == 0u && m.step == 0u);
    } else if (found.sequence == saves + 1u) {
        EXPECT(got == new && found.newer == 0u);
    } else {
        EXPECT(got == old && found.sequence == saves);
    }
    found.newer ? before++ : last++;
    /* Life goes on: the next save is whole, and the newest. */
    train(&m);
    new = state(&m);
    k = found.sequence;
    EXPECT(tt_slots_save(&m, &flash, &found) == TT_OK && found.sequence == k + 1u);
    EXPECT(tt_init(&m, 9u) == TT_OK);
    EXPECT(tt_slots_restore(&m, &flash, &found) == TT_OK && state(&m) == new);
    EXPECT(found.sequence == k + 1u && found.newer == 0u);
    return 1;
}

static void cuts(void) {
    static const uint32_t units[] = {1u, 8u, 32u};
    long at;
    uint32_t u, saves;
    int torn;
    for (u = 0; u < 3u; u++)
        for (saves = 0; saves < 4u; saves += u == 1u ? 1u : 3u)
            for (torn = 0; torn < VARIANTS; torn++)
                for (at = 0; cut(units[u], 2u + u, saves, torn, at); at++) continue;
    printf("power-cut %ld %ld %ld\n", last + before, last, before);
}

/* A flipped bit in every byte of a region that holds two states: the last or the last but one. */
static void flips(void) {
    tt_model m = TT_MODEL;
    tt_found found;
    uint32_t old, new, k, at, size;
    EXPECT(tt_init(&m, 1u) == TT_OK);
    set_up(&m, 8u, 2u);
    train(&m), old = state(&m);
    EXPECT(tt_slots_save(&m, &flash, 0) == TT_OK);
    train(&m), new = state(&m);
    EXPECT(tt_slots_save(&m, &flash, &found) == TT_OK && found.slot == 1u && found.erases == 1u);
    size = flash.sectors * SECTOR;
    for (at = 0; at < size; at++) {
        memory[at] ^= (uint8_t)(1u << (at % 8u));
        EXPECT(tt_slots_restore(&m, &flash, &found) == TT_OK);
        k = state(&m);
        EXPECT(found.sequence == 2u ? k == new : found.sequence == 1u && k == old && found.newer);
        found.sequence == 2u ? last++ : before++;
        memory[at] ^= (uint8_t)(1u << (at % 8u));
    }
    printf("bit-flip %ld %ld %ld\n", last + before, last, before);
    last = before = 0;
}

/* Wear is spread and counted; a sector that fails is passed over, and nothing is lost. */
static void wear(void) {
    tt_model m = TT_MODEL;
    tt_found found;
    uint32_t k, each, least = ~0u, most = 0u;
    EXPECT(tt_init(&m, 1u) == TT_OK);
    set_up(&m, 8u, 4u);
    each = flash.sectors / 4u;
    for (k = 0; k < 402u; k++) {
        EXPECT(tt_slots_save(&m, &flash, &found) == TT_OK && found.sequence == k + 1u);
        EXPECT(found.erases == erased[found.slot * each]);
    }
    for (k = 0; k < 4u * each; k++) {
        least = erased[k] < least ? erased[k] : least;
        most = erased[k] > most ? erased[k] : most;
    }
    EXPECT(least == 100u && most == 101u);
    bad_slot_sector = (int)(((found.slot + 1u) % 4u) * each);
    for (k = 0; k < 9u; k++) EXPECT(tt_slots_save(&m, &flash, &found) == TT_OK);
    EXPECT(found.sequence == 411u && tt_slots_restore(&m, &flash, &found) == TT_OK);
    bad_slot_sector = -1;
    flash.sectors = 2u * each - 1u;
    EXPECT(tt_slots_save(&m, &flash, 0) == TT_E_SLOTS);
    EXPECT(tt_slots_restore(&m, &flash, 0) == TT_E_SLOTS);
    printf("worn-sector 9 9 0\n");
}

int main(void) {
    flips();
    wear();
    cuts();
    return 0;
}
