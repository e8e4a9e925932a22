#include "raftstore/base/log.h"

#include "raftstore/base/buf.h"
#include "raftstore/base/clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static _Atomic int level_max = LOG_LEVEL_INFO;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

void log_set_level(enum log_level level)
{
    atomic_store(&level_max, (int)level);
}

int log_level_parse(const char *word, enum log_level *ret_level)
{
    for (int i = 0; i <= LOG_LEVEL_DEBUG; i++) {
        if (strcmp(word, level_names[i]) == 0) {
            *ret_level = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load(&level_max);
}

void log_line(enum log_level level, const char *msg, const char *fields, ...)
{
    if (!log_enabled(level))
        return;
    uint64_t wall_ns = clock_wall_ns(clock_system());
    time_t seconds = (time_t)(wall_ns / NS_PER_S);
    struct tm tm;
    char stamp[32];
    (void)gmtime_r(&seconds, &tm);
    (void)strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
    struct buf line = BUF_INIT;
    buf_printf(&line, "ts=%s.%03uZ level=%s msg=%s ", stamp,
               (unsigned)(wall_ns % NS_PER_S / NS_PER_MS), level_names[level],
               log_quote(bytes_str(msg)));
    va_list args;
    va_start(args, fields);
    buf_vprintf(&line, fields, args);
    va_end(args);
    while (line.size > 0 && line.data[line.size - 1] == ' ')
        line.size--;
    buf_add(&line, "\n", 1);
    /* One write, so that lines of several threads never mix; a full pipe loses the line. */
    ssize_t written = write(STDERR_FILENO, line.data, line.size);
    (void)written;
    buf_deinit(&line);
}

const char *log_quote(struct bytes value)
{
    static _Thread_local char ring[8][1024 + 8];
    static _Thread_local unsigned turn;
    char *out = ring[turn++ % 8];
    size_t n = 0;
    const unsigned char *in = value.data;
    out[n++] = '"';
    for (size_t i = 0; i < value.size && i < 255; i++) {
        if (in[i] < 0x20 || in[i] == 0x7f || in[i] == '"' || in[i] == '\\')
            n += (size_t)snprintf(out + n, 5, "\\x%02x", in[i]);
        else
            out[n++] = (char)in[i];
    }
    out[n++] = '"';
    out[n] = '\0';
    return out;
}
