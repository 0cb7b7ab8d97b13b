/* The sum over rows that norms and biases share: rows in blocks of 256; within a block row r goes to
   sum r % 4, each from +0 and ascending; a block gives (s0 + s1) + (s2 + s3), and blocks are added
   ascending, from +0. A chain is 64 rows, then one addition a block: 100,000 rows keep six digits. */
#ifndef TT_ROWS_H
#define TT_ROWS_H
#include "tt_lanes.h"

enum { TT_PLAIN, TT_SQUARE, TT_PRODUCT };

/* For the n (at most LANES of them) channels from x on, rows `step` apart: to out the sums of x, of
   (x - m)^2, or of (x - m) * g. A missing m is 0. */
void tt_sum_rows(float *out, const float *x, const float *g, tt_ix rows, tt_ix step, const float *m,
                 int mode, tt_ix n);

#endif
