/* One inference: inputs in, a job on the NPU, outputs out. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "log.h"
#include "npu.h"

/* Half-precision models see their numbers in half precision whatever they were handed in as. */
static void halve(const model *of, const layout *as, float *numbers) {
    if (!of->half || as->type != RKNN_TENSOR_FLOAT32) return;
    for (size_t i = 0; i < as->elements; i++) numbers[i] = through_half(numbers[i]);
}

static void scramble(const layout *as, void *data, uint64_t seed) {
    uint64_t state = seed | 1;
    uint8_t *bytes = data;
    size_t size = layout_bytes(as);
    for (size_t i = 0; i < as->elements; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        float noise = (float)(int64_t)(state >> 40) / 65536.0f - 128.0f;
        if (as->type == RKNN_TENSOR_FLOAT32 || as->type == RKNN_TENSOR_FLOAT16)
            convert(RKNN_TENSOR_FLOAT32, &noise, as->type, bytes + i * type_bytes(as->type), 1);
    }
    if (as->type == RKNN_TENSOR_FLOAT32 || as->type == RKNN_TENSOR_FLOAT16) return;
    for (size_t i = 0; i < size; i++) bytes[i] ^= as->type == RKNN_TENSOR_BOOL ? 1 : 0xff;
}

/* Makes one element of the first output of floating-point numbers not a number. */
static void spoil(const context *it, uint64_t seed) {
    for (size_t i = 0; i < context_count(it, true); i++) {
        layout as = model_graph_layout(it->model, true, i);
        if (as.type != RKNN_TENSOR_FLOAT32 && as.type != RKNN_TENSOR_FLOAT16) continue;
        static const uint32_t not_a_number = 0x7fc00000;
        size_t element = seed % as.elements;
        convert(RKNN_TENSOR_FLOAT32, &not_a_number, as.type, (char *)it->outputs[i] + element * type_bytes(as.type), 1);
        return;
    }
}

static int gather(context *it) {
    for (size_t i = 0; i < context_count(it, false); i++) {
        const binding *place = &it->bound[0][i];
        if (!place->at && !it->set[i]) {
            log_error("rknn_run: input %zu was not set", i);
            return RKNN_ERR_INPUT_INVALID;
        }
        if (!place->at) continue;
        if (!memory_alive(place->at)) {
            log_error("rknn_run: the memory of input %zu was destroyed", i);
            return RKNN_ERR_INPUT_INVALID;
        }
        layout graph = model_graph_layout(it->model, false, i);
        if (!(it->flags & RKNN_FLAG_DISABLE_FLUSH_INPUT)) memory_flush(place->at, true);
        layout_copy(&place->as, memory_view(place->at, true), &graph, it->inputs[i]);
        halve(it->model, &graph, it->inputs[i]);
    }
    return RKNN_SUCC;
}

static int scatter(context *it) {
    for (size_t i = 0; i < context_count(it, true); i++) {
        const binding *place = &it->bound[1][i];
        if (!place->at) continue;
        if (!memory_alive(place->at)) {
            log_error("rknn_run: the memory of output %zu was destroyed", i);
            return RKNN_ERR_OUTPUT_INVALID;
        }
        layout graph = model_graph_layout(it->model, true, i);
        layout_copy(&graph, it->outputs[i], &place->as, memory_view(place->at, true));
        if (!(it->flags & RKNN_FLAG_DISABLE_FLUSH_OUTPUT)) memory_flush(place->at, false);
    }
    return RKNN_SUCC;
}

static int compute(context *it, const npu_job *job) {
    int code = gather(it);
    if (code != RKNN_SUCC) return code;
    if (!ort_run(it->model->session, it->inputs, it->outputs)) return RKNN_ERR_FAIL;
    bool wrong = job->what == FAULT_GARBAGE || atomic_load(&it->torn);
    for (size_t i = 0; i < context_count(it, true); i++) {
        layout graph = model_graph_layout(it->model, true, i);
        halve(it->model, &graph, it->outputs[i]);
        if (wrong) scramble(&graph, it->outputs[i], job->number + i);
    }
    if (job->what == FAULT_NAN) spoil(it, job->number);
    return scatter(it);
}

static int work(context *it, uint32_t cores, bool all, int64_t deadline_us) {
    npu_job job = {.deadline_us = deadline_us};
    int code = npu_acquire(cores, all, &job);
    if (code != RKNN_SUCC) return code;
    bool answers = job.what == FAULT_NONE || job.what == FAULT_NAN || job.what == FAULT_GARBAGE;
    code = answers ? compute(it, &job) : RKNN_SUCC;
    if (code == RKNN_SUCC) code = npu_spend(&job);
    npu_release(&job);
    atomic_store(&it->duration_us, npu_now_us() - job.started_us);
    return code;
}

/* Nobody has to fetch what lies in the program's own memory already. */
static bool all_bound(const context *it) {
    for (size_t i = 0; i < context_count(it, true); i++)
        if (!it->bound[1][i].at) return false;
    return true;
}

/* With the context's lock held. */
static void finish(context *it, int code) {
    it->code = code;
    it->answered = code == RKNN_SUCC;
    if (code != RKNN_SUCC || all_bound(it)) it->handed_over = false;
    it->active = false;
    pthread_cond_broadcast(&it->idle);
}

typedef struct {
    context *it;
    int64_t deadline_us;
} background;

static void *work_behind(void *argument) {
    background task = *(background *)argument;
    free(argument);
    int code = work(task.it, task.it->cores, task.it->all_cores, task.deadline_us);
    pthread_mutex_lock(&task.it->lock);
    finish(task.it, code);
    pthread_mutex_unlock(&task.it->lock);
    context_put(task.it);
    return NULL;
}

static int start_behind(context *it, int64_t deadline_us) {
    background *task = malloc(sizeof *task);
    if (!task) return RKNN_ERR_MALLOC_FAIL;
    *task = (background){context_get(it->handle), deadline_us};
    pthread_t thread;
    if (task->it && !pthread_create(&thread, NULL, work_behind, task)) {
        pthread_detach(thread);
        return RKNN_SUCC;
    }
    if (task->it) context_put(task->it);
    free(task);
    return RKNN_ERR_FAIL;
}

SIM_EXPORT int rknn_run(rknn_context handle, rknn_run_extend *extend) {
    context *it = context_enter(handle);
    if (!it) return RKNN_ERR_CTX_INVALID;
    bool alone = atomic_load(&it->inside) == 1;
    if (alone && !it->handed_over) atomic_store(&it->torn, false);
    int64_t deadline_us =
        extend && extend->timeout_ms > 0 ? npu_now_us() + (int64_t)extend->timeout_ms * 1000 : INT64_MAX;
    it->frame++;
    if (extend) extend->frame_id = it->frame;
    it->active = true;
    it->answered = false;
    int code;
    if (extend && extend->non_block) {
        code = start_behind(it, deadline_us);
        if (code != RKNN_SUCC) finish(it, code);
    } else {
        uint32_t cores = it->cores;
        bool all = it->all_cores;
        pthread_mutex_unlock(&it->lock);
        code = work(it, cores, all, deadline_us);
        pthread_mutex_lock(&it->lock);
        finish(it, code);
    }
    context_leave(it);
    return code;
}

SIM_EXPORT int rknn_wait(rknn_context handle, rknn_run_extend *extend) {
    (void)extend;
    context *it = context_get(handle);
    if (!it) return RKNN_ERR_CTX_INVALID;
    pthread_mutex_lock(&it->lock);
    while (it->active) pthread_cond_wait(&it->idle, &it->lock);
    int code = it->code;
    pthread_mutex_unlock(&it->lock);
    context_put(it);
    return code;
}

static int take_input(context *it, const rknn_input *input) {
    if (input->index >= context_count(it, false) || !input->buf) {
        log_error("rknn_inputs_set: the model has no input %u, or its buffer is missing", input->index);
        return RKNN_ERR_INPUT_INVALID;
    }
    layout graph = model_graph_layout(it->model, false, input->index),
           from = model_layout(it->model, false, input->index);
    if (!input->pass_through) {
        from.type = input->type;
        if (from.image && input->fmt != RKNN_TENSOR_UNDEFINED) from.fmt = input->fmt;
    }
    if (!type_bytes(from.type) || from.fmt == RKNN_TENSOR_NC1HWC2) {
        log_error("rknn_inputs_set: input %u: type %d, format %d is not supported", input->index, from.type, from.fmt);
        return RKNN_ERR_INPUT_INVALID;
    }
    /* More is accepted in silence, as on the chip. */
    if (input->size < layout_bytes(&from)) {
        log_error("rknn_inputs_set: input %u wants %zu bytes, not %u", input->index, layout_bytes(&from), input->size);
        return RKNN_ERR_INPUT_INVALID;
    }
    layout_copy(&from, input->buf, &graph, it->inputs[input->index]);
    halve(it->model, &graph, it->inputs[input->index]);
    it->set[input->index] = true;
    binding *place = &it->bound[0][input->index];
    if (place->at) memory_drop(place->at);
    place->at = NULL;
    return RKNN_SUCC;
}

SIM_EXPORT int rknn_inputs_set(rknn_context handle, uint32_t count, rknn_input *inputs) {
    context *it = context_enter(handle);
    if (!it) return RKNN_ERR_CTX_INVALID;
    if (atomic_load(&it->inside) == 1) atomic_store(&it->torn, false);
    /* Another thread's inputs are lost before their job was fetched. */
    if (it->handed_over && !pthread_equal(it->owner, pthread_self())) npu_count(COUNT_MISUSE, 1);
    int code = inputs ? RKNN_SUCC : RKNN_ERR_PARAM_INVALID;
    for (uint32_t i = 0; i < count && code == RKNN_SUCC; i++) code = take_input(it, &inputs[i]);
    it->handed_over = code == RKNN_SUCC;
    it->owner = pthread_self();
    context_leave(it);
    return code;
}

static int give_output(const context *it, rknn_output *output) {
    if (output->index >= context_count(it, true)) {
        log_error("rknn_outputs_get: the model has no output %u", output->index);
        return RKNN_ERR_OUTPUT_INVALID;
    }
    layout graph = model_graph_layout(it->model, true, output->index),
           to = model_layout(it->model, true, output->index);
    if (output->want_float) to.type = RKNN_TENSOR_FLOAT32;
    size_t size = layout_bytes(&to);
    if (output->is_prealloc && (!output->buf || output->size < size)) {
        log_error("rknn_outputs_get: output %u wants %zu bytes, not %u", output->index, size, output->size);
        return RKNN_ERR_OUTPUT_INVALID;
    }
    if (!output->is_prealloc) {
        output->buf = malloc(size);
        if (!output->buf) return RKNN_ERR_MALLOC_FAIL;
        npu_count(COUNT_OUTPUTS, 1);
    }
    output->size = (uint32_t)size;
    layout_copy(&graph, it->outputs[output->index], &to, output->buf);
    return RKNN_SUCC;
}

SIM_EXPORT int rknn_outputs_release(rknn_context handle, uint32_t count, rknn_output *outputs) {
    context *it = context_get(handle);
    if (!it) return RKNN_ERR_CTX_INVALID;
    context_put(it);
    for (uint32_t i = 0; outputs && i < count; i++) {
        if (outputs[i].is_prealloc || !outputs[i].buf) continue;
        free(outputs[i].buf);
        outputs[i].buf = NULL;
        npu_count(COUNT_OUTPUTS, -1);
    }
    return outputs ? RKNN_SUCC : RKNN_ERR_PARAM_INVALID;
}

SIM_EXPORT int rknn_outputs_get(rknn_context handle, uint32_t count, rknn_output *outputs, rknn_output_extend *extend) {
    context *it = context_enter(handle);
    if (!it) return RKNN_ERR_CTX_INVALID;
    int code = RKNN_SUCC;
    if (!outputs || count != context_count(it, true)) {
        code = RKNN_ERR_OUTPUT_INVALID;
    } else if (!it->answered) {
        code = it->code != RKNN_SUCC ? it->code : RKNN_ERR_FAIL;
        log_error("rknn_outputs_get: there is no answer");
    }
    uint32_t given = 0;
    while (given < count && code == RKNN_SUCC) {
        code = give_output(it, &outputs[given]);
        if (code == RKNN_SUCC) given++;
    }
    if (extend) extend->frame_id = it->frame;
    it->handed_over = false;
    context_leave(it);
    if (code != RKNN_SUCC && given > 0) rknn_outputs_release(handle, given, outputs);
    return code;
}
