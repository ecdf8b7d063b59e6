/* A model: the twin file it was read from, and the session that computes it. Shared by a context and its duplicates. */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include "ort.h"
#include "settings.h"
#include "tensor.h"

typedef struct {
    ort_session *session;
    size_t weight_bytes;
    bool half; /* its tensors are half-precision numbers, as the toolkit compiles them for the chip */
    int users;
} model;

/* From bytes, or from the file at a path when `size` is 0. An error code, and the model with one user. */
int model_open(const void *data, size_t size, const settings *with, model **into);

model *model_share(model *of);
void model_drop(model *of);

/* How a program sees a tensor: images as inputs are NHWC, everything else lies as in the graph. */
layout model_layout(const model *of, bool output, size_t index);

/* How the tensor lies in the graph. */
layout model_graph_layout(const model *of, bool output, size_t index);

/* What the NPU itself works on: images in cells of eight channels, or as NHWC with rows padded to 16 elements. */
layout model_native_layout(const model *of, bool output, size_t index, bool nhwc);

/* Fills in all of an attribute but its index. */
void model_attribute(const model *of, bool output, size_t index, const layout *as, rknn_tensor_attr *into);

#endif
