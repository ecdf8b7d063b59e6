#define _GNU_SOURCE
#include "memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "context.h"
#include "log.h"
#include "npu.h"

struct memory {
    rknn_tensor_mem seen; /* first: a program's pointer to it is a pointer to the whole */
    memory *next;
    int users;
    bool alive;
    char *npu_side; /* what the NPU sees */
    void *own;      /* what is to be freed or unmapped */
    size_t mapped;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static memory *first;

memory *memory_share(const rknn_tensor_mem *known) {
    pthread_mutex_lock(&lock);
    memory *found = first;
    while (found && &found->seen != known) found = found->next;
    if (found) found->users++;
    pthread_mutex_unlock(&lock);
    return found;
}

static void drop_own(memory *of) {
    if (of->mapped)
        munmap(of->own, of->mapped);
    else
        free(of->own);
    free(of->npu_side);
    free(of);
}

void memory_drop(memory *of) {
    pthread_mutex_lock(&lock);
    bool last = --of->users == 0;
    pthread_mutex_unlock(&lock);
    if (last) drop_own(of);
}

bool memory_alive(const memory *of) {
    pthread_mutex_lock(&lock);
    bool alive = of->alive;
    pthread_mutex_unlock(&lock);
    return alive;
}

size_t memory_bytes(const memory *of) { return of->seen.size; }

void *memory_view(memory *of, bool of_npu) { return of_npu ? of->npu_side : of->seen.virt_addr; }

void memory_flush(memory *of, bool to_npu) { memcpy(memory_view(of, to_npu), memory_view(of, !to_npu), of->seen.size); }

static rknn_tensor_mem *add(void *own, size_t mapped, void *address, size_t size, int fd, int offset, uint32_t flags) {
    memory *made = calloc(1, sizeof *made);
    char *npu_side = calloc(1, size);
    if (!made || !npu_side) {
        free(made);
        free(npu_side);
        return NULL;
    }
    *made = (memory){.users = 1, .alive = true, .npu_side = npu_side, .own = own, .mapped = mapped};
    made->seen =
        (rknn_tensor_mem){.virt_addr = address, .fd = fd, .offset = offset, .size = (uint32_t)size, .flags = flags};
    pthread_mutex_lock(&lock);
    made->next = first;
    first = made;
    pthread_mutex_unlock(&lock);
    npu_count(COUNT_MEMS, 1);
    return &made->seen;
}

SIM_EXPORT rknn_tensor_mem *rknn_create_mem2(rknn_context handle, uint64_t size, uint64_t flags) {
    (void)flags;
    context *it = context_get(handle);
    if (!it) return NULL;
    context_put(it);
    enum { CACHE_LINE = 64 };
    if (size == 0 || size > UINT32_MAX) return NULL;
    void *own = NULL;
    if (posix_memalign(&own, CACHE_LINE, size)) return NULL;
    memset(own, 0, size);
    rknn_tensor_mem *made = add(own, 0, own, size, -1, 0, RKNN_TENSOR_MEMORY_FLAGS_ALLOC_INSIDE);
    if (!made) free(own);
    return made;
}

SIM_EXPORT rknn_tensor_mem *rknn_create_mem(rknn_context handle, uint32_t size) {
    return rknn_create_mem2(handle, size, 0);
}

SIM_EXPORT rknn_tensor_mem *rknn_create_mem_from_fd(rknn_context handle, int32_t fd, void *address, uint32_t size,
                                                    int32_t offset) {
    context *it = context_get(handle);
    if (!it) return NULL;
    context_put(it);
    if (size == 0 || offset < 0) return NULL;
    size_t mapped = address ? 0 : (size_t)offset + size;
    void *own = NULL;
    if (!address) {
        own = address = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (own == MAP_FAILED) {
            log_error("file descriptor %d cannot be mapped", fd);
            return NULL;
        }
    }
    rknn_tensor_mem *made =
        add(own, mapped, (char *)address + offset, size, fd, offset, RKNN_TENSOR_MEMORY_FLAGS_FROM_FD);
    if (!made && mapped) munmap(own, mapped);
    return made;
}

SIM_EXPORT rknn_tensor_mem *rknn_create_mem_from_phys(rknn_context handle, uint64_t physical, void *address,
                                                      uint32_t size) {
    (void)handle, (void)physical, (void)address, (void)size;
    log_error("a simulator has no physical addresses");
    return NULL;
}

SIM_EXPORT rknn_tensor_mem *rknn_create_mem_from_mb_blk(rknn_context handle, void *block, int32_t offset) {
    (void)handle, (void)block, (void)offset;
    log_error("a simulator has no media blocks");
    return NULL;
}

SIM_EXPORT int rknn_destroy_mem(rknn_context handle, rknn_tensor_mem *known) {
    context *it = context_get(handle);
    if (!it) return RKNN_ERR_CTX_INVALID;
    context_put(it);
    pthread_mutex_lock(&lock);
    memory **link = &first;
    while (*link && &(*link)->seen != known) link = &(*link)->next;
    memory *found = *link;
    if (found) {
        *link = found->next;
        found->alive = false;
    }
    pthread_mutex_unlock(&lock);
    if (!found) {
        log_error("rknn_destroy_mem: no such memory, or destroyed before");
        return RKNN_ERR_PARAM_INVALID;
    }
    npu_count(COUNT_MEMS, -1);
    memory_drop(found);
    return RKNN_SUCC;
}

SIM_EXPORT int rknn_mem_sync(rknn_context handle, rknn_tensor_mem *known, int mode) {
    context *it = context_get(handle);
    if (!it) return RKNN_ERR_CTX_INVALID;
    context_put(it);
    memory *found = memory_share(known);
    if (!found || mode < RKNN_MEMORY_SYNC_TO_DEVICE ||
        mode > (RKNN_MEMORY_SYNC_TO_DEVICE | RKNN_MEMORY_SYNC_FROM_DEVICE)) {
        if (found) memory_drop(found);
        return RKNN_ERR_PARAM_INVALID;
    }
    if (mode & RKNN_MEMORY_SYNC_TO_DEVICE) memory_flush(found, true);
    if (mode & RKNN_MEMORY_SYNC_FROM_DEVICE) memory_flush(found, false);
    memory_drop(found);
    return RKNN_SUCC;
}

static int find_tensor(const context *it, const char *name, bool *output) {
    for (int side = 0; side < 2; side++)
        for (size_t i = 0; i < context_count(it, side); i++)
            if (!strcmp(ort_tensor_at(it->model->session, side, i)->name, name)) {
                *output = side;
                return (int)i;
            }
    return -1;
}

static int bind(context *it, memory *to, const rknn_tensor_attr *as) {
    bool output;
    int index = find_tensor(it, as->name, &output);
    if (index < 0) {
        log_error("rknn_set_io_mem: the model has no tensor %.255s", as->name);
        return RKNN_ERR_PARAM_INVALID;
    }
    layout wanted = as->pass_through ? model_layout(it->model, output, (size_t)index)
                                     : model_graph_layout(it->model, output, (size_t)index);
    if (!as->pass_through) wanted.type = as->type;
    if (wanted.image && !as->pass_through) {
        wanted.fmt = as->fmt;
        if (as->fmt == RKNN_TENSOR_NHWC && as->w_stride > wanted.w) wanted.w_stride = as->w_stride;
        if (as->fmt == RKNN_TENSOR_UNDEFINED || (as->fmt == RKNN_TENSOR_NCHW && !output)) {
            log_error("rknn_set_io_mem: %s: Meet unsupported src layout, only support NHWC and NC1HWC2", as->name);
            return RKNN_ERR_PARAM_INVALID;
        }
    }
    if (!type_bytes(wanted.type) || wanted.fmt > RKNN_TENSOR_UNDEFINED) return RKNN_ERR_PARAM_INVALID;
    if (memory_bytes(to) < layout_bytes(&wanted)) {
        log_error("rknn_set_io_mem: %s wants %zu bytes, not %zu", as->name, layout_bytes(&wanted), memory_bytes(to));
        return RKNN_ERR_PARAM_INVALID;
    }
    binding *place = &it->bound[output][index];
    if (place->at) memory_drop(place->at);
    *place = (binding){to, wanted};
    return RKNN_SUCC;
}

SIM_EXPORT int rknn_set_io_mem(rknn_context handle, rknn_tensor_mem *known, rknn_tensor_attr *as) {
    context *it = context_enter(handle);
    if (!it) return RKNN_ERR_CTX_INVALID;
    memory *found = known && as ? memory_share(known) : NULL;
    int code = found ? bind(it, found, as) : RKNN_ERR_PARAM_INVALID;
    if (found && code != RKNN_SUCC) memory_drop(found);
    context_leave(it);
    return code;
}

SIM_EXPORT int rknn_set_weight_mem(rknn_context handle, rknn_tensor_mem *known) {
    (void)handle, (void)known;
    log_error("rknn_set_weight_mem: the simulator keeps weights itself");
    return RKNN_ERR_PARAM_INVALID;
}

SIM_EXPORT int rknn_set_internal_mem(rknn_context handle, rknn_tensor_mem *known) {
    (void)handle, (void)known;
    log_error("rknn_set_internal_mem: the simulator keeps internal memory itself");
    return RKNN_ERR_PARAM_INVALID;
}
