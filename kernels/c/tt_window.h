/* Sliding windows: what the convolution's kernels share; kernels alone use it. */
#ifndef TT_WINDOW_H
#define TT_WINDOW_H
#include "tt_kernels.h"

/* Elements that stay in a second-level cache beside the weights. */
enum { TT_CACHED = 64 * 1024 };

typedef struct {
    tt_ix images, h, w, c, ho, wo, o, kh, kw, sh, sw, top, left, groups, dh, dw;
    tt_ix depth, parts, n, deep; /* channels of a group; groups to walk, and outputs of each */
} tt_window;

typedef struct {
    tt_ix lo, hi;
} tt_span;

/* One image (and group) to walk: what is read, what is written, the window, then strides of y, x and
   w, channels in, outputs, and whether they go lane by lane and are added. */
typedef struct {
    tt_ix h, w, ho, wo, kh, kw, sh, sw, top, left, dh, dw;
    tt_ix y_row, y_pixel, x_pixel, w_row, w_tap, w_in, c, n, deep, add;
} tt_image;

tt_window tt_window_of(const int32_t *g);

/* Whether every pixel of the output is made of the one pixel in its place. */
int tt_is_pointwise(const tt_window *s);

/* Pixels of such a one that stay in the cache while they are passed over. */
tt_ix tt_stretch(const tt_window *s);

/* Taps that an output position reads inside the image. */
tt_span tt_taps_of(tt_ix position, tt_ix size, tt_ix kernel, tt_ix stride, tt_ix before,
                   tt_ix dilation);

/* Output positions at which tap k reads inside the image, and at which every tap does. */
tt_span tt_positions_of(tt_ix k, tt_ix size, tt_ix out, tt_ix stride, tt_ix before,
                        tt_ix dilation);
tt_span tt_inside(tt_ix size, tt_ix out, tt_ix kernel, tt_ix stride, tt_ix before,
                  tt_ix dilation);

/* Output rows [begin, end) of an image, to y. The pixels that read the same taps are a rectangle: the
   inside, a border row or column, a corner. It is walked in runs along its longer side. */
void tt_walk_image(const tt_image *s, float *y, const float *x, const float *w, const float *bias,
                   tt_ix begin, tt_ix end);

/* Output rows to make at a time, of which `waiting` may have to wait: all where there are as many
   lines. */
tt_ix tt_strip_of(tt_ix lines, tt_ix rows, tt_ix waiting);

/* Of the output rows [done, made) in `lines`, write those below `ready` where they belong. */
tt_ix tt_flush(float *lines, float *target, tt_ix row, tt_ix done, tt_ix ready, tt_ix made);

#endif
