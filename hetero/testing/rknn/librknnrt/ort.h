/* ONNX Runtime, through its C interface: what computes the answers. */
#ifndef SIM_ORT_H
#define SIM_ORT_H

#include <stdbool.h>
#include <stddef.h>

#include "api.h"

typedef struct ort_session ort_session;

/* An input or output of a graph. */
typedef struct {
    char name[RKNN_MAX_NAME_LEN];
    rknn_tensor_type type;
    uint32_t n_dims;
    uint32_t dims[RKNN_MAX_DIMS];
    size_t elements;
} ort_tensor;

/* Loads the library that HETERO_SIM_ORT names, once; false and a message on stderr when that fails. */
bool ort_available(void);

/* A session over an ONNX model; NULL and a message on stderr when ONNX Runtime or this simulator refuses it. */
ort_session *ort_open(const void *model, size_t size);
void ort_close(ort_session *session);

size_t ort_count(const ort_session *session, bool output);
const ort_tensor *ort_tensor_at(const ort_session *session, bool output, size_t index);

/* Runs in the caller's thread. Buffers are dense, in the graph's types and order. Any number of threads at once. */
bool ort_run(const ort_session *session, void *const *inputs, void *const *outputs);

#endif
