#define _GNU_SOURCE
#include "settings.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "log.h"

settings settings_default(void) {
    return (settings){
        .platform = "rk3588",
        .job_us = -1,
        .speedup = {1.0, 1.2, 1.26},
        .slowness = {1, 1, 1},
        .hung_core = -1,
        .library_version = "2.3.2",
        .driver_version = "0.9.8",
    };
}

int platform_cores(const char *platform) {
    if (!strncmp(platform, "rk3588", 6)) return 3;
    return strcmp(platform, "rk3576") ? 1 : 2;
}

static const char *family(const char *platform) {
    if (!strcasecmp(platform, "rk3568")) return "rk3566";
    return strcasecmp(platform, "rk3588s") ? platform : "rk3588";
}

bool platform_matches(const char *wanted, const char *platform) {
    return !strcasecmp(family(wanted), family(platform));
}

static bool read_text(const char *value, char *into, size_t room) {
    size_t length = strlen(value);
    if (length == 0 || length >= room) return false;
    memcpy(into, value, length + 1);
    return true;
}

static bool read_whole(const char *value, long long *into) {
    char *end;
    *into = strtoll(value, &end, 10);
    return end != value && !*end;
}

static bool read_number(const char *value, double *into) {
    char *end;
    *into = strtod(value, &end);
    return end != value && !*end && *into >= 0;
}

/* Fewer numbers than cores leave the others as they are; a number of 0 would stop time or divide by it. */
static bool read_factors(char *value, double *into) {
    char *rest = NULL;
    int core = 0;
    for (char *item = strtok_r(value, ",", &rest); item; item = strtok_r(NULL, ",", &rest), core++)
        if (core >= CORES || !read_number(item, &into[core]) || into[core] <= 0) return false;
    return true;
}

static bool read_faults(char *value, double *into) {
    static const char *const names[FAULT_NONE] = {"fail", "timeout", "lost", "hang", "nan", "garbage"};
    char *rest = NULL;
    double sum = 0;
    for (char *item = strtok_r(value, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
        char *share = strchr(item, ':');
        if (!share) return false;
        *share++ = 0;
        int kind = 0;
        while (kind < FAULT_NONE && strcmp(names[kind], item)) kind++;
        if (kind == FAULT_NONE || !read_number(share, &into[kind])) return false;
        sum += into[kind];
    }
    return sum <= 1 + 1e-9;
}

static bool read_pair(const char *key, char *value, settings *into) {
    long long whole = -1;
    bool numeric = !strcmp(key, "job_us") || !strcmp(key, "hung_core");
    if (numeric && *value && (!read_whole(value, &whole) || whole < 0)) return false;
    if (!strcmp(key, "platform")) return read_text(value, into->platform, sizeof into->platform);
    if (!strcmp(key, "job_us")) return into->job_us = whole, true;
    if (!strcmp(key, "speedup")) return read_factors(value, into->speedup);
    if (!strcmp(key, "slowness")) return read_factors(value, into->slowness);
    if (!strcmp(key, "spread")) return read_number(value, &into->spread) && into->spread < 1;
    if (!strcmp(key, "fp16")) return into->fp16 = !strcmp(value, "1"), into->fp16 || !strcmp(value, "0");
    if (!strcmp(key, "faults")) return read_faults(value, into->faults);
    if (!strcmp(key, "hung_core")) return into->hung_core = (int)whole, true;
    if (!strcmp(key, "hung_after"))
        return read_whole(value, &whole) && whole >= 0 && (into->hung_after = (uint64_t)whole, true);
    if (!strcmp(key, "seed")) return read_whole(value, &whole) && (into->seed = (uint64_t)whole, true);
    if (!strcmp(key, "library_version")) return read_text(value, into->library_version, sizeof into->library_version);
    if (!strcmp(key, "driver_version")) return read_text(value, into->driver_version, sizeof into->driver_version);
    return false;
}

bool settings_read(const char *text, settings *into) {
    char *copy = strdup(text), *rest = NULL;
    if (!copy) return false;
    settings read = settings_default();
    bool fits = true;
    for (char *pair = strtok_r(copy, ";", &rest); pair && fits; pair = strtok_r(NULL, ";", &rest)) {
        char *value = strchr(pair, '=');
        if (value) *value++ = 0;
        fits = value && read_pair(pair, value, &read);
        if (!fits) log_error("HETERO_SIM_RKNN: \"%s\" is not known, or its value is not allowed", pair);
    }
    free(copy);
    if (fits) *into = read;
    return fits;
}
