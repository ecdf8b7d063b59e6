#define _GNU_SOURCE
#include "model.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "npu.h"

/* The file: magic, u64 format version, u64 body length N, zeros up to byte 64, N bytes of body, u64 length of a JSON
 * text, and that text. A twin's body is a mark and the ONNX model that it stands for. */
enum { HEADER = 64, FORMAT_VERSION = 6 };
static const char MAGIC[8] = "RKNN";
static const char MARK[17] = "HETERO-ONNX-TWIN";
enum { MARK_BYTES = 16 };

typedef struct {
    const uint8_t *onnx;
    size_t onnx_bytes;
    const char *json;
    size_t json_bytes;
} twin;

static uint64_t whole_at(const uint8_t *bytes) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--) value = value << 8 | bytes[i];
    return value;
}

static int split(const uint8_t *data, size_t size, twin *into) {
    if (size < HEADER || memcmp(data, MAGIC, sizeof MAGIC)) {
        log_error("parseRKNN from buffer: Invalid RKNN format!");
        return RKNN_ERR_MODEL_INVALID;
    }
    uint64_t version = whole_at(data + 8), body = whole_at(data + 16);
    if (version > FORMAT_VERSION) {
        log_error("%llu, %d", (unsigned long long)version, FORMAT_VERSION);
        log_error("Invalid RKNN model version %llu", (unsigned long long)version);
        return RKNN_ERR_MODEL_INVALID;
    }
    if (body > size - HEADER || size - HEADER - body < 8) {
        log_error("the model is truncated: %zu bytes", size);
        return RKNN_ERR_MODEL_INVALID;
    }
    const uint8_t *tail = data + HEADER + body;
    uint64_t json = whole_at(tail);
    if (json > size - HEADER - body - 8) {
        log_error("the model is truncated: %zu bytes", size);
        return RKNN_ERR_MODEL_INVALID;
    }
    if (body <= MARK_BYTES || memcmp(data + HEADER, MARK, MARK_BYTES)) {
        log_error("a simulator cannot run a model that was compiled for the chip, only its twin");
        return RKNN_ERR_MODEL_INVALID;
    }
    *into = (twin){data + HEADER + MARK_BYTES, body - MARK_BYTES, (const char *)tail + 8, json};
    return RKNN_SUCC;
}

/* Whether the list "target_platform" of the JSON text names the platform. */
static bool targets(const char *json, size_t length, const char *platform) {
    static const char KEY[] = "\"target_platform\"";
    const char *at = memmem(json, length, KEY, sizeof KEY - 1), *end = json + length;
    at = at ? memchr(at, '[', (size_t)(end - at)) : NULL;
    const char *close = at ? memchr(at, ']', (size_t)(end - at)) : NULL;
    while (close) {
        const char *open = memchr(at, '"', (size_t)(close - at));
        const char *shut = open ? memchr(open + 1, '"', (size_t)(close - open - 1)) : NULL;
        char name[32];
        if (!shut) return false;
        snprintf(name, sizeof name, "%.*s", (int)(shut - open - 1), open + 1);
        if (platform_matches(name, platform)) return true;
        at = shut + 1;
    }
    return false;
}

/* NULL when it cannot be read or is empty. */
static uint8_t *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    uint8_t *data = NULL;
    long length = fseek(file, 0, SEEK_END) ? -1 : ftell(file);
    if (length > 0 && !fseek(file, 0, SEEK_SET)) data = malloc((size_t)length);
    if (data && fread(data, 1, (size_t)length, file) != (size_t)length) {
        free(data);
        data = NULL;
    }
    fclose(file);
    *size = data ? (size_t)length : 0;
    return data;
}

static int open_twin(const twin *of, const settings *with, model **into) {
    if (!targets(of->json, of->json_bytes, with->platform)) {
        log_error("the model is not for %s: %.*s", with->platform, (int)(of->json_bytes > 200 ? 200 : of->json_bytes),
                  of->json);
        return RKNN_ERR_TARGET_PLATFORM_UNMATCH;
    }
    if (!ort_available()) return RKNN_ERR_DEVICE_UNAVAILABLE;
    model *made = calloc(1, sizeof *made);
    if (!made) return RKNN_ERR_MALLOC_FAIL;
    *made = (model){
        .session = ort_open(of->onnx, of->onnx_bytes), .weight_bytes = of->onnx_bytes, .half = with->fp16, .users = 1};
    if (!made->session) {
        free(made);
        return RKNN_ERR_MODEL_INVALID;
    }
    npu_count(COUNT_SESSIONS, 1);
    *into = made;
    return RKNN_SUCC;
}

int model_open(const void *data, size_t size, const settings *with, model **into) {
    uint8_t *file = NULL;
    if (!size && !(file = read_file(data, &size))) {
        log_error("the model file %s cannot be read", (const char *)data);
        return RKNN_ERR_MODEL_INVALID;
    }
    twin parts;
    int code = split(file ? file : data, size, &parts);
    if (code == RKNN_SUCC) code = open_twin(&parts, with, into);
    if (code != RKNN_SUCC) log_error("rknn_init, load model failed!");
    free(file);
    return code;
}

static pthread_mutex_t sharing = PTHREAD_MUTEX_INITIALIZER;

model *model_share(model *of) {
    pthread_mutex_lock(&sharing);
    of->users++;
    pthread_mutex_unlock(&sharing);
    return of;
}

void model_drop(model *of) {
    pthread_mutex_lock(&sharing);
    bool last = --of->users == 0;
    pthread_mutex_unlock(&sharing);
    if (!last) return;
    ort_close(of->session);
    free(of);
    npu_count(COUNT_SESSIONS, -1);
}

layout model_graph_layout(const model *of, bool output, size_t index) {
    const ort_tensor *tensor = ort_tensor_at(of->session, output, index);
    layout made = {
        .type = tensor->type, .fmt = RKNN_TENSOR_UNDEFINED, .elements = tensor->elements, .image = tensor->n_dims == 4};
    if (made.image) {
        made.fmt = RKNN_TENSOR_NCHW;
        made.n = tensor->dims[0];
        made.c = tensor->dims[1];
        made.h = tensor->dims[2];
        made.w = made.w_stride = tensor->dims[3];
    }
    return made;
}

layout model_layout(const model *of, bool output, size_t index) {
    layout made = model_graph_layout(of, output, index);
    if (of->half && made.type == RKNN_TENSOR_FLOAT32) made.type = RKNN_TENSOR_FLOAT16;
    if (made.image && !output) made.fmt = RKNN_TENSOR_NHWC;
    return made;
}

layout model_native_layout(const model *of, bool output, size_t index, bool nhwc) {
    enum { ROW = 16, FEW_CHANNELS = 4 };
    layout made = model_layout(of, output, index);
    if (!made.image) return made;
    /* Pictures from a camera go in as they are; everything deeper is cut into cells. */
    bool rows = nhwc || (!output && made.c <= FEW_CHANNELS);
    made.fmt = rows ? RKNN_TENSOR_NHWC : RKNN_TENSOR_NC1HWC2;
    if (rows) made.w_stride = (made.w + ROW - 1) / ROW * ROW;
    return made;
}

void model_attribute(const model *of, bool output, size_t index, const layout *as, rknn_tensor_attr *into) {
    const ort_tensor *tensor = ort_tensor_at(of->session, output, index);
    rknn_tensor_attr made = {
        .index = (uint32_t)index,
        .n_dims = tensor->n_dims,
        .n_elems = (uint32_t)tensor->elements,
        .size = (uint32_t)(tensor->elements * type_bytes(as->type)),
        .fmt = as->fmt,
        .type = as->type,
        .scale = 1,
        .size_with_stride = (uint32_t)layout_bytes(as),
    };
    memcpy(made.name, tensor->name, sizeof made.name);
    memcpy(made.dims, tensor->dims, sizeof made.dims);
    if (as->fmt == RKNN_TENSOR_NHWC) {
        uint32_t nhwc[] = {as->n, as->h, as->w, as->c};
        memcpy(made.dims, nhwc, sizeof nhwc);
        made.w_stride = as->w_stride;
    } else if (as->fmt == RKNN_TENSOR_NC1HWC2) {
        uint32_t cells[] = {as->n, (as->c + C2 - 1) / C2, as->h, as->w, C2};
        memcpy(made.dims, cells, sizeof cells);
        made.n_dims = 5;
        made.n_elems = as->n * cells[1] * as->h * as->w * C2;
        made.size = made.n_elems * (uint32_t)type_bytes(as->type);
    }
    *into = made;
}
