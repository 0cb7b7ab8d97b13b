/* The products that convolutions and matrix products are made of; kernels alone use them. */
#ifndef TT_PRODUCT_H
#define TT_PRODUCT_H
#include "tt_kernels.h"

/* gemm      c[m, n] (+)= sum_{o < ko} sum_{k < ki} a[m*a_rs + o*a_ko + k*a_ki] * b[.. + n]
   lanewise  c[m, n] (+)= sum_{o < ko} sum_{k < ki} a[m*a_rs + o*a_ko + k*a_ki + n] * b[.. + n]
   across    c[m, n] (+)= sum_{k < ki} a[m*a_rs + k*a_ki] * b[n*b_ko + k*b_ki]

   with b[..] at o*b_ko + k*b_ki and c's rows c_rs apart; strides are in elements and may be
   negative. Every output is one sum from +0, or from the stored value if `add`, over o, then k
   ascending, each product rounded before it is added; the bias, if there is one, comes last. With
   `weights`, laid out as c and perhaps c itself, the sum is a gradient and what is stored is
   weights - rate * sum. With `moved` (gemm alone, no bias) the sum is stored as well: that of a
   velocity, which begins with momentum * velocity, or with that + decay * decayed, and what goes to
   `moved` is weights - rate * sum; all are laid out as c. The b_ki of `across` is 1. */
typedef struct {
    tt_ix m, n, add;
    float *c;
    tt_ix c_rs;
    const float *a;
    tt_ix a_rs, a_ko, a_ki;
    const float *b;
    tt_ix b_ko, b_ki, ko, ki;
    const float *bias, *weights;
    float rate;
    float *moved;
    const float *velocity, *decayed;
    float momentum, decay;
} tt_product;

void tt_gemm(const tt_product *q);
void tt_lanewise(const tt_product *q);
void tt_across(const tt_product *q);

/* to[k * step + lane] = from[lane * stride + k] for `lanes` lanes and `count` k. */
void tt_turn(float *to, tt_ix step, const float *from, tt_ix stride, tt_ix lanes, tt_ix count);

#endif
