/* Where a board keeps what tt_save writes: slots of flash that are filled in turn, so that a power
   cut loses at most the save that it interrupts. It never erases the newest whole state, never
   allocates, and trusts nothing that it has not read back.

   A slot is a head (sequence number, how often the slot was erased), what tt_save wrote, and a
   CRC-32 of all that, written last. A region of more than two slots spreads the wear: with n slots,
   each is erased at every n-th save. */
#ifndef TT_SLOTS_H
#define TT_SLOTS_H
#include "tt.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TT_UNIT_MOST = 32 }; /* bytes: an STM32H7's flash word, the largest known */

/* A region of flash, or of anything else that is erased in sectors (to 0xff) and written once in
   between. The callbacks give 0, or anything else for a failure; offsets count from the region's
   beginning. What cannot be erased (a file, FRAM) may fill a sector with 0xff instead. */
typedef struct {
    void *user;
    uint32_t sectors; /* of the region */
    uint32_t sector;  /* bytes of one */
    uint32_t unit;    /* bytes that are written at once: a power of two up to TT_UNIT_MOST */
    int (*erase)(void *user, uint32_t sector);
    int (*write)(void *user, uint32_t offset, const void *data, uint32_t bytes); /* whole units */
    int (*read)(void *user, uint32_t offset, void *data, uint32_t bytes);
} tt_slots;

typedef struct {
    uint32_t sequence; /* of the state that was written or taken, from 1; 0: there is none */
    uint32_t slot;
    uint32_t erases; /* of that slot, this one included; a cut behind an erase may lose a count */
    uint32_t newer;  /* 1: a newer save was cut short or is damaged, so this is the last but one */
} tt_found;

/* How many slots of this model the region holds; two are needed. */
uint32_t tt_slots_count(const tt_model *m, const tt_slots *s);

/* Save into the slot after the newest, and read it back; a slot that fails is passed over. `found`
   may be null. TT_E_IO: none could be written; TT_E_SLOTS: fewer than two fit. */
int tt_slots_save(const tt_model *m, const tt_slots *s, tt_found *found);

/* Take the newest whole state; `found` (or null) says which. TT_E_STATE: there is none of this
   network, and the arena is as it was; TT_E_IO: call tt_init; TT_E_SLOTS as above. */
int tt_slots_restore(tt_model *m, const tt_slots *s, tt_found *found);

#ifdef __cplusplus
}
#endif

#endif
