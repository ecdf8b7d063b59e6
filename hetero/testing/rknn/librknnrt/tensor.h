/* Elements and layouts: conversions between the types and the orders in which tensors lie in memory. */
#ifndef SIM_TENSOR_H
#define SIM_TENSOR_H

#include <stdbool.h>
#include <stddef.h>

#include "api.h"

/* A tensor in memory. Only images (four dimensions) have an order other than the graph's own. */
typedef struct {
    rknn_tensor_type type;
    rknn_tensor_format fmt;
    size_t elements;
    bool image;
    uint32_t n, c, h, w;
    uint32_t w_stride; /* in elements along the width; NHWC alone pads there */
} layout;

/* Channels that one cell of NC1HWC2 holds: 16 bytes of half-precision numbers. */
enum { C2 = 8 };

size_t type_bytes(rknn_tensor_type type);
size_t layout_bytes(const layout *of);

/* Copies a tensor from one layout to another, converting its elements; padding of the target becomes zero. */
void layout_copy(const layout *from, const void *source, const layout *to, void *target);

void convert(rknn_tensor_type from, const void *source, rknn_tensor_type to, void *target, size_t count);

/* Rounds to half precision and back: what lies beyond 65504 becomes infinite, as on the chip. */
float through_half(float value);

#endif
