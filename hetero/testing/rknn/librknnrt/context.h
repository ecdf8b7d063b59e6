/* A context: one instance of a model, for one thread at a time. The simulator notices when two use it at once. */
#ifndef SIM_CONTEXT_H
#define SIM_CONTEXT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "memory.h"
#include "model.h"

/* Memory of the program's that an input or output lives in, and how it lies there. */
typedef struct {
    memory *at;
    layout as;
} binding;

typedef struct context {
    rknn_context handle;
    struct context *next;
    int users; /* under the registry's lock */
    bool duplicate;
    model *model;
    uint32_t flags;

    pthread_mutex_t lock; /* of all that follows and is not atomic */
    pthread_cond_t idle;
    bool active; /* a job is under way; its buffers are the job's */
    bool answered;
    int code; /* of the last job */
    uint64_t frame;
    uint32_t cores;
    bool all_cores;
    bool handed_over; /* inputs were set, outputs not fetched yet */
    pthread_t owner;  /* who set them */
    void **inputs, **outputs;
    bool *set;
    binding *bound[2];

    atomic_int inside; /* calls that use the buffers */
    atomic_bool torn;  /* two did so at once: what comes out is wrong */
    atomic_llong duration_us;
} context;

/* The context of a handle, kept alive until `context_put`; NULL, and a message, when there is none. */
context *context_get(rknn_context handle);
void context_put(context *it);

/* `context_get`, and the buffers to oneself once no job uses them. Notices another thread that is in there. */
context *context_enter(rknn_context handle);
void context_leave(context *it);

size_t context_count(const context *it, bool output);

#endif
