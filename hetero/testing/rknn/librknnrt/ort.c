#define _GNU_SOURCE
#include "ort.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "tensor.h"

/* The table of functions only ever grows at its end, so a function's place in it is the same in every release since
 * 1.0. The places are counted in onnxruntime_c_api.h; `check_places` tries them before anything is built on them. */
enum {
    GET_ERROR_MESSAGE = 2,
    CREATE_ENV = 3,
    CREATE_SESSION_FROM_ARRAY = 8,
    RUN = 9,
    CREATE_SESSION_OPTIONS = 10,
    SET_INTRA_OP_THREADS = 24,
    SET_INTER_OP_THREADS = 25,
    INPUT_COUNT = 30,
    OUTPUT_COUNT = 31,
    INPUT_TYPE = 33,
    OUTPUT_TYPE = 34,
    INPUT_NAME = 36,
    OUTPUT_NAME = 37,
    CREATE_TENSOR = 49,
    IS_TENSOR = 50,
    TENSOR_DATA = 51,
    CAST_TO_TENSOR_INFO = 55,
    ELEMENT_TYPE = 60,
    DIMENSION_COUNT = 61,
    DIMENSIONS = 62,
    CPU_MEMORY = 69,
    ALLOCATOR_FREE = 76,
    DEFAULT_ALLOCATOR = 78,
    RELEASE_STATUS = 93,
    RELEASE_SESSION = 95,
    RELEASE_VALUE = 96,
    RELEASE_TYPE = 98,
    RELEASE_SESSION_OPTIONS = 100,
};

/* The interface of ONNX Runtime 1.5, the first whose table has all of these. */
enum { INTERFACE_VERSION = 5 };

typedef struct {
    const void *(*get_api)(uint32_t version);
    const char *(*version)(void);
} api_base;

typedef void *status;
typedef void (*any_function)(void);

static const any_function *api;
static void *environment, *cpu_memory, *allocator;
static bool available;
static pthread_once_t once = PTHREAD_ONCE_INIT;

#define CALL(place, signature, ...) (((status(*) signature)api[place])(__VA_ARGS__))
#define RELEASE(place, object) (((void (*)(void *))api[place])(object))

struct ort_session {
    void *session;
    size_t counts[2];
    ort_tensor *tensors[2];
};

/* Logs and frees a status; true when it was none. */
static bool good(status failed, const char *doing) {
    if (!failed) return true;
    log_error("%s: %s", doing, ((const char *(*)(const void *))api[GET_ERROR_MESSAGE])(failed));
    RELEASE(RELEASE_STATUS, failed);
    return false;
}

/* A tensor made and read back through the table: a table that is not as expected fails here, not in somebody's run. */
static bool check_places(void) {
    float number = 42;
    int64_t shape = 1;
    void *value = NULL, *data = NULL;
    int is_tensor = 0;
    bool fits = good(CALL(CREATE_TENSOR, (void *, void *, size_t, const int64_t *, size_t, int, void **), cpu_memory,
                          &number, sizeof number, &shape, 1, 1, &value),
                     "ONNX Runtime") &&
                good(CALL(IS_TENSOR, (void *, int *), value, &is_tensor), "ONNX Runtime") &&
                good(CALL(TENSOR_DATA, (void *, void **), value, &data), "ONNX Runtime") && is_tensor == 1 &&
                data == &number;
    if (value) RELEASE(RELEASE_VALUE, value);
    return fits;
}

static void load(void) {
    const char *path = getenv("HETERO_SIM_ORT");
    if (!path || !*path) {
        log_error("the simulator computes with ONNX Runtime; HETERO_SIM_ORT has to name its libonnxruntime.so");
        return;
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        log_error("HETERO_SIM_ORT: %s", dlerror());
        return;
    }
    const api_base *(*base)(void) = (const api_base *(*)(void))dlsym(library, "OrtGetApiBase");
    api = base ? base()->get_api(INTERFACE_VERSION) : NULL;
    if (!api) {
        log_error("HETERO_SIM_ORT=%s is no ONNX Runtime, or older than 1.5", path);
        return;
    }
    enum { LOG_ERRORS = 3, DEVICE_ALLOCATOR = 0, DEFAULT_MEMORY = 0 };
    available =
        good(CALL(CREATE_ENV, (int, const char *, void **), LOG_ERRORS, "librknnrt", &environment), "ONNX Runtime") &&
        good(CALL(CPU_MEMORY, (int, int, void **), DEVICE_ALLOCATOR, DEFAULT_MEMORY, &cpu_memory), "ONNX Runtime") &&
        good(CALL(DEFAULT_ALLOCATOR, (void **), &allocator), "ONNX Runtime") && check_places();
    if (!available) log_error("HETERO_SIM_ORT=%s (ONNX Runtime %s) does not work as expected", path, base()->version());
}

bool ort_available(void) {
    pthread_once(&once, load);
    return available;
}

/* ONNX Runtime's numbers for element types, against Rockchip's. */
static const struct {
    int onnx;
    rknn_tensor_type rknn;
} types[] = {
    {1, RKNN_TENSOR_FLOAT32},  {2, RKNN_TENSOR_UINT8},   {3, RKNN_TENSOR_INT8},  {4, RKNN_TENSOR_UINT16},
    {5, RKNN_TENSOR_INT16},    {6, RKNN_TENSOR_INT32},   {7, RKNN_TENSOR_INT64}, {9, RKNN_TENSOR_BOOL},
    {10, RKNN_TENSOR_FLOAT16}, {12, RKNN_TENSOR_UINT32},
};
enum { TYPES = sizeof types / sizeof *types };

static int onnx_type(rknn_tensor_type type) {
    for (int i = 0; i < TYPES; i++)
        if (types[i].rknn == type) return types[i].onnx;
    return 0;
}

static bool read_shape(ort_tensor *into, const void *shape) {
    int type = 0;
    size_t dimensions = 0;
    int64_t dims[RKNN_MAX_DIMS];
    if (!good(CALL(ELEMENT_TYPE, (const void *, int *), shape, &type), "element type") ||
        !good(CALL(DIMENSION_COUNT, (const void *, size_t *), shape, &dimensions), "dimensions"))
        return false;
    into->type = RKNN_TENSOR_TYPES;
    for (int i = 0; i < TYPES; i++)
        if (types[i].onnx == type) into->type = types[i].rknn;
    if (into->type == RKNN_TENSOR_TYPES || dimensions > RKNN_MAX_DIMS) {
        log_error("tensor %s: element type %d or %zu dimensions are not for this NPU", into->name, type, dimensions);
        return false;
    }
    if (!good(CALL(DIMENSIONS, (const void *, int64_t *, size_t), shape, dims, dimensions), "dimensions")) return false;
    into->n_dims = (uint32_t)dimensions;
    into->elements = 1;
    for (size_t i = 0; i < dimensions; i++) {
        if (dims[i] <= 0 || dims[i] > UINT32_MAX) {
            log_error("tensor %s: dimension %zu is not fixed", into->name, i);
            return false;
        }
        into->dims[i] = (uint32_t)dims[i];
        into->elements *= (size_t)dims[i];
    }
    return true;
}

static bool read_tensor(ort_tensor *into, void *session, bool output, size_t index) {
    char *name = NULL;
    if (!good(CALL(output ? OUTPUT_NAME : INPUT_NAME, (void *, size_t, void *, char **), session, index, allocator,
                   &name),
              "name"))
        return false;
    bool fits = strlen(name) < sizeof into->name;
    if (fits) strcpy(into->name, name);
    good(CALL(ALLOCATOR_FREE, (void *, void *), allocator, name), "name");
    void *type = NULL;
    const void *shape = NULL;
    fits = fits &&
           good(CALL(output ? OUTPUT_TYPE : INPUT_TYPE, (void *, size_t, void **), session, index, &type), "type") &&
           good(CALL(CAST_TO_TENSOR_INFO, (void *, const void **), type, &shape), "type") && shape &&
           read_shape(into, shape);
    if (type) RELEASE(RELEASE_TYPE, type);
    return fits;
}

ort_session *ort_open(const void *model, size_t size) {
    ort_session *made = calloc(1, sizeof *made);
    if (!made) return NULL;
    void *options = NULL;
    /* One thread a run: simulated cores work beside each other also where the machine has few. */
    bool opened = good(CALL(CREATE_SESSION_OPTIONS, (void **), &options), "options") &&
                  good(CALL(SET_INTRA_OP_THREADS, (void *, int), options, 1), "options") &&
                  good(CALL(SET_INTER_OP_THREADS, (void *, int), options, 1), "options") &&
                  good(CALL(CREATE_SESSION_FROM_ARRAY, (void *, const void *, size_t, void *, void **), environment,
                            model, size, options, &made->session),
                       "model");
    if (options) RELEASE(RELEASE_SESSION_OPTIONS, options);
    for (int side = 0; opened && side < 2; side++) {
        opened = good(CALL(side ? OUTPUT_COUNT : INPUT_COUNT, (void *, size_t *), made->session, &made->counts[side]),
                      "tensors");
        made->tensors[side] = calloc(made->counts[side] + 1, sizeof(ort_tensor));
        opened = opened && made->tensors[side];
        for (size_t i = 0; opened && i < made->counts[side]; i++)
            opened = read_tensor(&made->tensors[side][i], made->session, side, i);
    }
    if (opened) return made;
    ort_close(made);
    return NULL;
}

void ort_close(ort_session *session) {
    if (session->session) RELEASE(RELEASE_SESSION, session->session);
    free(session->tensors[0]);
    free(session->tensors[1]);
    free(session);
}

size_t ort_count(const ort_session *session, bool output) { return session->counts[output]; }

const ort_tensor *ort_tensor_at(const ort_session *session, bool output, size_t index) {
    return &session->tensors[output][index];
}

static bool as_value(const ort_tensor *tensor, void *data, void **value) {
    int64_t shape[RKNN_MAX_DIMS];
    for (uint32_t i = 0; i < tensor->n_dims; i++) shape[i] = tensor->dims[i];
    return good(CALL(CREATE_TENSOR, (void *, void *, size_t, const int64_t *, size_t, int, void **), cpu_memory, data,
                     tensor->elements * type_bytes(tensor->type), shape, tensor->n_dims, onnx_type(tensor->type),
                     value),
                tensor->name);
}

bool ort_run(const ort_session *session, void *const *inputs, void *const *outputs) {
    size_t counts[2] = {session->counts[0], session->counts[1]}, all = counts[0] + counts[1];
    /* Outputs are handed in as tensors over the caller's buffers, so ONNX Runtime writes there and copies nothing. */
    const char **names = calloc(all + 1, sizeof *names);
    void **values = calloc(all + 1, sizeof *values);
    bool ran = names && values;
    for (size_t i = 0; ran && i < all; i++) {
        bool output = i >= counts[0];
        size_t index = output ? i - counts[0] : i;
        names[i] = session->tensors[output][index].name;
        ran = as_value(&session->tensors[output][index], output ? outputs[index] : inputs[index], &values[i]);
    }
    ran = ran &&
          good(CALL(RUN,
                    (void *, void *, const char *const *, void *const *, size_t, const char *const *, size_t, void **),
                    session->session, NULL, names, values, counts[0], names + counts[0], counts[1], values + counts[0]),
               "run");
    for (size_t i = 0; values && i < all; i++)
        if (values[i]) RELEASE(RELEASE_VALUE, values[i]);
    free(names);
    free(values);
    return ran;
}
