/* What is simulated, read from the text that SimulatedNpu.to_text() writes. */
#ifndef SIM_SETTINGS_H
#define SIM_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

enum { CORES = 3 };

typedef enum { FAULT_FAIL, FAULT_TIMEOUT, FAULT_LOST, FAULT_HANG, FAULT_NAN, FAULT_GARBAGE, FAULT_NONE } fault;

typedef struct {
    char platform[32];
    int64_t job_us; /* -1: no time is modelled */
    double speedup[CORES];
    double slowness[CORES];
    double spread; /* 0: every job takes the same time */
    bool fp16;
    double faults[FAULT_NONE];
    int hung_core; /* -1: none */
    uint64_t hung_after;
    uint64_t seed;
    char library_version[128];
    char driver_version[128];
} settings;

settings settings_default(void);

/* False, and a message on stderr, for text that is not understood. */
bool settings_read(const char *text, settings *into);

int platform_cores(const char *platform);

/* Whether a file built for one platform runs on the other: chips of one family count as one. */
bool platform_matches(const char *wanted, const char *platform);

#endif
