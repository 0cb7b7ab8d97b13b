/* The front end of a network that hears: an utterance becomes a log-mel picture, as
   tinytrain/data/sound.py has it. Tables come from the host (tinytrain.ports.c99.front_end);
   no table is computed here, and nothing is allocated. */
#ifndef TT_LOGMEL_H
#define TT_LOGMEL_H
#include <stdint.h>

typedef struct {
    int32_t window, hop, bands, frames; /* window is a power of two */
    float emphasis, quiet, floor;       /* quiet: a ratio of energies */
    const float *cosine;                /* of 2 pi k / window, k < window / 2 */
    const int16_t *first, *count;       /* of each band: its first bin, and how many follow */
    const float *weights;               /* of all bands, one behind the other */
} tt_front_end;

enum { TT_HEARD = 0, TT_SILENT = 1 };

/* sound: n samples of one channel; work: 2 * window floats; picture: frames * bands floats, mean
   zero. TT_SILENT, and the picture is not written, where all samples are the same or n < 1. */
int tt_log_mel(const tt_front_end *f, const int16_t *sound, int32_t n, float *work, float *picture);
#endif
