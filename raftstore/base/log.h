/* Log lines: one line of key=value pairs on stderr, with a level.
 *
 *     LOG_WARN("peer unreachable", "peer=%u addr=%s", id, address);
 *     -> ts=2026-11-24T06:20:01.123Z level=warn msg="peer unreachable" peer=3 addr=b:7000
 *
 * Programs log, libraries return (the node's driver parts are programs in this sense).  A value
 * that may hold spaces or bytes from outside goes through log_quote().  Any thread may log. */
#ifndef HOLDFAST_BASE_LOG_H
#define HOLDFAST_BASE_LOG_H

#include "raftstore/base/bytes.h"

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Lines above `level` are dropped; the default is LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);

/* Parse "error", "warn", "info" or "debug".
 *
 * Return: 0 and *ret_level set; -EINVAL for any other word. */
int log_level_parse(const char *word, enum log_level *ret_level);

/* Is a line of this level written at all? */
bool log_enabled(enum log_level level);

/* Write one line.  `fields` is a printf format of key=value pairs, or "". */
void log_line(enum log_level level, const char *msg, const char *fields, ...)
    __attribute__((format(printf, 3, 4)));

/* The value in double quotes, with control bytes, quotes and backslashes as \xNN: safe in one
 * line.  Cut at 255 bytes of input.
 *
 * Return: one of eight per-thread buffers, valid until the eighth next call of the thread. */
const char *log_quote(struct bytes value);

#define LOG_ERROR(msg, ...) log_line(LOG_LEVEL_ERROR, msg, __VA_ARGS__)
#define LOG_WARN(msg, ...)  log_line(LOG_LEVEL_WARN, msg, __VA_ARGS__)
#define LOG_INFO(msg, ...)  log_line(LOG_LEVEL_INFO, msg, __VA_ARGS__)
#define LOG_DEBUG(msg, ...)                                                                        \
    do {                                                                                           \
        if (log_enabled(LOG_LEVEL_DEBUG))                                                          \
            log_line(LOG_LEVEL_DEBUG, msg, __VA_ARGS__);                                           \
    } while (0)

#endif
