#include "cli.h"

#include "raftstore/base/clock.h"
#include "raftstore/base/duration.h"
#include "raftstore/base/utf8.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int cli_fail(int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fputs("holdfast: ", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
    return code;
}

int text_number(const char *text, uint64_t *ret_number)
{
    return number_parse(bytes_str(text), ret_number);
}

int text_signal(const char *text)
{
    uint64_t number;
    if (text_number(text, &number) == 0)
        return number > 0 && number < NSIG ? (int)number : -EINVAL;
    const char *name = strncmp(text, "SIG", 3) == 0 ? text + 3 : text;
    for (int i = 1; i < NSIG; i++) {
        const char *known = sigabbrev_np(i);
        if (known != NULL && strcmp(known, name) == 0)
            return i;
    }
    return -EINVAL;
}

int text_duration(const char *text, uint64_t *ret_ms)
{
    return duration_parse(bytes_str(text), true, ret_ms);
}

const char *text_of_duration(uint64_t ms, char out[32])
{
    unsigned long long s = ms / 1000, part = ms % 1000;
    if (ms < 1000)
        (void)snprintf(out, 32, "%llums", part);
    else if (s < 10)
        (void)snprintf(out, 32, "%llu.%llus", s, part / 100);
    else if (s < 60)
        (void)snprintf(out, 32, "%llus", s);
    else if (s < 3600)
        (void)snprintf(out, 32, "%llum%02llus", s / 60, s % 60);
    else if (s < 86400)
        (void)snprintf(out, 32, "%lluh%02llum", s / 3600, s / 60 % 60);
    else
        (void)snprintf(out, 32, "%llud%02lluh", s / 86400, s / 3600 % 24);
    return out;
}

const char *text_of_wall(uint64_t wall_ms, char out[32])
{
    struct tm tm;
    time_t s = (time_t)(wall_ms / 1000);
    if (wall_ms == 0 || gmtime_r(&s, &tm) == NULL || strftime(out, 32, "%FT%TZ", &tm) == 0)
        (void)snprintf(out, 32, "-");
    return out;
}

void text_add(struct buf *out, struct bytes value)
{
    const uint8_t *p = value.data;
    for (size_t i = 0; i < value.size;) {
        size_t n = p[i] != '\\' ? utf8_char(p + i, value.size - i) : 0;
        if (n > 0)
            buf_add(out, p + i, n);
        else
            buf_printf(out, "\\x%02x", p[i]);
        i += n > 0 ? n : 1;
    }
}

json_t *text_json(struct bytes value)
{
    json_t *s = json_stringn(value.size > 0 ? value.data : "", value.size);
    if (s != NULL)
        return s;
    struct buf out = BUF_INIT;
    text_add(&out, value);
    s = json_stringn((const char *)out.data, out.size);
    buf_deinit(&out);
    return s;
}

int print_json(json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(2));
    json_decref(value);
    if (text == NULL)
        return cli_fail(70, "the answer can't be written as JSON");
    (void)puts(text);
    free(text);
    return EXIT_DONE;
}

/* ---- Tables ---------------------------------------------------------------------------- */

void table_init(struct table *t, unsigned n_columns, const char *const *heading)
{
    *t = (struct table){.n_columns = n_columns};
    for (unsigned i = 0; i < n_columns; i++)
        table_add(t, bytes_str(heading[i]));
}

void table_add(struct table *t, struct bytes cell)
{
    struct buf text = BUF_INIT;
    text_add(&text, cell.size > 0 ? cell : bytes_str("-"));
    buf_add(&text, "", 1);
    t->cells = xrealloc(t->cells, (t->n_cells + 1) * sizeof *t->cells);
    t->cells[t->n_cells++] = (char *)text.data;
}

void table_addf(struct table *t, const char *format, ...)
{
    struct buf text = BUF_INIT;
    va_list args;
    va_start(args, format);
    buf_vprintf(&text, format, args);
    va_end(args);
    table_add(t, bytes_of(text.data, text.size));
    buf_deinit(&text);
}

/* Columns on a terminal: characters, not bytes. */
static size_t width(const char *cell)
{
    size_t n = 0;
    for (; *cell != '\0'; cell++)
        n += (*cell & 0xc0) != 0x80;
    return n;
}

void table_print(struct table *t)
{
    for (size_t at = 0; at < t->n_cells; at += t->n_columns) {
        for (unsigned i = 0; i < t->n_columns; i++) {
            size_t widest = 0;
            const char *cell = t->cells[at + i];
            for (size_t k = i; k < t->n_cells; k += t->n_columns)
                widest = width(t->cells[k]) > widest ? width(t->cells[k]) : widest;
            if (i + 1 == t->n_columns)
                (void)printf("%s\n", cell);
            else
                (void)printf("%s%*s", cell, (int)(widest - width(cell) + 2), "");
        }
    }
}

void table_deinit(struct table *t)
{
    for (size_t i = 0; i < t->n_cells; i++)
        free(t->cells[i]);
    free(t->cells);
}
