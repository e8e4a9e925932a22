/* Scripts for the lock table: a line of text in, the answer and the effects as text out.
 *
 *     {"@10 s1 acquire a by=o1 X ttl=50", "ok #1 d60 | granted a o1 X#1"}
 *
 * A command: [@stamp_ms] [sN] op [path[,path]] {by=owner | X | S | ttl= | wait=ms or inf |
 * range=a-b | limit= | token= | delay= | agent= | kind=posix... | note= | mtime= | seq= | ack= |
 * cancel= | parents | anywhere | untouched | no_less | his (LOCK_F_OWNER) | uid= | perm= | host= |
 * epoch= | holds= waiters= sessions= dirs= persession= (limits)}. Without seq= the session's next
 * number is taken.
 *
 * Each script runs twice: straight, and with the table exported and imported before each line;
 * lock_check() follows each line. */
#ifndef HOLDFAST_TESTS_UNIT_LOCK_SCRIPT_H
#define HOLDFAST_TESTS_UNIT_LOCK_SCRIPT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raftstore/lock/lock.h"

struct script_line {
    const char *command;
    const char *want; /* NULL: print what came (for writing new scripts); never committed. */
};

void script_run(const struct script_line *lines, size_t n_lines);

#define SCRIPT(...)                                                                                \
    do {                                                                                           \
        static const struct script_line lines[] = {__VA_ARGS__};                                   \
        script_run(lines, sizeof lines / sizeof lines[0]);                                         \
    } while (0)

/* An exported and imported copy; the table given is freed. */
struct lock_table *script_reimport(struct lock_table *t);

#endif
