/* Compare flock and fcntl locks on a mount with those of a local file system.
 *
 *     flock_diff LOCAL MOUNT [SEED [COUNT]]
 *
 * Each sequence (its number is its seed) is a list of operations by several processes: open, close,
 * dup, flock, fcntl, F_OFD_*, fork, kill -9.  It runs first in the directory LOCAL and then in
 * MOUNT; every result and errno must be the same.  What the kernel granted at once in LOCAL is
 * asked for with or without waiting in MOUNT.  Known differences, which are kept out:
 *
 * - flock and fcntl locks exclude one another on a mount: they get a file each;
 * - F_GETLK names one of several locks in the way: another one, perhaps; and it names the process
 *   of an F_OFD_* lock, where Linux says -1.
 *
 * Prints the first difference with its seed.  Exit status: 0 none; 1 a difference; 2 wrong usage or
 * a failure of the machine. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS 3
#define SLOTS   4
#define OPS_MAX 40
#define FILES   2 /* 0: flock; 1: fcntl. */

enum op { OP_OPEN, OP_CLOSE, OP_DUP, OP_FLOCK, OP_SETLK, OP_OFD, OP_GETLK, OP_FORK, OP_KILL };
static const char *const names[] = {"open", "close", "dup",  "flock", "setlk",
                                    "ofd",  "getlk", "fork", "kill"};

struct step {
    enum op op;
    int worker;
    int slot;
    int other; /* File, other slot or other worker. */
    int mode;  /* LOCK_... or F_...LCK; open: O_... */
    int start;
    int length;
    int waits; /* In MOUNT: without LOCK_NB where it was granted in LOCAL. */
};

struct result {
    int value; /* 0, or an errno; GETLK: type. */
    int pid;   /* GETLK: whose; FORK: of the new process. */
};

struct sequence {
    int n;
    struct step steps[OPS_MAX];
};

struct worker {
    int commands[2]; /* Pipes; all processes have all of them. */
    int results[2];
    int pidfd; /* -1: not running. */
    int pid;
};

static struct worker workers[WORKERS];
static const char *directory;
static uint64_t number; /* Of the sequence. */
static uint64_t random_state;

static void die(const char *what)
{
    (void)fprintf(stderr, "flock_diff: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* splitmix64. */
static uint64_t random_next(void)
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static int random_below(int n)
{
    return (int)(random_next() % (uint64_t)n);
}

static void make_sequence(uint64_t seed, struct sequence *s)
{
    static const enum op weighted[] = {
        OP_OPEN,  OP_OPEN,  OP_OPEN,  OP_CLOSE, OP_CLOSE, OP_DUP,   OP_FLOCK,
        OP_FLOCK, OP_FLOCK, OP_FLOCK, OP_FLOCK, OP_SETLK, OP_SETLK, OP_SETLK,
        OP_SETLK, OP_SETLK, OP_OFD,   OP_OFD,   OP_GETLK, OP_FORK,  OP_KILL,
    };
    static const int flocks[] = {LOCK_SH, LOCK_EX, LOCK_UN};
    static const int records[] = {F_RDLCK, F_WRLCK, F_UNLCK};
    random_state = seed * UINT64_C(0x2545f4914f6cdd1d) + 1;
    s->n = 8 + random_below(OPS_MAX - 8);
    for (int i = 0; i < s->n; i++) {
        struct step *t = &s->steps[i];
        t->op = i < 4 ? OP_OPEN : weighted[random_below(sizeof weighted / sizeof weighted[0])];
        t->worker = random_below(WORKERS);
        t->slot = random_below(SLOTS);
        t->other = random_below(t->op == OP_OPEN ? FILES : t->op == OP_DUP ? SLOTS : WORKERS);
        t->mode = t->op == OP_FLOCK  ? flocks[random_below(3)]
                  : t->op == OP_OPEN ? (random_below(5) == 0 ? O_RDONLY : O_RDWR)
                                     : records[random_below(t->op == OP_GETLK ? 2 : 3)];
        t->start = random_below(8);
        t->length = random_below(4) == 0 ? 0 : 1 + random_below(8);
        t->waits = random_below(2);
    }
}

/* ---- In a worker ---- */

static int slots[SLOTS];
static int slot_files[SLOTS];

static int do_lock(const struct step *t, int command, struct result *r)
{
    struct flock lock = {
        .l_type = (short)t->mode,
        .l_whence = SEEK_SET,
        .l_start = t->start,
        .l_len = t->length,
    };
    if (fcntl(slots[t->slot], command, &lock) < 0)
        return errno;
    if (command == F_GETLK) {
        r->pid = lock.l_type == F_UNLCK ? 0 : lock.l_pid;
        return lock.l_type == F_UNLCK ? 0 : 1;
    }
    return 0;
}

static void open_slot(const struct step *t, struct result *r)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%llu-%d", directory, (unsigned long long)number,
                   t->other);
    if (slots[t->slot] >= 0)
        (void)close(slots[t->slot]);
    slots[t->slot] = open(path, t->mode | O_CREAT | O_CLOEXEC, 0644);
    slot_files[t->slot] = t->other;
    r->value = slots[t->slot] < 0 ? errno : 0;
}

static void run_worker(int self);

static void fork_worker(const struct step *t, struct result *r)
{
    pid_t pid = fork();
    if (pid == 0)
        run_worker(t->other);
    r->pid = pid;
    r->value = pid < 0 ? errno : 0;
}

static void perform(const struct step *t, struct result *r)
{
    int fd = slots[t->slot];
    int file = slot_files[t->slot];
    if (t->op == OP_OPEN) {
        open_slot(t, r);
    } else if (t->op == OP_FORK) {
        fork_worker(t, r);
    } else if (fd < 0) {
        r->value = -1; /* Nothing to do. */
    } else if (t->op == OP_CLOSE) {
        r->value = close(fd) < 0 ? errno : 0;
        slots[t->slot] = -1;
    } else if (t->op == OP_DUP) {
        if (slots[t->other] >= 0 && t->other != t->slot)
            (void)close(slots[t->other]);
        if (t->other != t->slot) {
            slots[t->other] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
            slot_files[t->other] = file;
        }
    } else if (t->op == OP_FLOCK) {
        r->value = file != 0 ? -1 : flock(fd, t->mode | (t->waits ? 0 : LOCK_NB)) < 0 ? errno : 0;
    } else if (file != 1) {
        r->value = -1;
    } else {
        int set = t->op == OP_OFD ? (t->waits ? F_OFD_SETLKW : F_OFD_SETLK)
                                  : (t->waits ? F_SETLKW : F_SETLK);
        r->value = do_lock(t, t->op == OP_GETLK ? F_GETLK : set, r);
    }
}

static void run_worker(int self)
{
    struct step t;
    while (read(workers[self].commands[0], &t, sizeof t) == (ssize_t)sizeof t) {
        struct result r = {0};
        perform(&t, &r);
        if (write(workers[self].results[1], &r, sizeof r) != (ssize_t)sizeof r)
            break;
    }
    _exit(0);
}

/* ---- In the controller ---- */

static void end_worker(int i)
{
    struct pollfd p = {.fd = workers[i].pidfd, .events = POLLIN};
    if (workers[i].pidfd < 0)
        return;
    (void)kill(workers[i].pid, SIGKILL);
    if (poll(&p, 1, 10000) != 1) {
        (void)fprintf(stderr, "flock_diff: a killed process does not end\n");
        exit(1);
    }
    (void)close(workers[i].pidfd);
    workers[i].pidfd = -1;
    (void)waitpid(workers[i].pid, NULL, WNOHANG); /* If it is a child of ours. */
}

static void adopt_worker(int i, int pid)
{
    workers[i].pid = pid;
    workers[i].pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (workers[i].pidfd < 0)
        die("pidfd_open");
}

static void start_worker(int i)
{
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        for (int s = 0; s < SLOTS; s++)
            slots[s] = -1;
        (void)signal(SIGCHLD, SIG_IGN);
        run_worker(i);
    }
    adopt_worker(i, pid);
}

/* Return: false when it hangs. */
static int ask(int i, const struct step *t, struct result *r)
{
    struct pollfd p = {.fd = workers[i].results[0], .events = POLLIN};
    if (write(workers[i].commands[1], t, sizeof *t) != (ssize_t)sizeof *t)
        die("write");
    if (poll(&p, 1, 10000) != 1)
        return 0;
    if (read(workers[i].results[0], r, sizeof *r) != (ssize_t)sizeof *r)
        die("read");
    return 1;
}

static int worker_of_pid(int pid)
{
    for (int i = 0; i < WORKERS; i++)
        if (workers[i].pid == pid)
            return i;
    return -1;
}

static void run_step(const struct step *t, struct result *r)
{
    *r = (struct result){0};
    if (t->op == OP_KILL) {
        end_worker(t->worker);
        start_worker(t->worker);
        return;
    }
    if (t->op == OP_FORK && t->other == t->worker) {
        r->value = -1;
        return;
    }
    if (t->op == OP_FORK)
        end_worker(t->other);
    if (!ask(t->worker, t, r)) {
        r->value = -2;
        return;
    }
    if (t->op == OP_FORK) {
        adopt_worker(t->other, r->pid);
        r->pid = 0;
    } else if (t->op == OP_GETLK && r->pid > 0) {
        r->pid = worker_of_pid(r->pid);
    }
}

/* `expected`: NULL in LOCAL. */
static void run(const struct sequence *s, const struct result *expected, struct result *out)
{
    for (int i = 0; i < WORKERS; i++)
        start_worker(i);
    for (int i = 0; i < s->n; i++) {
        struct step t = s->steps[i];
        if (expected == NULL || expected[i].value != 0)
            t.waits = 0;
        run_step(&t, &out[i]);
        if (out[i].value == -2)
            break;
    }
    for (int i = 0; i < WORKERS; i++)
        end_worker(i);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;
}

static int same(const struct step *t, const struct result *a, const struct result *b)
{
    return a->value == b->value && (t->op != OP_GETLK || a->pid <= 0 || b->pid >= 0);
}

static void
print(const struct sequence *s, const struct result *a, const struct result *b, int last)
{
    for (int i = 0; i <= last; i++) {
        const struct step *t = &s->steps[i];
        (void)printf("%3d process %d %-6s slot %d other %d mode %d range %d+%d%s: %d/%d, %d/%d\n",
                     i, t->worker, names[t->op], t->slot, t->other, t->mode, t->start, t->length,
                     t->waits ? " waits" : "", a[i].value, a[i].pid, b[i].value, b[i].pid);
    }
}

/* Return: 0 the same. */
static int compare(const char *local, const char *mount, uint64_t seed)
{
    struct sequence s;
    struct result a[OPS_MAX], b[OPS_MAX];
    char path[4096];
    make_sequence(seed, &s);
    number = seed;
    directory = local;
    run(&s, NULL, a);
    for (int i = 0; i < FILES; i++) {
        (void)snprintf(path, sizeof path, "%s/%llu-%d", local, (unsigned long long)seed, i);
        (void)unlink(path); /* It may not have been opened. */
    }
    directory = mount;
    run(&s, a, b);
    for (int i = 0; i < s.n; i++) {
        if (same(&s.steps[i], &a[i], &b[i]))
            continue;
        print(&s, a, b, i);
        (void)printf("seed %llu differs at step %d: LOCAL %d, MOUNT %d\n", (unsigned long long)seed,
                     i, a[i].value, b[i].value);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 5) {
        (void)fprintf(stderr, "usage: flock_diff LOCAL MOUNT [SEED [COUNT]]\n");
        return 2;
    }
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    uint64_t count = argc > 4 ? strtoull(argv[4], NULL, 10) : 1;
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    (void)signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < WORKERS; i++) {
        workers[i].pidfd = -1;
        if (pipe(workers[i].commands) < 0 || pipe(workers[i].results) < 0)
            die("pipe");
    }
    for (uint64_t i = 0; i < count; i++)
        if (compare(argv[1], argv[2], seed + i) != 0)
            return 1;
    (void)printf("%llu sequences are the same\n", (unsigned long long)count);
    return 0;
}
