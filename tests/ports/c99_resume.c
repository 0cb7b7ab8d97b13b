/* Trains an export up to a step (argument 1), saved after every update into slots that lie in a file
   (argument 2), and goes on from there when started again, however it was ended. Prints what it
   went on from, and the state's CRC-32 at the end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "tt_slots.h"

enum { SECTOR = 256, SLOTS = 3 };
static float x[TT_X_BYTES / 4];
static int32_t y[TT_Y_BYTES / 4];

static int erase(void *user, uint32_t sector) {
    static uint8_t blank[SECTOR];
    memset(blank, 0xff, sizeof blank);
    if (fseek(user, (long)(sector * SECTOR), SEEK_SET)) return 1;
    return fwrite(blank, 1, SECTOR, user) != SECTOR;
}

static int program(void *user, uint32_t offset, const void *data, uint32_t bytes) {
    return fseek(user, (long)offset, SEEK_SET) || fwrite(data, 1, bytes, user) != bytes;
}

static int look(void *user, uint32_t offset, void *data, uint32_t bytes) {
    return fseek(user, (long)offset, SEEK_SET) || fread(data, 1, bytes, user) != bytes;
}

/* Step `step`'s samples, the same in every run. */
static void draw(uint32_t step) {
    uint32_t noise = step * 2654435761u + 1u, k;
    for (k = 0; k < TT_X_BYTES / 4; k++)
        x[k] = (float)((noise = noise * 1664525u + 1013904223u) >> 8) / 16777216.0f;
    for (k = 0; k < TT_Y_BYTES / 4; k++)
        y[k] = (int32_t)(((noise = noise * 1664525u + 1013904223u) >> 8) % TT_CLASSES);
}

int main(int argc, char **argv) {
    static tt_model m = TT_MODEL;
    tt_slots flash = {0, 0u, SECTOR, 16u, erase, program, look};
    tt_found found;
    uint32_t steps = argc > 2 ? (uint32_t)strtoul(argv[1], 0, 10) : 0u, k;
    FILE *file = argc > 2 ? fopen(argv[2], "r+b") : 0;
    int status;
    if (!file && argc > 2) file = fopen(argv[2], "w+b");
    if (!file || setvbuf(file, 0, _IONBF, 0) || tt_init(&m, 7u) != TT_OK) return 1;
    flash.user = file;
    for (flash.sectors = 2u; tt_slots_count(&m, &flash) < SLOTS;) flash.sectors++;
    status = tt_slots_restore(&m, &flash, &found);
    if (status != TT_OK && found.sequence) return 2;
    printf("from %lu newer %lu\n", (unsigned long)m.step, (unsigned long)found.newer);
    fflush(stdout);
    while (m.step < steps) {
        float loss;
        draw(m.step);
        for (k = 0; k < TT_SLICES; k++)
            if (tt_train(&m, x, y, &loss) != TT_OK) return 3;
        if (tt_slots_save(&m, &flash, 0) != TT_OK) return 4;
    }
    printf("state %08lx\n", (unsigned long)tt_crc(0u, m.arena, TT_PERSISTENT_BYTES));
    fclose(file);
    return 0;
}
