/* Processes of this machine: who a caller is, from whom it descends, who is still alive.
 *
 * A process is named by its pid and the time it started (clock ticks since boot, as in
 * /proc/PID/stat), so that a recycled pid is another process.
 *
 * The table remembers what was read from /proc, with a pidfd per process: an entry counts only
 * while its pidfd says that the process lives, so nothing stale is ever used, and the chain of a
 * caller costs one poll(2) instead of two files per ancestor.  One thread. */
#ifndef HOLDFAST_FS_PROCESS_H
#define HOLDFAST_FS_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#define LINEAGE_MAX 32u /* Ancestors beyond are not looked at. */

struct process_id {
    uint32_t pid;   /* 0 = none, or outside our pid name space. */
    uint64_t start; /* Clock ticks since boot. */
};

static inline bool process_equal(struct process_id a, struct process_id b)
{
    return a.pid == b.pid && a.start == b.start;
}

/* A process and its ancestors, nearest first, up to pid 1 (which is not in it). */
struct lineage {
    unsigned n;                         /* 0 = unknown. */
    unsigned n_heirs;                   /* So many of them, from the front, may inherit authority:
                                           none from the first reaper on. */
    struct process_id ids[LINEAGE_MAX]; /* ids[0] is the process itself. */
};

struct process_table;

struct process_table *process_table_new(void);
void process_table_free(struct process_table *t);

/* The process that a thread belongs to.
 *
 * @tid: thread id as in a FUSE request; 0 gives {0, 0}.
 * Return: {0, 0} when it can't be told (gone, hidden). */
struct process_id process_of_thread(struct process_table *t, uint32_t tid);

/* Read the lineage of a living process.
 *
 * Return: false (and n = 0) when the process is gone or /proc does not tell. */
bool process_lineage(struct process_table *t, struct process_id id, struct lineage *ret_lineage);

/* Does it live still?  A zombie does not. */
bool process_alive(struct process_table *t, struct process_id id);

/* Is `id` in the lineage? */
bool lineage_contains(const struct lineage *l, struct process_id id);

/* May this caller act for a process?
 *
 * @heirs: that process, then its ancestors, nearest first: the first one that lives has authority,
 * with its descendants. */
bool heirs_authorise(struct process_table *t,
                     const struct process_id *heirs,
                     unsigned n_heirs,
                     const struct lineage *caller);

/* The first of them that lives; {0, 0}: none does. */
struct process_id heirs_living(struct process_table *t, const struct process_id *heirs, unsigned n);

/* Send it a signal.  Return: 0; -ESRCH it is gone; other negative errno. */
int process_signal(struct process_id id, int number);

/* A descriptor that polls readable when the process has ended.
 *
 * Return: close-on-exec descriptor of the caller's; -ESRCH it is gone; other negative errno. */
int process_open_pidfd(struct process_id id);

#endif
