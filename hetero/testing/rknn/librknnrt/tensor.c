#include "tensor.h"

#include <math.h>
#include <string.h>

static uint16_t half_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint16_t sign = (uint16_t)((bits >> 16) & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return sign | 0x7e00;
    /* 65520 is the first number that rounds to infinity. */
    if (magnitude >= 0x477ff000) return sign | 0x7c00;
    if (magnitude < 0x38800000) {
        /* A subnormal half counts in steps of 2^-24; nearbyint rounds half to even. */
        float absolute;
        memcpy(&absolute, &magnitude, sizeof absolute);
        return sign | (uint16_t)nearbyintf(absolute * 16777216.0f);
    }
    uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
    return sign | (uint16_t)((rounded - 0x38000000) >> 13);
}

static float from_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = (half >> 10) & 31, fraction = half & 0x3ff;
    if (exponent == 0) {
        float value = (float)fraction / 16777216.0f;
        return sign ? -value : value;
    }
    uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float through_half(float value) { return from_half(half_of(value)); }

size_t type_bytes(rknn_tensor_type type) {
    static const uint8_t bytes[] = {4, 2, 1, 1, 2, 2, 4, 4, 8, 1};
    return (size_t)type < sizeof bytes ? bytes[type] : 0;
}

/* A double holds every value of every type but the widest integers, which only a copy without conversion keeps. */
static double read_element(rknn_tensor_type type, const char *at) {
#define READ(kind, T)                                                                                                  \
    case kind: {                                                                                                       \
        T value;                                                                                                       \
        memcpy(&value, at, sizeof value);                                                                              \
        return (double)value;                                                                                          \
    }
    switch (type) {
        READ(RKNN_TENSOR_FLOAT32, float)
        READ(RKNN_TENSOR_INT8, int8_t)
        READ(RKNN_TENSOR_UINT8, uint8_t)
        READ(RKNN_TENSOR_INT16, int16_t)
        READ(RKNN_TENSOR_UINT16, uint16_t)
        READ(RKNN_TENSOR_INT32, int32_t)
        READ(RKNN_TENSOR_UINT32, uint32_t)
        READ(RKNN_TENSOR_INT64, int64_t)
        READ(RKNN_TENSOR_BOOL, uint8_t)
    case RKNN_TENSOR_FLOAT16: {
        uint16_t half;
        memcpy(&half, at, sizeof half);
        return from_half(half);
    }
    default: return 0;
    }
#undef READ
}

/* Integers saturate, as the NPU's own conversions do; what is not a number becomes 0. */
static double within(double value, double least, double most) {
    if (isnan(value)) return 0;
    return value < least ? least : value > most ? most : value;
}

static void write_element(rknn_tensor_type type, char *at, double value) {
#define WRITE(kind, T, least, most)                                                                                    \
    case kind: {                                                                                                       \
        T narrowed = (T)within(value, least, most);                                                                    \
        memcpy(at, &narrowed, sizeof narrowed);                                                                        \
        return;                                                                                                        \
    }
    switch (type) {
        WRITE(RKNN_TENSOR_INT8, int8_t, INT8_MIN, INT8_MAX)
        WRITE(RKNN_TENSOR_UINT8, uint8_t, 0, UINT8_MAX)
        WRITE(RKNN_TENSOR_INT16, int16_t, INT16_MIN, INT16_MAX)
        WRITE(RKNN_TENSOR_UINT16, uint16_t, 0, UINT16_MAX)
        WRITE(RKNN_TENSOR_INT32, int32_t, INT32_MIN, INT32_MAX)
        WRITE(RKNN_TENSOR_UINT32, uint32_t, 0, UINT32_MAX)
        /* The largest double below 2^63: INT64_MAX itself would round up and overflow. */
        WRITE(RKNN_TENSOR_INT64, int64_t, (double)INT64_MIN, 9223372036854774784.0)
    case RKNN_TENSOR_FLOAT32: {
        float single = (float)value;
        memcpy(at, &single, sizeof single);
        return;
    }
    case RKNN_TENSOR_FLOAT16: {
        uint16_t half = half_of((float)value);
        memcpy(at, &half, sizeof half);
        return;
    }
    case RKNN_TENSOR_BOOL: *at = value != 0; return;
    default: return;
    }
#undef WRITE
}

void convert(rknn_tensor_type from, const void *source, rknn_tensor_type to, void *target, size_t count) {
    size_t step = type_bytes(from), stride = type_bytes(to);
    if (from == to) {
        memcpy(target, source, count * step);
        return;
    }
    for (size_t i = 0; i < count; i++)
        write_element(to, (char *)target + i * stride, read_element(from, (const char *)source + i * step));
}

static size_t cells(const layout *of) {
    if (!of->image || of->fmt == RKNN_TENSOR_NCHW || of->fmt == RKNN_TENSOR_UNDEFINED) return of->elements;
    if (of->fmt == RKNN_TENSOR_NHWC) return (size_t)of->n * of->h * of->w_stride * of->c;
    return (size_t)of->n * ((of->c + C2 - 1) / C2) * of->h * of->w * C2;
}

size_t layout_bytes(const layout *of) { return cells(of) * type_bytes(of->type); }

static size_t cell(const layout *of, uint32_t n, uint32_t c, uint32_t h, uint32_t w) {
    switch (of->fmt) {
    case RKNN_TENSOR_NHWC: return (((size_t)n * of->h + h) * of->w_stride + w) * of->c + c;
    case RKNN_TENSOR_NC1HWC2:
        return ((((size_t)n * ((of->c + C2 - 1) / C2) + c / C2) * of->h + h) * of->w + w) * C2 + c % C2;
    default: return (((size_t)n * of->c + c) * of->h + h) * of->w + w;
    }
}

void layout_copy(const layout *from, const void *source, const layout *to, void *target) {
    bool same_order = from->fmt == to->fmt && from->w_stride == to->w_stride;
    if (!from->image || same_order) {
        convert(from->type, source, to->type, target, cells(to));
        return;
    }
    memset(target, 0, layout_bytes(to));
    size_t step = type_bytes(from->type), stride = type_bytes(to->type);
    for (uint32_t n = 0; n < from->n; n++)
        for (uint32_t c = 0; c < from->c; c++)
            for (uint32_t h = 0; h < from->h; h++)
                for (uint32_t w = 0; w < from->w; w++)
                    convert(from->type, (const char *)source + cell(from, n, c, h, w) * step, to->type,
                            (char *)target + cell(to, n, c, h, w) * stride, 1);
}
