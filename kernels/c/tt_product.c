/* The products in plain C, for boards: four outputs of a row at a time, so that a load of `a` serves
   four. */
#include "tt_product.h"

#include "tt_math.h"

#ifndef TT_VECTORS

/* What the sum of velocity (m, n) begins with. */
static float begun(const tt_product *q, tt_ix m, tt_ix n) {
    tt_ix at = m * q->c_rs + n;
    float s = q->velocity[at] * q->momentum;
    return q->decayed ? s + q->decay * q->decayed[at] : s;
}

/* The weight (m, n), moved by its complete velocity. */
static void move(const tt_product *q, tt_ix m, tt_ix n, float s) {
    tt_ix at = m * q->c_rs + n;
    q->moved[at] = q->weights[at] - q->rate * s;
}

/* Four sums of row m from column n on. */
static void gemm_4(const tt_product *q, tt_ix m, tt_ix n) {
    float *c = q->c + m * q->c_rs + n;
    float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    const float *a_row = q->a + m * q->a_rs, *b_row = q->b + n;
    tt_ix o, k, a_ki = q->a_ki, b_ki = q->b_ki;
    if (q->velocity) {
        s0 = begun(q, m, n);
        s1 = begun(q, m, n + 1);
        s2 = begun(q, m, n + 2);
        s3 = begun(q, m, n + 3);
    } else if (q->add) {
        s0 = c[0];
        s1 = c[1];
        s2 = c[2];
        s3 = c[3];
    }
    for (o = 0; o < q->ko; o++) {
        const float *a = a_row + o * q->a_ko, *b = b_row + o * q->b_ko;
        for (k = q->ki; k > 0; k--) {
            float v = *a;
            s0 += v * b[0];
            s1 += v * b[1];
            s2 += v * b[2];
            s3 += v * b[3];
            a += a_ki;
            b += b_ki;
        }
    }
    if (q->bias) {
        s0 += q->bias[n];
        s1 += q->bias[n + 1];
        s2 += q->bias[n + 2];
        s3 += q->bias[n + 3];
    }
    if (q->moved) {
        move(q, m, n, s0);
        move(q, m, n + 1, s1);
        move(q, m, n + 2, s2);
        move(q, m, n + 3, s3);
    } else if (q->weights) {
        const float *old = q->weights + m * q->c_rs + n;
        s0 = old[0] - q->rate * s0;
        s1 = old[1] - q->rate * s1;
        s2 = old[2] - q->rate * s2;
        s3 = old[3] - q->rate * s3;
    }
    c[0] = s0;
    c[1] = s1;
    c[2] = s2;
    c[3] = s3;
}

/* What becomes of output (m, n) when its sum is complete. */
static float finished(const tt_product *q, tt_ix m, tt_ix n, float s) {
    if (q->bias) s += q->bias[n];
    return q->weights ? q->weights[m * q->c_rs + n] - q->rate * s : s;
}

void tt_gemm(const tt_product *q) {
    tt_ix m, n, o, k;
    for (m = 0; m < q->m; m++) {
        for (n = 0; n + 4 <= q->n; n += 4) gemm_4(q, m, n);
        for (; n < q->n; n++) {
            float *c = q->c + m * q->c_rs + n, s = q->add ? *c : 0.0f;
            if (q->velocity) s = begun(q, m, n);
            for (o = 0; o < q->ko; o++) {
                const float *a = q->a + m * q->a_rs + o * q->a_ko, *b = q->b + n + o * q->b_ko;
                for (k = q->ki; k > 0; k--, a += q->a_ki, b += q->b_ki) s += *a * *b;
            }
            if (q->moved) {
                move(q, m, n, s);
                *c = s;
            } else {
                *c = finished(q, m, n, s);
            }
        }
    }
}

/* One product for each output, as depthwise gradients ask for. */
static void lanewise_once(const tt_product *q) {
    tt_ix m, n;
    for (m = 0; m < q->m; m++) {
        float *c = q->c + m * q->c_rs;
        const float *a = q->a + m * q->a_rs, *b = q->b;
        for (n = 0; n < q->n; n++) c[n] += a[n] * b[n];
    }
}

void tt_lanewise(const tt_product *q) {
    tt_ix m, n, o, k;
    if (q->add && q->ko == 1 && q->ki == 1 && !q->bias && !q->weights) {
        lanewise_once(q);
        return;
    }
    for (m = 0; m < q->m; m++) {
        for (n = 0; n < q->n; n++) {
            float *c = q->c + m * q->c_rs + n, s = q->add ? *c : 0.0f;
            for (o = 0; o < q->ko; o++) {
                const float *a = q->a + m * q->a_rs + n + o * q->a_ko, *b = q->b + n + o * q->b_ko;
                for (k = q->ki; k > 0; k--, a += q->a_ki, b += q->b_ki) s += *a * *b;
            }
            *c = finished(q, m, n, s);
        }
    }
}

void tt_turn(float *to, tt_ix step, const float *from, tt_ix stride, tt_ix lanes, tt_ix count) {
    tt_ix k, lane;
    for (k = 0; k < count; k++)
        for (lane = 0; lane < lanes; lane++) to[k * step + lane] = from[lane * stride + k];
}

void tt_across(const tt_product *q) {
    tt_ix m, n, k;
    for (m = 0; m < q->m; m++) {
        for (n = 0; n < q->n; n++) {
            float *c = q->c + m * q->c_rs + n, s = q->add ? *c : 0.0f;
            const float *a = q->a + m * q->a_rs, *b = q->b + n * q->b_ko;
            for (k = q->ki; k > 0; k--, a += q->a_ki, b++) s += *a * *b;
            *c = finished(q, m, n, s);
        }
    }
}
#endif
