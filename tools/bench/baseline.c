#include "tools/bench/baseline.h"

#include "raftstore/base/random.h"

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <raft.h>
#include <raft/uv.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#define ENTRY_BYTES     64u
#define FDS_MAX         128
#define ELECTION_MS_MAX 15000u

/* What parent and nodes share. */
struct shared {
    _Atomic int done;             /* The leader has measured. */
    struct bench_figures figures; /* Written by the leader. */
};

struct baseline_node {
    uv_loop_t loop;
    uv_timer_t timer;                   /* Looks whether we lead; ends the measurement. */
    struct raft_uv_transport transport; /* TCP, of libraft. */
    struct raft_io io;                  /* Disk, of libraft. */
    struct raft_fsm fsm;                /* Keeps nothing. */
    struct raft raft;
    struct shared *shared;
    unsigned in_flight;  /* Entries outstanding while we lead. */
    bool tuned;          /* See the header. */
    bool running;        /* Proposing. */
    uint64_t begin_ns;   /* The window. */
    uint64_t end_ns;     /* 0 = not begun. */
    uint64_t seconds_ns; /* Its length. */
};

struct proposal {
    struct raft_apply request;
    struct baseline_node *node;
    uint64_t sent_ns;
};

static uint64_t now_ns(void)
{
    return clock_mono_ns(clock_system());
}

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    (void)fsm;
    (void)buf;
    *result = NULL;
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    (void)fsm;
    *bufs = raft_malloc(sizeof **bufs);
    if (*bufs == NULL)
        return RAFT_NOMEM;
    (*bufs)[0].len = 8;
    (*bufs)[0].base = raft_calloc(1, 8);
    *n_bufs = 1;
    return (*bufs)[0].base != NULL ? 0 : RAFT_NOMEM;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    (void)fsm;
    raft_free(buf->base);
    return 0;
}

static void propose(struct proposal *p);

static void on_applied(struct raft_apply *request, int status, void *result)
{
    struct proposal *p = request->data;
    struct baseline_node *n = p->node;
    struct bench_figures *f = &n->shared->figures;
    uint64_t now = now_ns();

    (void)result;
    if (p->sent_ns >= n->begin_ns && now <= n->end_ns) {
        if (status == 0)
            histogram_add(&f->ops[BENCH_OP_COMMIT], now - p->sent_ns);
        else
            f->errors[BENCH_OP_COMMIT]++;
    }
    if (now < n->end_ns && status == 0)
        propose(p);
    else
        free(p);
}

static void propose(struct proposal *p)
{
    struct raft_buffer buf = {.base = raft_malloc(ENTRY_BYTES), .len = ENTRY_BYTES};

    if (buf.base == NULL)
        abort();
    memset(buf.base, 'x', ENTRY_BYTES);
    p->request.data = p;
    p->sent_ns = now_ns();
    if (raft_apply(&p->node->raft, &p->request, &buf, 1, on_applied) != 0) {
        p->node->shared->figures.errors[BENCH_OP_COMMIT]++;
        raft_free(buf.base);
        free(p);
    }
}

/* libraft offers no way to its sockets, so look for them. */
static void set_nodelay(void)
{
    for (int fd = 3; fd < FDS_MAX; fd++) {
        int on = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* Not all are sockets. */
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct baseline_node *n = timer->data;
    uint64_t now = now_ns();

    if (n->tuned && !n->running)
        set_nodelay();
    if (n->running && now > n->end_ns) {
        n->running = false;
        n->shared->figures.elapsed_ns = n->end_ns - n->begin_ns;
        atomic_store(&n->shared->done, 1);
    }
    if (n->end_ns != 0 || raft_state(&n->raft) != RAFT_LEADER)
        return;
    n->running = true;
    n->begin_ns = now + BENCH_WARMUP_MS * NS_PER_MS;
    n->end_ns = n->begin_ns + n->seconds_ns;
    for (unsigned i = 0; i < n->in_flight; i++) {
        struct proposal *p = calloc(1, sizeof *p);
        if (p == NULL)
            abort();
        p->node = n;
        propose(p);
    }
}

/* Return: 0; a libraft or libuv error. */
static int node_start(struct baseline_node *n,
                      unsigned id,
                      const char *directory,
                      const uint16_t *ports,
                      unsigned nodes)
{
    char address[32];
    struct raft_configuration conf;
    int r;

    n->transport.version = 1;
    n->fsm = (struct raft_fsm){
        .version = 1, .apply = fsm_apply, .snapshot = fsm_snapshot, .restore = fsm_restore};
    r = uv_loop_init(&n->loop);
    if (r == 0)
        r = raft_uv_tcp_init(&n->transport, &n->loop);
    if (r == 0)
        r = raft_uv_init(&n->io, &n->loop, directory, &n->transport);
    if (r != 0)
        return r;
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", ports[id - 1]);
    r = raft_init(&n->raft, &n->io, &n->fsm, id, address);
    if (r != 0)
        return r;
    if (n->tuned) {
        n->raft.tracer = NULL;
        raft_uv_set_tracer(&n->io, NULL);
        raft_set_snapshot_threshold(&n->raft, UINT_MAX);
    }
    raft_seed(&n->raft, (unsigned)random_system());

    raft_configuration_init(&conf);
    for (unsigned i = 0; i < nodes && r == 0; i++) {
        (void)snprintf(address, sizeof address, "127.0.0.1:%u", ports[i]);
        r = raft_configuration_add(&conf, i + 1, address, RAFT_VOTER);
    }
    if (r == 0)
        r = raft_bootstrap(&n->raft, &conf);
    raft_configuration_close(&conf);
    return r == 0 ? raft_start(&n->raft) : r;
}

/* A node's process; killed by its parent. */
static _Noreturn void node_main(struct baseline_node *n,
                                unsigned id,
                                const char *directory,
                                const uint16_t *ports,
                                unsigned nodes)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGPIPE, SIG_IGN); /* Else a node that ends kills the others. */
    int r = node_start(n, id, directory, ports, nodes);
    if (r != 0) {
        (void)fprintf(stderr, "holdfast-bench: baseline node %u: %s\n", id, raft_errmsg(&n->raft));
        _exit(1);
    }
    n->timer.data = n;
    if (uv_timer_init(&n->loop, &n->timer) != 0 || uv_timer_start(&n->timer, on_timer, 1, 1) != 0)
        _exit(1);
    (void)uv_run(&n->loop, UV_RUN_DEFAULT);
    _exit(1);
}

/* A port of the loopback interface that is free now. */
static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    uint16_t port = 0;

    if (fd < 0)
        return 0;
    if (bind(fd, (struct sockaddr *)&address, size) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &size) == 0)
        port = ntohs(address.sin_port);
    (void)close(fd);
    return port;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

/* Wait for the leader's figures.  Return: 0; -ECHILD a node died; -ETIMEDOUT. */
static int wait_for_figures(struct shared *shared, pid_t *pids, unsigned nodes, uint64_t until)
{
    while (atomic_load(&shared->done) == 0) {
        for (unsigned i = 0; i < nodes; i++) {
            if (waitpid(pids[i], NULL, WNOHANG) != 0) {
                pids[i] = 0; /* Gone: no longer ours to kill. */
                return -ECHILD;
            }
        }
        if (now_ns() > until)
            return -ETIMEDOUT;
        (void)usleep(10000); /* Nothing to be woken by: the nodes are measured, not we. */
    }
    return 0;
}

int baseline_run(const struct bench_options *o,
                 unsigned nodes,
                 unsigned in_flight,
                 bool tuned,
                 struct bench_figures *f)
{
    struct shared *shared = bench_shared_alloc(sizeof *shared);
    char directory[PATH_MAX];
    uint16_t ports[BASELINE_NODES_MAX];
    pid_t pids[BASELINE_NODES_MAX] = {0};
    unsigned n_started = 0;
    int r = 0;

    if ((size_t)snprintf(directory, sizeof directory, "%s/holdfast-bench.XXXXXX",
                         o->baseline_dir) >= sizeof directory ||
        mkdtemp(directory) == NULL) {
        (void)fprintf(stderr, "holdfast-bench: no directory below %s\n", o->baseline_dir);
        return -errno;
    }
    for (unsigned i = 0; i < nodes; i++)
        ports[i] = free_port();
    for (unsigned i = 0; i < nodes && r == 0; i++) {
        char data[PATH_MAX + 16];
        (void)snprintf(data, sizeof data, "%s/%u", directory, i + 1);
        if (mkdir(data, 0700) != 0 || (pids[i] = fork()) < 0) {
            r = -errno;
        } else if (pids[i] == 0) {
            struct baseline_node *n = calloc(1, sizeof *n);
            if (n == NULL)
                _exit(1);
            n->shared = shared;
            n->in_flight = in_flight;
            n->tuned = tuned;
            n->seconds_ns = o->seconds * NS_PER_S;
            node_main(n, i + 1, data, ports, nodes);
        } else {
            n_started++;
        }
    }
    if (r == 0)
        r = wait_for_figures(shared, pids, nodes,
                             now_ns() + (ELECTION_MS_MAX + BENCH_WARMUP_MS) * NS_PER_MS +
                                 o->seconds * NS_PER_S);
    for (unsigned i = 0; i < n_started; i++) {
        if (pids[i] == 0)
            continue;
        (void)kill(pids[i], SIGKILL); /* May have ended by itself. */
        (void)waitpid(pids[i], NULL, 0);
    }
    (void)nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS); /* What stays is only litter. */
    if (r != 0)
        (void)fprintf(stderr, "holdfast-bench: baseline: %s\n", strerror(-r));
    else
        *f = shared->figures;
    return r;
}
