#define _GNU_SOURCE
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

static void say(char level, const char *format, va_list values) {
    char text[1024];
    vsnprintf(text, sizeof text, format, values);
    struct timespec now;
    struct tm day;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &day);
    fprintf(stderr, "%c RKNN: [%02d:%02d:%02d.%03ld] %s\n", level, day.tm_hour, day.tm_min, day.tm_sec,
            now.tv_nsec / 1000000, text);
}

void log_error(const char *format, ...) {
    va_list values;
    va_start(values, format);
    say('E', format, values);
    va_end(values);
}

void log_warning(const char *format, ...) {
    va_list values;
    va_start(values, format);
    say('W', format, values);
    va_end(values);
}
