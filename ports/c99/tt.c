/* The step loop and the four verbs: it walks the table, knows no network and computes nothing but
   Adam's corrections. */
#include "tt.h"

#include <string.h>

#include "model.h"

enum { ROW = 4, SAVED = 12 }; /* words of a leaf or port, and of a saved head */
enum { STOP = 0, SPILL = 89, FETCH = 90 }; /* instructions that are no kernels */
static const uint32_t none = 0xffffffffu, flash = 0x80000000u;
static const uint32_t magic = 0x31545454u, version = 1u, saved_magic = 0x31535454u;

/* Words of the table's header, and of a program's row. */
enum {
    WORDS = 2,
    CRC,
    ARENA,
    PERSISTENT,
    SLICES,
    SLICE,
    RATE,
    SHARE,
    BETAS,
    LEAVES = 14,
    LEAF_COUNT,
    PROGRAMS,
    PROGRAM_COUNT,
    HEADER = 20
};
enum { KIND, SAMPLES, PROLOGUE, BODY, EPILOGUE, END, LOSS, LR, CORRECTIONS, PART, KEY, PORTS, INPUTS, GUARDED = 15 };

static uint8_t *at(const tt_model *m, uint32_t offset) { return (uint8_t *)m->arena + offset; }

static float as_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

uint32_t tt_crc(uint32_t crc, const void *data, size_t bytes) {
    static const uint32_t nibbles[16] = {
        0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u,
        0x4db26158u, 0x5005713cu, 0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
        0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
    const uint8_t *p = data;
    crc = ~crc;
    for (; bytes; bytes--) {
        crc ^= *p++;
        crc = crc >> 4 ^ nibbles[crc & 15u];
        crc = crc >> 4 ^ nibbles[crc & 15u];
    }
    return ~crc;
}

/* ------------------------------------------------------------------ the step loop */

static void *place(const tt_model *m, uint32_t operand) {
    if (operand == none) return 0;
    if (operand & flash) return (uint8_t *)(uintptr_t)m->net->words + (operand - flash);
    return at(m, operand);
}

/* A value to the block device or back; code, operand, place, bytes and number as in the table. */
static int transfer(const tt_model *m, uint32_t code, const uint32_t *w) {
    const tt_store *store = m->store;
    void *value = at(m, w[0]);
    uint32_t sum;
    if (!store) return TT_E_STORE;
    if (code == FETCH && store->get(store->user, w[1], value, w[2])) return TT_E_STORE;
    sum = store->sums ? tt_crc(0u, value, w[2]) : 0u;
    if (code == FETCH) return store->sums && store->sums[w[3]] != sum ? TT_E_STORE : TT_OK;
    if (store->sums) store->sums[w[3]] = sum;
    return store->put(store->user, w[1], value, w[2]) ? TT_E_STORE : TT_OK;
}

/* The steps from one position of the table to another; a reason to stop, or 0. */
static int run(const tt_model *m, uint32_t from, uint32_t end) {
    const uint32_t *w = m->net->words + from, *last = m->net->words + end;
    void *operands[TT_OPERANDS];
    while (w < last) {
        uint32_t code = *w & 0xffu, count = *w >> 8 & 0xffu, size = *w >> 16, k;
        w++;
        if (code == SPILL || code == FETCH) {
            int status = transfer(m, code, w);
            if (status != TT_OK) return status;
        } else if (code == STOP) {
            for (k = 0; k < count; k++) {
                uint32_t flag;
                memcpy(&flag, at(m, w[k]), 4);
                if (flag) return (int)w[count + k];
            }
        } else {
            for (k = 0; k < count; k++) operands[k] = place(m, w[k]);
            m->net->kernels[code](operands, (const int32_t *)(w + count));
        }
        w += count + size;
    }
    return TT_OK;
}

static const uint32_t *program(const tt_model *m, uint32_t kind) {
    const uint32_t *words = m->net->words, *row = words + words[PROGRAMS];
    uint32_t k;
    for (k = 0; k < words[PROGRAM_COUNT]; k++, row += 16)
        if (row[KIND] == kind) return row;
    return 0;
}

/* ------------------------------------------------------------------ what goes in and out */

/* An array of the user's into the arena; integers are looked at first. Returns what follows it. */
static const uint8_t *load(const tt_model *m, const uint32_t *port, const uint8_t *data,
                           int *status) {
    uint32_t bytes = port[1] * (port[2] == 3u ? 1u : 4u), k, value;
    if (port[3])
        for (k = 0; k < port[1]; k++) {
            memcpy(&value, data + 4 * (size_t)k, 4);
            if (value >= port[3]) *status = TT_E_LABEL;
        }
    if (*status == TT_OK) memcpy(at(m, port[0]), data, bytes);
    return data + bytes;
}

/* Without labels (a null y), the inputs alone. */
static int load_all(const tt_model *m, const uint32_t *row, const void *x, const void *y) {
    const uint32_t *port = m->net->words + row[PORTS];
    const uint8_t *data = x;
    int status = TT_OK;
    uint32_t k;
    for (k = 0; k < row[INPUTS]; k++, port += ROW) data = load(m, port, data, &status);
    data = y;
    for (k = 0; data && k < row[INPUTS + 1]; k++, port += ROW) data = load(m, port, data, &status);
    return status;
}

/* power *= beta, both as fractions of 2^64, so that it is the same everywhere. */
static void multiply(uint32_t *power, const uint32_t *beta) {
    uint64_t cross = (uint64_t)power[0] * beta[1] + ((uint64_t)power[1] * beta[1] >> 32);
    uint64_t other = (uint64_t)power[1] * beta[0] + (cross & 0xffffffffu);
    uint64_t high = (uint64_t)power[0] * beta[0] + (cross >> 32) + (other >> 32);
    power[0] = (uint32_t)(high >> 32);
    power[1] = (uint32_t)high;
}

/* 1 - power, rounded once. */
static float rest_of(const uint32_t *power) {
    uint64_t rest = 0u - ((uint64_t)power[0] << 32 | power[1]);
    return rest ? (float)rest * 0x1p-64f : 1.0f;
}

/* The numbers that a step of this program reads. */
static void set_numbers(const tt_model *m, const uint32_t *row) {
    const uint32_t *words = m->net->words;
    uint32_t key[3];
    float value[2];
    if (row[LR] != none) memcpy(at(m, row[LR]), &m->lr, 4);
    if (row[PART] != none) memcpy(at(m, row[PART]), words + SHARE, 4);
    if (row[CORRECTIONS] != none) {
        value[0] = rest_of(m->powers);
        value[1] = rest_of(m->powers + 2);
        memcpy(at(m, row[CORRECTIONS]), value, 8);
    }
    if (row[KEY] != none) {
        key[0] = m->seed ^ 0x9e3779b9u, key[1] = m->step, key[2] = m->slice * words[SLICE];
        memcpy(at(m, row[KEY]), key, 12);
    }
}

/* ------------------------------------------------------------------ the verbs */

static int check_table(const tt_model *m) {
    const uint32_t *words = m->net->words;
    if (m->net->count < HEADER || words[WORDS] != m->net->count) return TT_E_TABLE;
    if (words[0] != magic || words[1] != version) return TT_E_TABLE;
    if (words[CRC] != tt_crc(0u, words + 4, 4 * (size_t)(words[WORDS] - 4u))) return TT_E_TABLE;
    return TT_OK;
}

int tt_init(tt_model *m, uint32_t seed) {
    const uint32_t *words = m->net->words, *leaf;
    uint32_t k;
    if (!m->arena || (uintptr_t)m->arena % 4u) return TT_E_ARENA;
    if (check_table(m) != TT_OK) return TT_E_TABLE;
    if (tt_selfcheck() != 0) return TT_E_FLOATS;
    leaf = words + words[LEAVES];
    memset(m->arena, 0, words[PERSISTENT]);
    for (k = 0; k < words[LEAF_COUNT]; k++, leaf += ROW)
        if (leaf[3] != none) memcpy(at(m, leaf[1]), words + leaf[3], leaf[2]);
    m->lr = as_float(words[RATE]);
    m->seed = seed;
    m->step = m->slice = m->begun = m->overflows = 0u;
    memcpy(m->powers, words + BETAS, sizeof m->powers);
    return TT_OK;
}

static int prepare(const tt_model *m, const uint32_t *row, const void *x, const void *y) {
    int status = load_all(m, row, x, y);
    if (status == TT_OK) set_numbers(m, row);
    return status;
}

/* A slice up to where anything persistent changes; then the prologue, if it is the batch's first. */
static int forward_and_backward(tt_model *m, const uint32_t *row, const void *x, const void *y) {
    int status = prepare(m, row, x, y);
    if (status == TT_OK) status = run(m, row[BODY], row[GUARDED]);
    if (status != TT_OK) return status;
    if (!m->begun) status = run(m, row[PROLOGUE], row[BODY]);
    m->begun = 1u;
    if (status == TT_OK) status = run(m, row[GUARDED], row[EPILOGUE]);
    return status == TT_E_STORE ? TT_E_HALF : status;
}

int tt_train(tt_model *m, const void *x, const void *y, float *loss) {
    const uint32_t *row = program(m, 0u), *sure = program(m, 1u);
    int status = row ? forward_and_backward(m, row, x, y) : TT_E_TABLE;
    if (status == TT_E_OVERFLOW && sure) { /* nothing was changed: the same slice, with more room */
        row = sure;
        m->overflows++;
        status = forward_and_backward(m, row, x, y);
    }
    if (status != TT_OK) return status;
    if (loss) memcpy(loss, at(m, row[LOSS]), 4);
    if (++m->slice < m->net->words[SLICES]) return TT_OK;
    status = run(m, row[EPILOGUE], row[END]);
    m->slice = m->begun = 0u;
    if (status != TT_OK) return status;
    m->step++;
    multiply(m->powers, m->net->words + BETAS);
    multiply(m->powers + 2, m->net->words + BETAS + 2);
    return TT_OK;
}

int tt_infer(tt_model *m, const void *x, void *out) {
    const uint32_t *row = program(m, 2u), *port;
    uint8_t *to = out;
    uint32_t k, bytes;
    int status;
    if (!row) return TT_E_TABLE;
    port = m->net->words + row[PORTS];
    status = load_all(m, row, x, 0);
    if (status == TT_OK) status = run(m, row[PROLOGUE], row[END]);
    for (port += ROW * (row[INPUTS] + row[INPUTS + 1]), k = 0; k < row[INPUTS + 2]; k++) {
        bytes = port[1] * (port[2] == 3u ? 1u : 4u);
        if (status == TT_OK) memcpy(to, at(m, port[0]), bytes);
        to += bytes, port += ROW;
    }
    return status;
}

/* Bytes of a program's inputs, labels or outputs (group 0, 1 or 2), all arrays together. */
static size_t bytes_of(const tt_model *m, const uint32_t *row, uint32_t group) {
    const uint32_t *port = m->net->words + row[PORTS];
    size_t bytes = 0;
    uint32_t k;
    for (k = 0; k < group; k++) port += ROW * row[INPUTS + k];
    for (k = 0; k < row[INPUTS + group]; k++, port += ROW)
        bytes += port[1] * (port[2] == 3u ? (size_t)1 : 4);
    return bytes;
}

int tt_train_sized(tt_model *m, const void *x, size_t x_bytes, const void *y, size_t y_bytes,
                   float *loss) {
    const uint32_t *row = program(m, 0u);
    if (!row) return TT_E_TABLE;
    if (bytes_of(m, row, 0u) != x_bytes || bytes_of(m, row, 1u) != y_bytes) return TT_E_LENGTH;
    return tt_train(m, x, y, loss);
}

int tt_infer_sized(tt_model *m, const void *x, size_t x_bytes, void *out, size_t out_bytes) {
    const uint32_t *row = program(m, 2u);
    if (!row) return TT_E_TABLE;
    if (bytes_of(m, row, 0u) != x_bytes || bytes_of(m, row, 2u) != out_bytes) return TT_E_LENGTH;
    return tt_infer(m, x, out);
}

/* ------------------------------------------------------------------ saving */

uint32_t tt_saved_bytes(const tt_model *m) { return 4u * SAVED + m->net->words[PERSISTENT] + 4u; }

int tt_save(const tt_model *m, tt_write *write, void *user) {
    const uint32_t *words = m->net->words;
    uint32_t head[SAVED], crc;
    head[0] = saved_magic, head[1] = words[CRC], head[2] = m->seed, head[3] = m->step;
    head[4] = m->slice, head[5] = m->begun, head[6] = m->overflows;
    memcpy(head + 7, &m->lr, 4);
    memcpy(head + 8, m->powers, sizeof m->powers);
    crc = tt_crc(tt_crc(0u, head, sizeof head), m->arena, words[PERSISTENT]);
    if (write(user, head, sizeof head)) return TT_E_IO;
    if (write(user, m->arena, words[PERSISTENT])) return TT_E_IO;
    return write(user, &crc, 4) ? TT_E_IO : TT_OK;
}

int tt_restore(tt_model *m, tt_read *read, void *user) {
    const uint32_t *words = m->net->words;
    uint32_t head[SAVED], crc, found, bytes = words[PERSISTENT], k;
    uint8_t piece[64];
    if (!m->arena || (uintptr_t)m->arena % 4u) return TT_E_ARENA;
    if (read(user, 0, head, sizeof head)) return TT_E_STATE;
    if (head[0] != saved_magic || head[1] != words[CRC]) return TT_E_STATE;
    crc = tt_crc(0u, head, sizeof head);
    for (k = 0; k < bytes; k += (uint32_t)sizeof piece) {
        uint32_t n = bytes - k < sizeof piece ? bytes - k : (uint32_t)sizeof piece;
        if (read(user, sizeof head + k, piece, n)) return TT_E_STATE;
        crc = tt_crc(crc, piece, n);
    }
    if (read(user, sizeof head + bytes, &found, 4) || found != crc) return TT_E_STATE;
    if (read(user, sizeof head, m->arena, bytes)) return TT_E_IO;
    m->seed = head[2], m->step = head[3], m->slice = head[4], m->begun = head[5];
    m->overflows = head[6];
    memcpy(&m->lr, head + 7, 4);
    memcpy(m->powers, head + 8, sizeof m->powers);
    return TT_OK;
}
