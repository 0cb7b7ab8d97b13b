/* The kernels of tinytrain in C99: float only, destination first, no allocation, no libm, no state.

   Every instruction is one function of operands and words. `p` holds the operands' addresses, outs,
   ins and work in the order of the reference kernel, null where one is absent; `g` holds sizes and
   constants (floats by their bits), in the order that kernels/geometry.py writes them. Nothing is
   checked here: what makes the words has done that.

   Every output is one sum in one written order, the order of the Numba kernels (stated again in
   each file), so the bits depend neither on the machine nor on the compiler. An element is read
   before its place is written, so that an output may lie over an input where the row allows it. */
#ifndef TT_KERNELS_H
#define TT_KERNELS_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void tt_kernel(void *const *p, const int32_t *g);
typedef ptrdiff_t tt_ix; /* a count of elements */

#define TT_INSTRUCTIONS(X)                                                                         \
    X(move) X(concat) X(pad) X(slice_vjp) X(fill) X(add) X(sub) X(mul) X(div) X(div_vjp_b) X(neg)  \
    X(exp) X(log) X(sqrt) X(sqrt_vjp) X(abs) X(abs_vjp) X(tanh) X(tanh_vjp) X(sigmoid)             \
    X(sigmoid_vjp) X(relu) X(relu_vjp) X(relu6) X(relu6_vjp) X(silu) X(silu_vjp) X(gelu)           \
    X(gelu_vjp) X(leaky_relu) X(leaky_relu_vjp) X(scale) X(pow) X(pow_vjp) X(snap) X(gate_mask)    \
    X(gate_mask_vjp) X(bitmap_pack) X(bitmap_unpack) X(bitmap_gate_vjp) X(sum) X(max) X(max_vjp)   \
    X(sum_to) X(softmax) X(softmax_vjp) X(log_softmax) X(log_softmax_vjp) X(matmul) X(embedding)   \
    X(embedding_vjp) X(conv2d) X(conv2d_vjp_x) X(conv2d_vjp_w) X(max_pool2d) X(max_pool2d_vjp)     \
    X(avg_pool2d) X(avg_pool2d_vjp) X(batch_norm) X(batch_norm_vjp_params) X(batch_norm_vjp_x)     \
    X(batch_norm_frozen) X(batch_norm_frozen_vjp_x) X(group_norm) X(group_norm_vjp_params)         \
    X(group_norm_vjp_x) X(running_average) X(cross_entropy) X(binary_cross_entropy_with_logits)    \
    X(mse) X(dropout) X(decay) X(sgd) X(nesterov) X(adam) X(add_scaled) X(square_sum)              \
    X(clip_factor) X(check_finite) X(check_capacity) X(conv2d_lines) X(conv2d_vjp_x_lines)         \
    X(conv2d_vjp_w_sgd) X(matmul_tn_sgd) X(bitmap_conv2d_vjp_w) X(bitmap_matmul_tn) X(topk_pack)   \
    X(zero_pruned) X(index_pack) X(index_unpack) X(matmul_tn_momentum)

#define TT_DECLARE(name) void tt_kernel_##name(void *const *p, const int32_t *g);
TT_INSTRUCTIONS(TT_DECLARE)
#undef TT_DECLARE

/* A bound call of a step list; `tt_walk` makes `count` of them, one after the other. Where `kernel`
   is null it looks at the flag (4 bytes) at `operands`: if that is not 0 it stops and returns 1. */
typedef struct {
    tt_kernel *kernel;
    void *const *operands;
    const int32_t *words;
} tt_call;
int tt_walk(const tt_call *calls, tt_ix count);
/* The same where stage k is `widths[k]` calls, the parts of one, at most 255; hosts run them on so many
   threads. */
int tt_walk_wide(const tt_call *calls, const int32_t *widths, tt_ix stages, tt_ix threads);

/* 0 if this build's float arithmetic is the one that the bits are promised for; else the sum of
   1 products fused into sums, 2 excess precision, 4 subnormal results flushed, 8 subnormal operands
   flushed, 16 not to nearest even, 32 division or sums reordered, 64 a vector unit that flushes. */
int tt_selfcheck(void);

#ifdef __cplusplus
}
#endif

#endif
