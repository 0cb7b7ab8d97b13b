/* The parts of a call on several threads, for hosts (-DTT_VECTORS); a board has one. A part is a
   call of its own over some of the samples, so no sum is cut and the bits are those of one thread.

   Threads are started by the first walk that wants them. Between parts they watch for more for some
   microseconds, then sleep. A second walk at the same time runs its parts one after the other. */
#include "tt_kernels.h"

#ifdef TT_VECTORS
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

enum { MOST = 64, WATCH = 4000, YIELD = 64 };

static pthread_mutex_t walking = PTHREAD_MUTEX_INITIALIZER, door = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t bell = PTHREAD_COND_INITIALIZER;
static const tt_call *work;     /* part k is thread k's; the caller is thread 0 */
static tt_ix parts;
static unsigned turn;           /* of the parts that are to be done now */
static unsigned since[MOST];    /* the turn after which a thread was started */
static int left, sleepers, started;
static pid_t home;              /* whose threads they are: a fork has none of them */

static void run(const tt_call *call) { call->kernel(call->operands, call->words); }

static void *thread(void *given) {
    tt_ix mine = (tt_ix)(intptr_t)given;
    unsigned seen = since[mine];
    for (;;) {
        int watched = 0;
        while (__atomic_load_n(&turn, __ATOMIC_SEQ_CST) == seen) {
            if (++watched % YIELD == 0) sched_yield();
            if (watched < WATCH) continue;
            pthread_mutex_lock(&door);
            __atomic_add_fetch(&sleepers, 1, __ATOMIC_SEQ_CST);
            while (__atomic_load_n(&turn, __ATOMIC_SEQ_CST) == seen)
                pthread_cond_wait(&bell, &door);
            __atomic_sub_fetch(&sleepers, 1, __ATOMIC_SEQ_CST);
            pthread_mutex_unlock(&door);
        }
        seen = __atomic_load_n(&turn, __ATOMIC_SEQ_CST);
        if (mine < parts) run(work + mine);
        __atomic_sub_fetch(&left, 1, __ATOMIC_SEQ_CST); /* nobody misses a turn */
    }
    return 0;
}

/* As many threads as `count` parts want, as far as they can be had. */
static int start(int count) {
    pthread_t made;
    if (home != getpid()) {
        static const pthread_mutex_t open = PTHREAD_MUTEX_INITIALIZER;
        static const pthread_cond_t still = PTHREAD_COND_INITIALIZER;
        home = getpid(), door = open, bell = still, started = 1, sleepers = 0;
    }
    while (started < count && started < MOST) {
        since[started] = turn;
        if (pthread_create(&made, 0, thread, (void *)(intptr_t)started)) break;
        pthread_detach(made);
        started++;
    }
    return started >= count;
}

static void together(const tt_call *calls, tt_ix count) {
    int watched = 0;
    work = calls, parts = count;
    __atomic_store_n(&left, started - 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&turn, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&sleepers, __ATOMIC_SEQ_CST)) {
        pthread_mutex_lock(&door);
        pthread_cond_broadcast(&bell);
        pthread_mutex_unlock(&door);
    }
    run(calls);
    while (__atomic_load_n(&left, __ATOMIC_SEQ_CST) > 0)
        if (++watched % YIELD == 0) sched_yield();
}

int tt_walk_wide(const tt_call *calls, const int32_t *widths, tt_ix stages) {
    int most = 1, wide;
    tt_ix k, i;
    for (k = 0; k < stages; k++)
        if (widths[k] > most) most = widths[k];
    wide = !pthread_mutex_trylock(&walking);
    for (k = 0; k < stages; calls += widths[k], k++) {
        if (widths[k] == 1) {
            if (tt_walk(calls, 1)) break;
        } else if (wide && start(most)) {
            together(calls, widths[k]);
        } else {
            for (i = 0; i < widths[k]; i++) run(calls + i);
        }
    }
    if (wide) pthread_mutex_unlock(&walking);
    return k < stages;
}
#else
typedef int tt_no_threads; /* a file may not be empty */
#endif
