/* Trains the exported network on samples from a file, or on made-up ones, and prints the loss.

     run                     made-up samples
     run DATA [EPOCHS]       records of one sample each: its x, then its y, as the network wants
                             them (float32 and int32, little-endian) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

enum { X = TT_X_BYTES / TT_SLICE, Y = TT_Y_BYTES / TT_SLICE };
static unsigned char x[TT_X_BYTES], y[TT_Y_BYTES];
static uint32_t state = 1u;

static float uniform(void) {
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) * (1.0f / 16777216.0f);
}

/* A sample whose label can be told from its values. */
static void make_up(size_t k) {
    size_t i;
    uint32_t label = (uint32_t)(uniform() * TT_CLASSES);
    for (i = 0; i < X; i += 4) {
        float v = 0.2f * uniform() + (((label + i / 4) % (TT_CLASSES + 1)) == 0u ? 0.8f : 0.0f);
        memcpy(x + k * X + i, &v, 4);
    }
    for (i = 0; i < Y; i += 4) {
        float v = uniform();
        if (TT_CLASSES > 1)
            memcpy(y + k * Y + i, &label, 4);
        else
            memcpy(y + k * Y + i, &v, 4);
    }
}

static int next(FILE *file) {
    size_t k;
    for (k = 0; k < TT_SLICE; k++) {
        if (!file)
            make_up(k);
        else if (fread(x + k * X, 1, X, file) != X || fread(y + k * Y, 1, Y, file) != Y)
            return 0;
    }
    return 1;
}

int main(int argc, char **argv) {
    tt_model m = TT_MODEL;
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : 0;
    long epochs = argc > 2 ? strtol(argv[2], 0, 10) : 5, epoch, count;
    int status = tt_init(&m, 0);
    if (status != TT_OK || (argc > 1 && !file)) {
        printf(status != TT_OK ? "tt_init: error %d\n" : "%d: the file cannot be read\n", status);
        return 1;
    }
    printf("arena %d bytes, flash %d bytes of tables\n", TT_ARENA_BYTES, TT_FLASH_BYTES);
    for (epoch = 1; epoch <= epochs; epoch++) {
        float loss, total = 0.0f;
        for (count = 0; (file || count < 200) && next(file); count++) {
            status = tt_train(&m, x, y, &loss);
            if (status != TT_OK) printf("tt_train: error %d\n", status);
            if (status == TT_OK) total += loss;
        }
        printf("epoch %ld: mean loss %.4f\n", epoch, (double)(total / (float)(count ? count : 1)));
        if (file) rewind(file);
    }
    if (file) fclose(file);
    return 0;
}
