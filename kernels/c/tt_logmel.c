/* Log-mel energies in float32: frames are cut, weighed and transformed one at a time, so that the
   only memory is one frame. A sum runs over samples, bins or the picture ascending, from +0. */
#include "tt_logmel.h"
#include "tt_math.h"

enum { MARGIN = 2 };

/* Sample t without its mean; silence beyond the end. */
static float sample(const int16_t *sound, int32_t n, float mean, int32_t t) {
    return t < 0 || t >= n ? 0.0f : (float)sound[t] - mean;
}

static float cosine(const tt_front_end *f, int32_t k) {
    return k < f->window / 2 ? f->cosine[k] : -f->cosine[k - f->window / 2];
}

/* Frame k under the window to x; its energy. */
static float frame(const tt_front_end *f, const int16_t *sound, int32_t n, float mean, int32_t k,
                   float *x) {
    float before = sample(sound, n, mean, k * f->hop - 1), energy = 0.0f;
    int32_t i;
    for (i = 0; i < f->window; i++) {
        float now = sample(sound, n, mean, k * f->hop + i);
        x[i] = (now - f->emphasis * before) * (0.5f - 0.5f * cosine(f, i));
        energy += x[i] * x[i];
        before = now;
    }
    return energy;
}

/* Bit reversal of the places of re; im starts at zero. */
static void scatter(int32_t size, float *re, float *im) {
    int32_t i, j = 0, bit;
    for (i = 0; i < size; i++) {
        im[i] = 0.0f;
        if (i < j) {
            float held = re[i];
            re[i] = re[j], re[j] = held;
        }
        for (bit = size >> 1; bit && (j & bit); bit >>= 1) j ^= bit;
        j |= bit;
    }
}

/* The discrete Fourier transform in place (Cooley and Tukey 1965, radix 2). */
static void transform(const tt_front_end *f, float *re, float *im) {
    int32_t size = f->window, half, begin, k;
    scatter(size, re, im);
    for (half = 1; half < size; half += half) {
        int32_t step = size / (2 * half);
        for (k = 0; k < half; k++) {
            int32_t turn = k * step, quarter = size / 4;
            float c = cosine(f, turn);
            float s = -cosine(f, turn < quarter ? quarter - turn : turn - quarter);
            for (begin = k; begin < size; begin += 2 * half) {
                float a = re[begin + half] * c - im[begin + half] * s;
                float b = re[begin + half] * s + im[begin + half] * c;
                re[begin + half] = re[begin] - a, im[begin + half] = im[begin] - b;
                re[begin] += a, im[begin] += b;
            }
        }
    }
}

/* The energies of all bands from a transformed frame; their sum. */
static float bands(const tt_front_end *f, const float *re, const float *im, float *out) {
    const float *weight = f->weights;
    float total = 0.0f;
    int32_t b, k;
    for (b = 0; b < f->bands; b++) {
        float energy = 0.0f;
        for (k = f->first[b]; k < f->first[b] + f->count[b]; k++)
            energy += *weight++ * (re[k] * re[k] + im[k] * im[k]);
        out[b] = energy;
        total += energy;
    }
    return total;
}

/* Logarithms of the rows from begin to end; what lies around them becomes the least of them. */
static void logarithms(const tt_front_end *f, int32_t begin, int32_t end, float floor,
                       float *picture) {
    int32_t k, from = begin * f->bands, to = end * f->bands, size = f->frames * f->bands;
    float least = tt_float(0x7f800000u), total = 0.0f;
    for (k = from; k < to; k++) {
        picture[k] = tt_log(picture[k] + floor);
        if (picture[k] < least) least = picture[k];
    }
    for (k = 0; k < from; k++) picture[k] = least;
    for (k = to; k < size; k++) picture[k] = least;
    for (k = 0; k < size; k++) total += picture[k];
    total /= (float)size;
    for (k = 0; k < size; k++) picture[k] = (picture[k] - total) * 0.5f;
}

int tt_log_mel(const tt_front_end *f, const int16_t *sound, int32_t n, float *work,
               float *picture) {
    int32_t frames, first, last, begin, k, varied = 0;
    int64_t sum = 0;
    float mean, loudest = 0.0f, total = 0.0f, *re = work, *im = work + f->window;
    for (k = 0; k < n; k++) sum += sound[k], varied |= sound[k] != sound[0];
    if (!varied) return TT_SILENT;
    mean = (float)sum / (float)n;
    frames = n < f->window ? 1 : (n - f->window) / f->hop + 1;
    for (k = 0; k < frames; k++) {
        float level = frame(f, sound, n, mean, k, re);
        if (level > loudest) loudest = level;
    }
    for (first = 0; frame(f, sound, n, mean, first, re) < loudest * f->quiet;) first++;
    for (last = frames - 1; frame(f, sound, n, mean, last, re) < loudest * f->quiet;) last--;
    first = first > MARGIN ? first - MARGIN : 0;
    last = last + MARGIN < frames ? last + MARGIN : frames - 1;
    frames = last - first + 1;
    if (frames > f->frames) {
        first += (frames - f->frames) / 2;
        frames = f->frames;
    }
    begin = (f->frames - frames) / 2;
    for (k = 0; k < frames; k++) {
        frame(f, sound, n, mean, first + k, re);
        transform(f, re, im);
        total += bands(f, re, im, picture + (begin + k) * f->bands);
    }
    logarithms(f, begin, begin + frames, f->floor * (total / (float)(frames * f->bands)), picture);
    return TT_HEARD;
}
