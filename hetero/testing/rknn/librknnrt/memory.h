/* Memory that the program and the NPU share, with caches between them. */
#ifndef SIM_MEMORY_H
#define SIM_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "api.h"

typedef struct memory memory;

/* The memory behind a pointer that a program handed in, with one more user; NULL when there is none. */
memory *memory_share(const rknn_tensor_mem *known);
void memory_drop(memory *of);

/* Whether the program has not destroyed it. */
bool memory_alive(const memory *of);

size_t memory_bytes(const memory *of);

/* What the processor sees, or what the NPU sees: they differ until somebody flushes. */
void *memory_view(memory *of, bool of_npu);

/* Makes one see what the other wrote. */
void memory_flush(memory *of, bool to_npu);

#endif
