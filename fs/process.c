#include "fs/process.h"

#include "raftstore/base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uthash.h>

#define TABLE_MAX 256u /* Processes remembered; each costs a descriptor. */

struct process {
    struct process_id id;     /* Key is id.pid. */
    struct process_id parent; /* start 0: not looked at yet.  It changes only when that dies. */
    uint32_t session;         /* Its session's id. */
    bool reaper;              /* Adopts orphans: init of a name space, or known by its name. */
    int pidfd;                /* Readable once the process has ended. */
    UT_hash_handle hh;
};

struct process_table {
    struct process *by_pid; /* uthash. */
};

struct process_table *process_table_new(void)
{
    return xcalloc(1, sizeof(struct process_table));
}

static void process_drop(struct process_table *t, struct process *p)
{
    HASH_DEL(t->by_pid, p);
    (void)close(p->pidfd);
    free(p);
}

static void process_drop_all(struct process_table *t)
{
    struct process *p, *next;
    HASH_ITER(hh, t->by_pid, p, next)
    {
        process_drop(t, p);
    }
}

void process_table_free(struct process_table *t)
{
    if (t == NULL)
        return;
    process_drop_all(t);
    free(t);
}

/* Make room; only where no entry is in use. */
static void process_trim(struct process_table *t)
{
    if (HASH_COUNT(t->by_pid) >= TABLE_MAX)
        process_drop_all(t);
}

/* Read a small file of /proc/PID as a string.  Return: false when it can't be read. */
static bool read_proc(uint32_t pid, const char *name, char *out, size_t size)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%u/%s", pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, out, size - 1);
    (void)close(fd);
    if (n <= 0)
        return false;
    out[n] = '\0';
    return true;
}

/* What /proc/PID/stat tells. */
struct stat_line {
    char state;        /* 'Z' and 'X': dead. */
    uint32_t parent;   /* ppid. */
    uint32_t session;  /* session. */
    uint64_t start;    /* starttime. */
    char name[16 + 1]; /* comm. */
};

static bool read_stat(uint32_t pid, struct stat_line *ret)
{
    char text[1024];
    if (!read_proc(pid, "stat", text, sizeof text))
        return false;
    /* The name may hold anything, so the last ')' ends it. */
    char *name = strchr(text, '('), *end = strrchr(text, ')');
    if (name == NULL || end == NULL || end < name)
        return false;
    struct stat_line s = {0};
    size_t name_size = (size_t)(end - name - 1);
    memcpy(s.name, name + 1, name_size < 16 ? name_size : 16);
    unsigned long long start;
    if (sscanf(end + 1,
               " %c %u %*d %u %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &s.state, &s.parent, &s.session, &start) != 4)
        return false;
    s.start = start;
    *ret = s;
    return true;
}

/* A number behind "KEY:" in /proc/PID/status; the last one of the line. */
static bool status_number(const char *text, const char *key, uint32_t *ret)
{
    const char *line = strstr(text, key);
    if (line == NULL)
        return false;
    line += strlen(key);
    const char *end = strchrnul(line, '\n');
    const char *last = line;
    for (const char *p = line; p < end; p++)
        if (*p == '\t' || *p == ' ')
            last = p + 1;
    char *stop;
    unsigned long value = strtoul(last, &stop, 10);
    if (stop == last || value > UINT32_MAX)
        return false;
    *ret = (uint32_t)value;
    return true;
}

/* The kernel shows nobody who is a child subreaper.  What can be known: the init of a pid name
 * space (its innermost pid is 1), and the usual programs that ask for that duty. */
static bool is_reaper(uint32_t pid, const char *name)
{
    static const char *const reapers[] = {
        "systemd",
        "init",
        "tini",
        "dumb-init",
        "docker-init",
        "catatonit",
        "containerd-shim",
        "containerd-shim-",
        "conmon",
        "s6-svscan",
        "runsvdir",
        "supervisord",
    };
    for (size_t i = 0; i < sizeof reapers / sizeof reapers[0]; i++)
        if (strncmp(name, reapers[i], 15) == 0) /* comm is cut at 15 bytes. */
            return true;
    char text[4096];
    uint32_t inner;
    return !read_proc(pid, "status", text, sizeof text) ||
           (status_number(text, "\nNSpid:", &inner) && inner == 1);
}

static int open_pidfd(uint32_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0u); /* Close-on-exec by itself. */
    return fd < 0 ? -errno : fd;
}

static bool has_ended(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    return poll(&p, 1, 0) != 0;
}

/* Read a process afresh.  The pidfd is opened first: if it says "alive" afterwards, all that was
 * read in between is of that one process. */
static struct process *process_read(struct process_table *t, uint32_t pid)
{
    struct stat_line s;
    int fd = open_pidfd(pid);
    if (fd < 0)
        return NULL;
    if (!read_stat(pid, &s) || s.state == 'Z' || s.state == 'X' || has_ended(fd)) {
        (void)close(fd);
        return NULL;
    }
    struct process *p = xcalloc(1, sizeof *p);
    p->id = (struct process_id){pid, s.start};
    p->parent.pid = s.parent;
    p->session = s.session;
    p->reaper = is_reaper(pid, s.name);
    p->pidfd = fd;
    HASH_ADD(hh, t->by_pid, id.pid, sizeof p->id.pid, p);
    return p;
}

/* The living process with this pid, which must be a thread group's leader. */
static struct process *process_get(struct process_table *t, uint32_t pid)
{
    struct process *p;
    HASH_FIND(hh, t->by_pid, &pid, sizeof pid, p);
    if (p != NULL && has_ended(p->pidfd)) {
        process_drop(t, p);
        p = NULL;
    }
    return p != NULL ? p : process_read(t, pid);
}

struct process_id process_of_thread(struct process_table *t, uint32_t tid)
{
    struct process_id none = {0, 0};
    if (tid == 0)
        return none;
    process_trim(t);
    /* pidfd_open() takes leaders only; so a thread that is none falls through. */
    struct process *p = process_get(t, tid);
    if (p != NULL)
        return p->id;
    char text[4096];
    uint32_t leader;
    if (!read_proc(tid, "status", text, sizeof text) || !status_number(text, "\nTgid:", &leader) ||
        leader == tid)
        return none;
    p = process_get(t, leader);
    return p != NULL ? p->id : none;
}

/* The living parent of `*p`, or NULL at pid 1 and where it can't be told.
 *
 * An entry's parent is right as long as that process lives, since only its death makes the kernel
 * give the child away; then the child (`*p`) is read again. */
static struct process *process_parent(struct process_table *t, struct process **p)
{
    for (int attempt = 0; attempt < 3; attempt++) {
        struct process *child = *p;
        struct process *parent = child->parent.pid > 1 ? process_get(t, child->parent.pid) : NULL;
        bool known = child->parent.start != 0;
        /* No parent is younger than its child: that would be a recycled pid. */
        if (parent != NULL && (known ? parent->id.start == child->parent.start
                                     : parent->id.start <= child->id.start)) {
            child->parent.start = parent->id.start;
            return parent;
        }
        if (child->parent.pid <= 1)
            return NULL;
        struct process_id id = child->id;
        process_drop(t, child);
        child = process_read(t, id.pid);
        if (child == NULL || !process_equal(child->id, id))
            return NULL;
        *p = child;
    }
    return NULL;
}

bool process_lineage(struct process_table *t, struct process_id id, struct lineage *ret_lineage)
{
    struct lineage *l = ret_lineage;
    bool heirs_end = false;
    l->n = l->n_heirs = 0;
    if (id.pid == 0)
        return false;
    process_trim(t);
    struct process *p = process_get(t, id.pid);
    if (p == NULL || !process_equal(p->id, id))
        return false;
    while (p != NULL && l->n < LINEAGE_MAX) {
        l->ids[l->n++] = p->id;
        if (!heirs_end)
            l->n_heirs = l->n;
        struct process *parent = process_parent(t, &p);
        /* A child in a session that is neither its own nor its parent's has lost the parent that
         * it was born to: this one adopted it. */
        if (parent != NULL &&
            (parent->reaper || (p->session != parent->session && p->session != p->id.pid)))
            heirs_end = true;
        p = parent;
    }
    return true;
}

bool process_alive(struct process_table *t, struct process_id id)
{
    if (id.pid == 0)
        return false;
    process_trim(t);
    struct process *p = process_get(t, id.pid);
    return p != NULL && process_equal(p->id, id);
}

int process_open_pidfd(struct process_id id)
{
    struct stat_line s;
    int fd = id.pid == 0 ? -ESRCH : open_pidfd(id.pid);
    if (fd < 0)
        return fd;
    if (!read_stat(id.pid, &s) || s.start != id.start || has_ended(fd)) {
        (void)close(fd);
        return -ESRCH;
    }
    return fd;
}

int process_signal(struct process_id id, int number)
{
    int fd = process_open_pidfd(id);
    if (fd < 0)
        return fd;
    int r = syscall(SYS_pidfd_send_signal, fd, number, NULL, 0u) < 0 ? -errno : 0;
    (void)close(fd);
    return r;
}
