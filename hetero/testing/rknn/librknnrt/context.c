#define _GNU_SOURCE
#include "context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "npu.h"

static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static context *first;
static rknn_context last_handle = 0x10000;

size_t context_count(const context *it, bool output) { return ort_count(it->model->session, output); }

static void drop(context *it) {
    for (int side = 0; side < 2; side++) {
        void **buffers = side ? it->outputs : it->inputs;
        for (size_t i = 0; i < context_count(it, side); i++) {
            if (buffers) free(buffers[i]);
            if (it->bound[side] && it->bound[side][i].at) memory_drop(it->bound[side][i].at);
        }
        free(buffers);
        free(it->bound[side]);
    }
    free(it->set);
    model_drop(it->model);
    pthread_mutex_destroy(&it->lock);
    pthread_cond_destroy(&it->idle);
    free(it);
}

context *context_get(rknn_context handle) {
    pthread_mutex_lock(&registry);
    context *found = first;
    while (found && found->handle != handle) found = found->next;
    if (found) found->users++;
    pthread_mutex_unlock(&registry);
    if (!found) log_error("context %#llx is not there", (unsigned long long)handle);
    return found;
}

void context_put(context *it) {
    pthread_mutex_lock(&registry);
    bool last = --it->users == 0;
    pthread_mutex_unlock(&registry);
    if (last) drop(it);
}

context *context_enter(rknn_context handle) {
    context *it = context_get(handle);
    if (!it) return NULL;
    if (atomic_fetch_add(&it->inside, 1) > 0) {
        npu_count(COUNT_MISUSE, 1);
        atomic_store(&it->torn, true);
    }
    pthread_mutex_lock(&it->lock);
    while (it->active) pthread_cond_wait(&it->idle, &it->lock);
    return it;
}

void context_leave(context *it) {
    pthread_mutex_unlock(&it->lock);
    atomic_fetch_sub(&it->inside, 1);
    context_put(it);
}

static bool make_buffers(context *it) {
    for (int side = 0; side < 2; side++) {
        size_t count = context_count(it, side);
        void **buffers = calloc(count + 1, sizeof *buffers);
        *(side ? &it->outputs : &it->inputs) = buffers;
        it->bound[side] = calloc(count + 1, sizeof(binding));
        if (!buffers || !it->bound[side]) return false;
        for (size_t i = 0; i < count; i++) {
            layout as = model_graph_layout(it->model, side, i);
            if (!(buffers[i] = calloc(1, layout_bytes(&as)))) return false;
        }
    }
    it->set = calloc(context_count(it, false) + 1, sizeof *it->set);
    return it->set;
}

/* A context over a model whose use passes to it, also when it cannot be made. */
static int add(model *of, uint32_t flags, bool duplicate, rknn_context *handle) {
    settings with;
    npu_ready(&with);
    context *made = calloc(1, sizeof *made);
    if (!made) {
        model_drop(of);
        return RKNN_ERR_MALLOC_FAIL;
    }
    made->model = of;
    made->users = 1;
    made->flags = flags;
    made->duplicate = duplicate;
    npu_check_mask(&with, 0, &made->cores, &made->all_cores);
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->idle, NULL);
    if (!make_buffers(made)) {
        drop(made);
        return RKNN_ERR_MALLOC_FAIL;
    }
    pthread_mutex_lock(&registry);
    *handle = made->handle = last_handle += 0x10;
    made->next = first;
    first = made;
    pthread_mutex_unlock(&registry);
    npu_count(COUNT_CONTEXTS, 1);
    return RKNN_SUCC;
}

SIM_EXPORT int rknn_init(rknn_context *handle, void *data, uint32_t size, uint32_t flags, rknn_init_extend *extend) {
    (void)extend;
    settings with;
    if (!npu_ready(&with)) return RKNN_ERR_DEVICE_UNAVAILABLE;
    if (!handle || !data) return RKNN_ERR_PARAM_INVALID;
    enum {
        NOT_SIMULATED = RKNN_FLAG_MEM_ALLOC_OUTSIDE | RKNN_FLAG_SHARE_WEIGHT_MEM | RKNN_FLAG_FENCE_IN_OUTSIDE |
            RKNN_FLAG_FENCE_OUT_OUTSIDE | RKNN_FLAG_COLLECT_MODEL_INFO_ONLY | RKNN_FLAG_INTERNAL_ALLOC_OUTSIDE,
    };
    if (flags & NOT_SIMULATED) {
        log_error("rknn_init: flags %#x are not simulated", flags & NOT_SIMULATED);
        return RKNN_ERR_PARAM_INVALID;
    }
    if (flags & RKNN_FLAG_ASYNC_MASK)
        log_warning("rknn_init: asynchronous mode is not simulated: outputs are those of the same frame");
    model *made;
    int code = model_open(data, size, &with, &made);
    return code == RKNN_SUCC ? add(made, flags, false, handle) : code;
}

SIM_EXPORT int rknn_dup_context(rknn_context *from, rknn_context *to) {
    if (!from || !to) return RKNN_ERR_PARAM_INVALID;
    context *it = context_get(*from);
    if (!it) return RKNN_ERR_CTX_INVALID;
    int code = add(model_share(it->model), it->flags, true, to);
    context_put(it);
    return code;
}

SIM_EXPORT int rknn_destroy(rknn_context handle) {
    pthread_mutex_lock(&registry);
    context **link = &first;
    while (*link && (*link)->handle != handle) link = &(*link)->next;
    context *it = *link;
    bool orphans = false;
    if (it) {
        *link = it->next;
        for (const context *other = first; other && !it->duplicate; other = other->next)
            orphans = orphans || other->model == it->model;
    }
    pthread_mutex_unlock(&registry);
    if (!it) {
        log_error("rknn_destroy: context %#llx is not there", (unsigned long long)handle);
        return RKNN_ERR_CTX_INVALID;
    }
    /* Rockchip says nothing about either; both work here and are counted. */
    if (orphans) npu_count(COUNT_ORPHANS, 1);
    if (atomic_load(&it->inside) > 0) npu_count(COUNT_MISUSE, 1);
    npu_count(COUNT_CONTEXTS, -1);
    context_put(it);
    return RKNN_SUCC;
}

SIM_EXPORT int rknn_set_core_mask(rknn_context handle, int mask) {
    context *it = context_get(handle);
    if (!it) return RKNN_ERR_CTX_INVALID;
    settings with;
    npu_ready(&with);
    uint32_t cores;
    bool all;
    int code = npu_check_mask(&with, mask, &cores, &all);
    if (code == RKNN_SUCC) {
        pthread_mutex_lock(&it->lock);
        it->cores = cores;
        it->all_cores = all;
        pthread_mutex_unlock(&it->lock);
    }
    context_put(it);
    return code;
}

SIM_EXPORT int rknn_set_batch_core_num(rknn_context handle, int cores) {
    context *it = context_get(handle);
    if (!it) return RKNN_ERR_CTX_INVALID;
    context_put(it);
    settings with;
    npu_ready(&with);
    return cores >= 1 && cores <= platform_cores(with.platform) ? RKNN_SUCC : RKNN_ERR_PARAM_INVALID;
}

static int describe(const context *it, bool output, rknn_query_cmd command, rknn_tensor_attr *into) {
    size_t index = into->index;
    if (index >= context_count(it, output)) return RKNN_ERR_PARAM_INVALID;
    layout as = model_layout(it->model, output, index);
    if (command >= RKNN_QUERY_NATIVE_INPUT_ATTR)
        as = model_native_layout(it->model, output, index, command >= RKNN_QUERY_NATIVE_NHWC_INPUT_ATTR);
    model_attribute(it->model, output, index, &as, into);
    return RKNN_SUCC;
}

static int answer(context *it, rknn_query_cmd command, void *into) {
    settings with;
    npu_ready(&with);
    switch (command) {
    case RKNN_QUERY_IN_OUT_NUM:
        *(rknn_input_output_num *)into =
            (rknn_input_output_num){(uint32_t)context_count(it, false), (uint32_t)context_count(it, true)};
        return RKNN_SUCC;
    case RKNN_QUERY_INPUT_ATTR:
    case RKNN_QUERY_NATIVE_INPUT_ATTR:
    case RKNN_QUERY_NATIVE_NHWC_INPUT_ATTR: return describe(it, false, command, into);
    case RKNN_QUERY_OUTPUT_ATTR:
    case RKNN_QUERY_NATIVE_OUTPUT_ATTR:
    case RKNN_QUERY_NATIVE_NHWC_OUTPUT_ATTR: return describe(it, true, command, into);
    case RKNN_QUERY_PERF_RUN: ((rknn_perf_run *)into)->run_duration = atomic_load(&it->duration_us); return RKNN_SUCC;
    case RKNN_QUERY_SDK_VERSION: {
        rknn_sdk_version *versions = into;
        snprintf(versions->api_version, sizeof versions->api_version, "%s (simulated)", with.library_version);
        snprintf(versions->drv_version, sizeof versions->drv_version, "%s", with.driver_version);
        return RKNN_SUCC;
    }
    case RKNN_QUERY_MEM_SIZE:
        *(rknn_mem_size *)into = (rknn_mem_size){
            .total_weight_size = (uint32_t)it->model->weight_bytes,
            .total_dma_allocated_size = it->duplicate ? 0 : it->model->weight_bytes,
        };
        return RKNN_SUCC;
    case RKNN_QUERY_CUSTOM_STRING: memset(into, 0, sizeof(rknn_custom_string)); return RKNN_SUCC;
    default: return RKNN_ERR_PARAM_INVALID;
    }
}

SIM_EXPORT int rknn_query(rknn_context handle, rknn_query_cmd command, void *into, uint32_t size) {
    static const size_t sizes[] = {
        sizeof(rknn_input_output_num), sizeof(rknn_tensor_attr), sizeof(rknn_tensor_attr), 0,
        sizeof(rknn_perf_run),         sizeof(rknn_sdk_version), sizeof(rknn_mem_size),    sizeof(rknn_custom_string),
        sizeof(rknn_tensor_attr),      sizeof(rknn_tensor_attr), sizeof(rknn_tensor_attr), sizeof(rknn_tensor_attr),
    };
    context *it = context_get(handle);
    if (!it) return RKNN_ERR_CTX_INVALID;
    bool known = (size_t)command < sizeof sizes / sizeof *sizes && sizes[command];
    int code = known && into && size >= sizes[command] ? answer(it, command, into) : RKNN_ERR_PARAM_INVALID;
    /* Programs ask about dynamic shapes to learn whether there are any. */
    bool dynamic = command >= RKNN_QUERY_INPUT_DYNAMIC_RANGE && command <= RKNN_QUERY_CURRENT_NATIVE_OUTPUT_ATTR;
    if (!known && !dynamic) log_error("rknn_query: command %d is not simulated", command);
    context_put(it);
    return code;
}

SIM_EXPORT int rknn_register_custom_ops(rknn_context handle, void *ops, uint32_t count) {
    (void)handle, (void)ops, (void)count;
    log_error("rknn_register_custom_ops: custom operators are not simulated");
    return RKNN_ERR_FAIL;
}

SIM_EXPORT int rknn_set_input_shapes(rknn_context handle, uint32_t count, rknn_tensor_attr *shapes) {
    (void)handle, (void)count, (void)shapes;
    log_error("rknn_set_input_shapes: dynamic shapes are not simulated");
    return RKNN_ERR_PARAM_INVALID;
}

SIM_EXPORT int rknn_set_input_shape(rknn_context handle, rknn_tensor_attr *shape) {
    return rknn_set_input_shapes(handle, 1, shape);
}
