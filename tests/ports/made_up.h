/* Made-up samples for the digits network. */
#ifndef MADE_UP_H
#define MADE_UP_H
#include "model.h"

static float x[TT_X_BYTES / 4];
static int32_t y[TT_Y_BYTES / 4];

static void fill(unsigned seed) {
    size_t i;
    for (i = 0; i < TT_X_BYTES / 4; i++)
        x[i] = (float)((seed + (unsigned)i) * 2654435761u >> 24) / 256.0f;
    for (i = 0; i < TT_Y_BYTES / 4; i++) y[i] = (int32_t)((seed + (unsigned)i) % 10u);
}

#endif
