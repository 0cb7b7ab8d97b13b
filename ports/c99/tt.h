/* A planned training step on a board: four verbs over a model that points to its arena.

   It never allocates, prints or exits, and it has no state of its own: what a tt_model holds and
   what lies in its arena is all. Two models may live side by side, of one network or of two. */
#ifndef TT_H
#define TT_H
#include <stddef.h>
#include <stdint.h>

#include "tt_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What an export wrote: the table (ports/table.py says what its words are) and its kernels. */
typedef struct {
    const uint32_t *words;
    tt_kernel *const *kernels;
    uint32_t count; /* of the words: a table that is cut short is not read beyond its end */
} tt_net;

/* Fills `bytes` bytes from an offset on and gives 0, or anything else to stop. */
typedef int tt_read(void *user, size_t offset, void *data, size_t bytes);

/* A block device (an SD card, a flash chip) where values of a plan that spills lie between forward
   and backward: TT_STORE_BYTES of it, scratch. Both callbacks return when they are done, with 0, or
   with anything else if that failed. Offsets are multiples of 512, and nothing else lies in the rest
   of a transfer's last 512 bytes. With `sums` (TT_SPILLS words of RAM) a CRC-32 of each value is kept
   there, and other bytes than were put are a failure of `get`; without, they are taken for right. */
typedef int tt_put(void *user, size_t offset, const void *data, size_t bytes);
typedef struct {
    tt_put *put;
    tt_read *get;
    void *user;
    uint32_t *sums; /* or null */
} tt_store;

typedef struct {
    const tt_net *net;
    void *arena;        /* net's TT_ARENA_BYTES, aligned for float; 16 bytes are best */
    float lr;           /* the rate of the next updates; tt_init sets the exported one */
    uint32_t seed;      /* of dropout */
    uint32_t step;      /* updates made */
    uint32_t slice;     /* slices of the present batch that were taken */
    uint32_t begun;     /* whether the present batch has begun */
    uint32_t overflows; /* slices that ran again, for they had more non-zeros than was planned */
    uint32_t powers[4]; /* Adam's b1^(step + 1) and b2^(step + 1) as fractions of 2^64 */
    const tt_store *store; /* for a plan that spills; else it may be null */
} tt_model;

typedef enum {
    TT_OK,
    TT_E_INPUT,    /* a NaN or an infinity in x; weights and optimizer state are as they were */
    TT_E_OUTPUT,   /* ... in the network's output */
    TT_E_LOSS,     /* ... in the loss */
    TT_E_GRADIENT, /* ... in a gradient (plans with guard="step") */
    TT_E_OVERFLOW, /* a bitmap overflowed, and there is no guaranteed plan */
    TT_E_LABEL,    /* a class number or an index that is out of range; nothing was run */
    TT_E_TABLE,    /* the table is damaged or of another version */
    TT_E_FLOATS,   /* this build's float arithmetic is not the promised one; see tt_selfcheck */
    TT_E_STATE,    /* a saved state that is cut short, damaged or another network's; the arena is
                      as it was */
    TT_E_IO,       /* the callback said so; after a failed tt_restore, call tt_init */
    TT_E_ARENA,    /* no arena, or one that is not aligned for float */
    TT_E_STORE,    /* the block device failed, gave other bytes than it took, or there is none; nothing
                      that lasts was changed */
    TT_E_LENGTH,   /* an array of another length than the network wants */
    TT_E_HALF,     /* it failed to give back what it took, behind the first update: the step is half
                      done; call tt_restore or tt_init. guard="step" plans never get there */
    TT_E_SLOTS     /* the region holds fewer than two slots; see tt_slots.h */
} tt_status;

/* Check table and arithmetic, and set up the arena: initial parameters, zero optimizer state. */
int tt_init(tt_model *m, uint32_t seed);

/* Forward and backward of one slice (TT_SLICE samples); every TT_SLICES-th call updates. x holds the
   inputs and y the labels, one after another; *loss is the slice's mean loss before the update. What
   is refused counts as not given: weights are as they were, and another slice may take its place. */
int tt_train(tt_model *m, const void *x, const void *y, float *loss);

/* The network's outputs for one sample, in the same arena. */
int tt_infer(tt_model *m, const void *x, void *out);

/* The same, told how long the arrays are: unless that is TT_X_BYTES (of one sample in tt_infer_sized),
   TT_Y_BYTES and TT_OUT_BYTES, TT_E_LENGTH, and nothing is read or written. */
int tt_train_sized(tt_model *m, const void *x, size_t x_bytes, const void *y, size_t y_bytes,
                   float *loss);
int tt_infer_sized(tt_model *m, const void *x, size_t x_bytes, void *out, size_t out_bytes);

/* Everything that going on bit for bit needs, with a CRC-32. `write` takes bytes in order and gives
   0, or anything else to stop. */
typedef int tt_write(void *user, const void *data, size_t bytes);
int tt_save(const tt_model *m, tt_write *write, void *user);
uint32_t tt_saved_bytes(const tt_model *m); /* of what tt_save writes */

/* What tt_save wrote. `read` is asked for everything twice, so that nothing is touched before all is
   found whole. */
int tt_restore(tt_model *m, tt_read *read, void *user);

/* CRC-32 (as zlib has it) of more bytes; begins with 0. */
uint32_t tt_crc(uint32_t crc, const void *data, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
