/* The parts of a call on several threads, for hosts (-DTT_VECTORS); a board has one. A part is a
   call of its own over some of the samples or taps, so no sum is cut and the bits are those of one
   thread.

   Whoever is free takes the next part: a thread that wakes late, or that others keep from its
   processor, is waited for with no part but the one it has begun. Threads are started by the first walk
   that wants them. While a walk lasts they watch for its next parts, and for some microseconds behind
   it, then sleep: to wake takes longer than most parts. A second walk at the same time runs its parts
   one after the other. */
#include "tt_kernels.h"

#ifdef TT_VECTORS
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

enum { MOST = 64, WATCH = 4000, YIELD = 64 };

static pthread_mutex_t walking = PTHREAD_MUTEX_INITIALIZER, door = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t bell = PTHREAD_COND_INITIALIZER;
static const tt_call *work;
static unsigned open_parts; /* how many there are * 256 + how many were taken */
static int done, sleepers, started, lasts; /* lasts: whether a walk does */
static pid_t home; /* whose threads they are: a fork has none of them */

static int is_open(unsigned parts) { return (parts & 255u) < parts >> 8; }

/* Do a part that is open; whether there was one. What `work` is stays until all are done. */
static int help(void) {
    unsigned seen = __atomic_load_n(&open_parts, __ATOMIC_SEQ_CST);
    const tt_call *call;
    if (!is_open(seen) || !__atomic_compare_exchange_n(&open_parts, &seen, seen + 1u, 0,
                                                       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return 0;
    call = __atomic_load_n(&work, __ATOMIC_SEQ_CST) + (seen & 255u);
    call->kernel(call->operands, call->words);
    __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
    return 1;
}

static void *thread(void *nothing) {
    int watched = 0;
    for (;; watched++) {
        if (help()) watched = 0;
        if (watched % YIELD == YIELD - 1) sched_yield();
        if (watched < WATCH) continue;
        watched = 0;
        if (__atomic_load_n(&lasts, __ATOMIC_SEQ_CST)) continue;
        pthread_mutex_lock(&door);
        __atomic_add_fetch(&sleepers, 1, __ATOMIC_SEQ_CST);
        while (!is_open(__atomic_load_n(&open_parts, __ATOMIC_SEQ_CST)))
            pthread_cond_wait(&bell, &door);
        __atomic_sub_fetch(&sleepers, 1, __ATOMIC_SEQ_CST);
        pthread_mutex_unlock(&door);
    }
    return nothing;
}

/* As many threads as `count`, the caller among them, as far as they can be had. */
static void start(tt_ix count) {
    pthread_t made;
    if (home != getpid()) {
        static const pthread_mutex_t open = PTHREAD_MUTEX_INITIALIZER;
        static const pthread_cond_t still = PTHREAD_COND_INITIALIZER;
        home = getpid(), door = open, bell = still, started = 1, sleepers = 0;
    }
    while (started < count && started < MOST) {
        if (pthread_create(&made, 0, thread, 0)) break;
        pthread_detach(made);
        started++;
    }
}

static void together(const tt_call *calls, int32_t count) {
    int watched = 0;
    __atomic_store_n(&done, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&work, calls, __ATOMIC_SEQ_CST);
    __atomic_store_n(&open_parts, (unsigned)count << 8, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&sleepers, __ATOMIC_SEQ_CST)) {
        pthread_mutex_lock(&door);
        pthread_cond_broadcast(&bell);
        pthread_mutex_unlock(&door);
    }
    while (__atomic_load_n(&done, __ATOMIC_SEQ_CST) < count)
        if (!help() && ++watched % YIELD == 0) sched_yield();
}

int tt_walk_wide(const tt_call *calls, const int32_t *widths, tt_ix stages, tt_ix threads) {
    tt_ix k, i;
    const int wide = !pthread_mutex_trylock(&walking);
    if (wide) {
        start(threads);
        __atomic_store_n(&lasts, 1, __ATOMIC_SEQ_CST);
    }
    for (k = 0; k < stages; calls += widths[k], k++) {
        if (widths[k] == 1) {
            if (tt_walk(calls, 1)) break;
        } else if (wide && widths[k] < 256) {
            together(calls, widths[k]);
        } else {
            for (i = 0; i < widths[k]; i++) calls[i].kernel(calls[i].operands, calls[i].words);
        }
    }
    if (wide) {
        __atomic_store_n(&lasts, 0, __ATOMIC_SEQ_CST);
        pthread_mutex_unlock(&walking);
    }
    return k < stages;
}
#else
typedef int tt_no_threads; /* a file may not be empty */
#endif
