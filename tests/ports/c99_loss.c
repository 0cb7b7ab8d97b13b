/* A loss or a gradient that is not finite is refused, and weights and optimizer state stay; 0, or the
   line of the first surprise. Built with a linear network under mean squared error and guard="step",
   where sums of finite numbers overflow. */
#include <string.h>

#include "expect.h"
#include "model.h"

static float x[TT_X_BYTES / 4], y[TT_Y_BYTES / 4], before[TT_PERSISTENT_BYTES / 4 + 1];
static tt_model m = TT_MODEL;

static int refused(float of_x, float of_y, int status) {
    float loss = -1.0f, held_x = x[1], held_y = y[0];
    int got;
    x[1] = of_x, y[0] = of_y;
    got = tt_train(&m, x, y, &loss);
    x[1] = held_x, y[0] = held_y;
    return got == status && loss < 0.0f && !memcmp(before, m.arena, TT_PERSISTENT_BYTES);
}

int main(void) {
    const uint32_t bits[2] = {0x7fc00000u, 0x7f800000u}; /* NaN, infinity */
    float bad[2], loss;
    size_t i;
    memcpy(bad, bits, sizeof bad);
    for (i = 0; i < TT_X_BYTES / 4; i++) x[i] = (float)(i % 5) * 0.25f;
    for (i = 0; i < TT_Y_BYTES / 4; i++) y[i] = (float)(i % 3);
    EXPECT(tt_init(&m, 1u) == TT_OK && tt_train(&m, x, y, &loss) == TT_OK && loss > 0.0f);
    memcpy(before, m.arena, TT_PERSISTENT_BYTES);
    EXPECT(refused(bad[0], 0.0f, TT_E_INPUT) && refused(bad[1], 0.0f, TT_E_INPUT));
    EXPECT(refused(0.0f, bad[0], TT_E_LOSS) && refused(0.0f, bad[1], TT_E_LOSS));
    EXPECT(refused(0.0f, 1e30f, TT_E_LOSS));      /* its square is infinite */
    memset(m.arena, 0, TT_PERSISTENT_BYTES);
    y[0] = bad[0];
    EXPECT(tt_train(&m, x, y, &loss) == TT_E_LOSS); /* the rate lies there again */
    y[0] = 0.0f;
    memcpy(before, m.arena, TT_PERSISTENT_BYTES);
    EXPECT(refused(1e25f, 1e18f, TT_E_GRADIENT)); /* without weights, the output is 0 */
    EXPECT(m.step == 1u && tt_train(&m, x, y, &loss) == TT_OK && m.step == 2u);
    return 0;
}
