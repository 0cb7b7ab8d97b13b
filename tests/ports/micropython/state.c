/* Trains on what `x` and `y` hold, slice by slice, and writes the state to `state`: the c99 port's
   side of a state that MicroPython goes on from. */
#include <stdio.h>

#include "model.h"

enum { SLICES = 4 };

static int put(void *user, const void *data, size_t bytes) {
    return fwrite(data, 1, bytes, user) != bytes;
}

static int fill(const char *name, void *to, size_t bytes) {
    FILE *file = fopen(name, "rb");
    size_t n = file ? fread(to, 1, bytes, file) : 0;
    if (file) fclose(file);
    return n != bytes;
}

int main(void) {
    static unsigned char x[SLICES * TT_X_BYTES], y[SLICES * TT_Y_BYTES];
    tt_model m = TT_MODEL;
    FILE *file;
    int k;
    if (fill("x", x, sizeof x) || fill("y", y, sizeof y) || tt_init(&m, 0)) return 1;
    for (k = 0; k < SLICES; k++)
        if (tt_train(&m, x + k * TT_X_BYTES, y + k * TT_Y_BYTES, 0)) return 2;
    file = fopen("state", "wb");
    if (!file || tt_save(&m, put, file) || fclose(file)) return 3;
    return 0;
}
