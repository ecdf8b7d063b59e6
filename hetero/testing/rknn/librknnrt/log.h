/* Messages on stderr in the vendor's form: `E RKNN: [12:34:56.789] what happened`. */
#ifndef SIM_LOG_H
#define SIM_LOG_H

__attribute__((format(printf, 1, 2))) void log_error(const char *format, ...);
__attribute__((format(printf, 1, 2))) void log_warning(const char *format, ...);

#endif
