/* The simulated NPU: its cores, who holds them, how long jobs take, what goes wrong, and what was counted. */
#ifndef SIM_NPU_H
#define SIM_NPU_H

#include <stdbool.h>
#include <stdint.h>

#include "settings.h"

/* A job that holds cores. */
typedef struct {
    uint32_t cores; /* one bit a core */
    fault what;
    uint64_t number; /* of the job, from 0; seeds what a wrong answer looks like */
    int64_t started_us;
    int64_t modelled_us;
    int64_t deadline_us; /* by the monotonic clock; INT64_MAX for none */
} npu_job;

/* The settings in force. Reads HETERO_SIM_RKNN when nobody has configured before; false when that is no good. */
bool npu_ready(settings *now);

/* The cores that a mask of the vendor's may use: `all` of them at once, or any one. An error code for a wrong mask. */
int npu_check_mask(const settings *with, int mask, uint32_t *cores, bool *all);

/* Waits for its cores, then holds them: -2 when the deadline passed before. */
int npu_acquire(uint32_t cores, bool all, npu_job *job);

/* Spends what is left of the modelled time, or hangs, and says how the job ended. Cores are still held. */
int npu_spend(const npu_job *job);
void npu_release(const npu_job *job);

int64_t npu_now_us(void);

typedef enum {
    COUNT_CONTEXTS,
    COUNT_SESSIONS,
    COUNT_MEMS,
    COUNT_OUTPUTS,
    COUNT_MISUSE,
    COUNT_ORPHANS,
    COUNTERS,
} counter;

void npu_count(counter what, int by);

#endif
