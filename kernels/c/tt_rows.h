/* The sum over rows that norms and biases share: rows in blocks of 256; within a block row r goes to
   sum r % 4, each from +0 and ascending; a block gives (s0 + s1) + (s2 + s3), and blocks are added
   ascending, from +0. A chain is 64 rows, then one addition a block: 100,000 rows keep six digits. */
#ifndef TT_ROWS_H
#define TT_ROWS_H
#include "tt_kernels.h"

enum { TT_PLAIN, TT_SQUARE, TT_PRODUCT };

/* Of one channel, `step` apart: the sum of (x - m), of its square, or of (x - m) * g. */
float tt_sum_rows(const float *x, const float *g, tt_ix rows, tt_ix step, float m, int mode);

#endif
