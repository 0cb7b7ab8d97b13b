/* Slots of flash in turn: the save goes to the slot after the newest whole one, its CRC-32 last. */
#include "tt_slots.h"

#include <string.h>

enum { MAGIC, SEQUENCE, ERASES, CHECK, WORDS }; /* of a slot's head */
static const uint32_t slot_magic = 0x31534c53u;
typedef enum { BLANK, WHOLE, BROKEN } kind;

/* Head and tail are as large as a unit, at least. */
static uint32_t margin(const tt_slots *s) { return s->unit > 4u * WORDS ? s->unit : 4u * WORDS; }

static uint32_t up(uint32_t bytes, uint32_t to) { return (bytes + to - 1u) / to * to; }

static uint32_t tail(const tt_model *m, const tt_slots *s) {
    return margin(s) + up(tt_saved_bytes(m), s->unit);
}

static uint32_t slot_bytes(const tt_model *m, const tt_slots *s) {
    return up(tail(m, s) + margin(s), s->sector);
}

uint32_t tt_slots_count(const tt_model *m, const tt_slots *s) {
    uint32_t unit = s->unit, bytes;
    if (!unit || unit > TT_UNIT_MOST || (unit & (unit - 1u)) || !s->sector || s->sector % unit)
        return 0u;
    bytes = slot_bytes(m, s);
    return s->sectors / (bytes / s->sector);
}

/* ------------------------------------------------------------------ looking */

/* What a slot holds. The head alone may be right: of a save that was cut short. */
static kind look(const tt_model *m, const tt_slots *s, uint32_t slot, uint32_t *head) {
    uint32_t from = slot * slot_bytes(m, s), end = tail(m, s), at, n, crc = 0u, found, k;
    uint8_t piece[64];
    if (s->read(s->user, from, head, 4u * WORDS)) memset(head, 0, 4u * WORDS);
    for (k = 0; k < WORDS && head[k] == 0xffffffffu; k++) continue;
    if (k == WORDS) return BLANK;
    if (head[MAGIC] != slot_magic || head[CHECK] != tt_crc(0u, head, 4u * CHECK)) {
        head[MAGIC] = 0u;
        return BROKEN;
    }
    for (at = 0; at < end; at += n) {
        n = end - at < sizeof piece ? end - at : (uint32_t)sizeof piece;
        if (s->read(s->user, from + at, piece, n)) return BROKEN;
        crc = tt_crc(crc, piece, n);
    }
    if (s->read(s->user, from + end, &found, 4) || found != crc) return BROKEN;
    return WHOLE;
}

static int is_after(uint32_t a, uint32_t b) { return a - b - 1u < 0x7fffffffu; }

/* The newest whole slot; its sequence is 0 if there is none. */
static tt_found newest(const tt_model *m, const tt_slots *s, uint32_t count) {
    tt_found best = {0u, 0u, 0u, 0u};
    uint32_t head[WORDS], slot, cut = 0u, unknown = 0u;
    for (slot = 0; slot < count; slot++) {
        kind found = look(m, s, slot, head);
        if (found == WHOLE && (!best.sequence || is_after(head[SEQUENCE], best.sequence))) {
            best.sequence = head[SEQUENCE], best.slot = slot, best.erases = head[ERASES];
        } else if (found == BROKEN && head[MAGIC] != slot_magic) {
            unknown = 1u; /* nobody knows how old: it may have been the newest */
        } else if (found == BROKEN && (!cut || is_after(head[SEQUENCE], cut))) {
            cut = head[SEQUENCE];
        }
    }
    best.newer = unknown || (cut && (!best.sequence || is_after(cut, best.sequence)));
    return best;
}

/* ------------------------------------------------------------------ writing */

/* Bytes on their way into a slot, gathered into units. */
typedef struct {
    const tt_slots *s;
    uint32_t at, crc, filled;
    uint8_t unit[TT_UNIT_MOST];
} writer;

static int put(void *user, const void *data, size_t bytes) {
    writer *w = user;
    const uint8_t *from = data;
    for (; bytes; bytes--) {
        w->unit[w->filled++] = *from++;
        if (w->filled < w->s->unit) continue;
        if (w->s->write(w->s->user, w->at, w->unit, w->filled)) return 1;
        w->crc = tt_crc(w->crc, w->unit, w->filled);
        w->at += w->filled;
        w->filled = 0u;
    }
    return 0;
}

/* Fill up to a border with 0xff. */
static int pad(writer *w, uint32_t border) {
    static const uint8_t rest = 0xffu;
    while (w->at + w->filled < border)
        if (put(w, &rest, 1)) return 1;
    return 0;
}

static int fill(const tt_model *m, const tt_slots *s, uint32_t slot, const uint32_t *head) {
    writer w = {s, 0u, 0u, 0u, {0}};
    uint32_t bytes = slot_bytes(m, s), from = slot * bytes, k, crc;
    for (k = 0; k < bytes / s->sector; k++)
        if (s->erase(s->user, from / s->sector + k)) return 1;
    w.at = from;
    if (put(&w, head, 4u * WORDS) || pad(&w, from + margin(s))) return 1;
    if (tt_save(m, put, &w) != TT_OK || pad(&w, from + tail(m, s))) return 1;
    crc = w.crc;
    return put(&w, &crc, 4) || pad(&w, from + tail(m, s) + margin(s));
}

int tt_slots_save(const tt_model *m, const tt_slots *s, tt_found *found) {
    uint32_t count = tt_slots_count(m, s), head[WORDS], k;
    tt_found last;
    if (count < 2u) return TT_E_SLOTS;
    last = newest(m, s, count);
    if (!last.sequence) last.slot = count - 1u;
    /* The newest whole state stays, whatever fails; without one, every slot may be tried. */
    for (k = 1; k < count + (last.sequence ? 0u : 1u); k++) {
        tt_found made = {last.sequence + 1u, (last.slot + k) % count, last.erases, 0u};
        look(m, s, made.slot, head);
        if (head[MAGIC] == slot_magic)
            made.erases = head[ERASES] + 1u;
        else
            made.erases += made.slot <= last.slot; /* unknown: as the turns have it */
        made.sequence += !made.sequence; /* 0 is none */
        head[MAGIC] = slot_magic, head[SEQUENCE] = made.sequence, head[ERASES] = made.erases;
        head[CHECK] = tt_crc(0u, head, 4u * CHECK);
        if (fill(m, s, made.slot, head) || look(m, s, made.slot, head) != WHOLE) continue;
        if (found) *found = made;
        return TT_OK;
    }
    return TT_E_IO;
}

/* ------------------------------------------------------------------ restoring */

typedef struct {
    const tt_slots *s;
    uint32_t from;
} reader;

static int get(void *user, size_t offset, void *data, size_t bytes) {
    const reader *r = user;
    return r->s->read(r->s->user, r->from + (uint32_t)offset, data, (uint32_t)bytes);
}

int tt_slots_restore(tt_model *m, const tt_slots *s, tt_found *found) {
    uint32_t count = tt_slots_count(m, s);
    tt_found last = {0u, 0u, 0u, 0u};
    reader r;
    if (count >= 2u) last = newest(m, s, count);
    if (found) *found = last;
    if (count < 2u) return TT_E_SLOTS;
    if (!last.sequence) return TT_E_STATE;
    r.s = s, r.from = last.slot * slot_bytes(m, s) + margin(s);
    return tt_restore(m, get, &r);
}
