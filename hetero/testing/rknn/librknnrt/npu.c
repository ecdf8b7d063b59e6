#define _GNU_SOURCE
#include "npu.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api.h"
#include "log.h"

/* One that waits for cores; the queue keeps jobs for several cores from being overtaken for ever. */
typedef struct waiter {
    uint32_t cores;
    bool all;
    struct waiter *next;
} waiter;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool configured;
    settings with;
    uint32_t busy;
    waiter *first;
    bool hangs_released; /* until the next configuration */
    uint64_t jobs, jobs_on[CORES], running, peak, waiting, hung, hangs;
} npu = {.lock = PTHREAD_MUTEX_INITIALIZER};

static pthread_once_t clocked = PTHREAD_ONCE_INIT;
static _Atomic int64_t counters[COUNTERS];

/* Waits go by the monotonic clock, which a change of the machine's time does not move. */
static void use_monotonic_clock(void) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&npu.changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void lock(void) {
    pthread_once(&clocked, use_monotonic_clock);
    pthread_mutex_lock(&npu.lock);
}

static void unlock(void) { pthread_mutex_unlock(&npu.lock); }

int64_t npu_now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static struct timespec at(int64_t us) {
    return (struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
}

/* Waits for a change, with the lock held; false when the deadline has passed. */
static bool wait_until(int64_t deadline_us) {
    if (deadline_us == INT64_MAX) {
        pthread_cond_wait(&npu.changed, &npu.lock);
        return true;
    }
    struct timespec until = at(deadline_us);
    return pthread_cond_timedwait(&npu.changed, &npu.lock, &until) != ETIMEDOUT;
}

static void configure(const settings *with) {
    npu.with = *with;
    npu.configured = true;
    npu.hangs_released = false;
    npu.jobs = npu.peak = npu.hangs = 0;
    memset(npu.jobs_on, 0, sizeof npu.jobs_on);
    counters[COUNT_MISUSE] = counters[COUNT_ORPHANS] = 0;
}

bool npu_ready(settings *now) {
    lock();
    if (!npu.configured) {
        const char *text = getenv("HETERO_SIM_RKNN");
        settings read = settings_default();
        if (!text || settings_read(text, &read)) configure(&read);
    }
    bool ready = npu.configured;
    *now = npu.with;
    unlock();
    return ready;
}

int npu_check_mask(const settings *with, int mask, uint32_t *cores, bool *all) {
    int count = platform_cores(with->platform);
    uint32_t every = (1u << count) - 1;
    *all = mask != 0;
    *cores = every;
    if (mask == 0) return RKNN_SUCC;
    if (count == 1) {
        log_error("%s has one NPU core: a core mask cannot be set", with->platform);
        return RKNN_ERR_TARGET_PLATFORM_UNMATCH;
    }
    if (mask == RKNN_NPU_CORE_ALL) return RKNN_SUCC;
    if (mask != 1 && mask != 2 && mask != 4 && mask != 3 && mask != 7) {
        log_error("core mask %d is not one of the vendor's", mask);
        return RKNN_ERR_PARAM_INVALID;
    }
    *cores = (uint32_t)mask;
    if (*cores & ~every) {
        *cores = mask == 4 ? 1 : every;
        log_warning("%s has %d NPU cores: core mask %d is taken as %u", with->platform, count, mask, *cores);
    }
    return RKNN_SUCC;
}

static uint32_t lowest(uint32_t cores) { return cores & -cores; }

/* The cores that a waiter may take now, 0 if none: cores that an earlier one waits for by name are not to be had. */
static uint32_t obtainable(const waiter *for_whom) {
    uint32_t reserved = 0;
    for (const waiter *earlier = npu.first; earlier != for_whom; earlier = earlier->next)
        if (earlier->all) reserved |= earlier->cores;
    uint32_t idle = for_whom->cores & ~npu.busy & ~reserved;
    if (for_whom->all) return idle == for_whom->cores ? idle : 0;
    return lowest(idle);
}

static uint64_t mixed(uint64_t x) { /* SplitMix64 */
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Between 0 and 1, the same for the same job and seed. */
static double chance_of(uint64_t job, uint64_t stream) {
    return (double)(mixed(npu.with.seed * 0x100000001b3u + job + (stream << 48)) >> 11) / 9007199254740992.0;
}

static fault drawn(uint64_t job, uint32_t cores) {
    int hung = npu.hangs_released ? -1 : npu.with.hung_core;
    if (hung >= 0 && hung < CORES && (cores >> hung & 1) && npu.jobs_on[hung] >= npu.with.hung_after) return FAULT_HANG;
    double chance = chance_of(job, 0);
    for (int kind = 0; kind < FAULT_NONE; kind++)
        if ((chance -= npu.with.faults[kind]) < 0)
            return kind == FAULT_HANG && npu.hangs_released ? FAULT_NONE : (fault)kind;
    return FAULT_NONE;
}

static int64_t modelled(uint64_t job, uint32_t cores) {
    if (npu.with.job_us < 0) return 0;
    double slowest = 0;
    for (int core = 0; core < CORES; core++)
        if ((cores >> core & 1) && npu.with.slowness[core] > slowest) slowest = npu.with.slowness[core];
    double uneven = 1 + npu.with.spread * (2 * chance_of(job, 1) - 1);
    return (int64_t)((double)npu.with.job_us * uneven * slowest / npu.with.speedup[__builtin_popcount(cores) - 1]);
}

int npu_acquire(uint32_t cores, bool all, npu_job *job) {
    lock();
    waiter self = {.cores = cores, .all = all};
    waiter **last = &npu.first;
    while (*last) last = &(*last)->next;
    *last = &self;
    npu.waiting++;
    uint32_t got;
    bool in_time = true;
    while (!(got = obtainable(&self)) && in_time) in_time = wait_until(job->deadline_us);
    for (last = &npu.first; *last != &self;) last = &(*last)->next;
    *last = self.next;
    npu.waiting--;
    /* Whoever waited behind this one may go on now, whether it took its cores or gave up. */
    pthread_cond_broadcast(&npu.changed);
    if (got) {
        npu.busy |= got;
        *job = (npu_job){got, drawn(npu.jobs, got), npu.jobs, npu_now_us(), modelled(npu.jobs, got), job->deadline_us};
        npu.jobs++;
        for (int core = 0; core < CORES; core++) npu.jobs_on[core] += got >> core & 1;
        if (++npu.running > npu.peak) npu.peak = npu.running;
    }
    unlock();
    return got ? RKNN_SUCC : RKNN_ERR_TIMEOUT;
}

static int hang(int64_t deadline_us) {
    lock();
    npu.hung++;
    npu.hangs++;
    bool in_time = true;
    while (!npu.hangs_released && in_time) in_time = wait_until(deadline_us);
    npu.hung--;
    unlock();
    return RKNN_ERR_TIMEOUT;
}

int npu_spend(const npu_job *job) {
    if (job->what == FAULT_HANG) return hang(job->deadline_us);
    int64_t end = job->started_us + job->modelled_us;
    bool late = end > job->deadline_us;
    struct timespec until = at(late ? job->deadline_us : end);
    if (job->modelled_us > 0)
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) continue;
    if (late) return RKNN_ERR_TIMEOUT;
    switch (job->what) {
    case FAULT_FAIL: log_error("failed to submit, job %llu", (unsigned long long)job->number); return RKNN_ERR_FAIL;
    case FAULT_TIMEOUT: return RKNN_ERR_TIMEOUT;
    case FAULT_LOST: return RKNN_ERR_DEVICE_UNAVAILABLE;
    default: return RKNN_SUCC;
    }
}

void npu_release(const npu_job *job) {
    lock();
    npu.busy &= ~job->cores;
    npu.running--;
    pthread_cond_broadcast(&npu.changed);
    unlock();
}

void npu_count(counter what, int by) { counters[what] += by; }

/* For tests; not the vendor's. Settings change for the jobs to come; counts of what happened start again at 0, counts
 * of what is alive go on. 0, or -1 and a message for text that is not understood. */
SIM_EXPORT int hetero_sim_configure(const char *text) {
    settings read;
    if (!text || !settings_read(text, &read)) return -1;
    lock();
    configure(&read);
    unlock();
    return 0;
}

/* Ends every hang with the code of a timeout; nothing hangs again before the next configuration. */
SIM_EXPORT void hetero_sim_release_hangs(void) {
    lock();
    npu.hangs_released = true;
    pthread_cond_broadcast(&npu.changed);
    unlock();
}

/* -1 for a name that is not known. */
SIM_EXPORT int hetero_sim_counter(const char *name) {
    static const char *const alive[COUNTERS] = {"contexts", "sessions", "mems", "outputs", "misuse", "orphans"};
    for (int i = 0; i < COUNTERS; i++)
        if (!strcmp(name, alive[i])) return (int)counters[i];
    lock();
    const struct {
        const char *name;
        uint64_t value;
    } counted[] = {
        {"jobs", npu.jobs},         {"jobs_0", npu.jobs_on[0]}, {"jobs_1", npu.jobs_on[1]},
        {"jobs_2", npu.jobs_on[2]}, {"running", npu.running},   {"peak", npu.peak},
        {"waiting", npu.waiting},   {"hung", npu.hung},         {"hangs", npu.hangs},
    };
    int value = -1;
    for (size_t i = 0; i < sizeof counted / sizeof *counted; i++)
        if (!strcmp(name, counted[i].name)) value = (int)counted[i].value;
    unlock();
    return value;
}
