#include "tests/sim/mount.h"

#include "fs/attr.h"
#include "fs/handle.h"
#include "fs/locker.h"
#include "fs/ops.h"
#include "raftstore/wire/codes.h"
#include "tests/sim/cable.h"
#include "tests/sim/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#define SLACK_NS   (1000 * NS_PER_MS) /* From timeout= to the answer. */
#define OWNERS_MAX 4u                 /* Open files' names for the kernel: used again and again. */

enum state {
    IDLE,
    LEASE, /* It has made a lock file, and has it open. */
    FLOCK, /* It has a lock file open, and locked. */
};

struct process {
    struct mount *mount;
    unsigned slot;
    uint32_t pid, shell;
    enum state state;
    bool killed; /* Ends as soon as its call returns. */
    unsigned path;
    fuse_ino_t ino;
    struct fuse_file_info fi; /* fh 0: nothing is open. */
    int flock_op;
    /* The call that it sits in. */
    fuse_req_t request;
    void (*then)(struct process *p, const struct answer *a);
    uint64_t due_ns; /* Own clock: it returns by then; UINT64_MAX = when it is granted. */
    bool giving_up;  /* It does not rely on its lock any more. */
};

struct mount {
    struct site site;
    struct options options;
    struct kernel kernel;
    struct fs fs;
    struct client *client; /* NULL: the daemon is down. */
    bool fs_open;
    bool mounted;
    bool had_session;
    bool ending;
    uint64_t asleep_ns, awake_ns; /* The world's; own clock. */
    uint64_t n_files;
    uint32_t last_pid;
    unsigned n_paths;
    struct process processes[MOUNT_PROCESSES];
    struct mount_counts counts;
};

static uint64_t now_ns(const struct mount *m)
{
    return clock_boot_ns(&m->site.clock.clock);
}

static bool is_alive(void *arg, uint32_t pid)
{
    const struct mount *m = arg;
    for (unsigned i = 0; i < MOUNT_PROCESSES; i++) {
        if (m->processes[i].pid == pid || m->processes[i].shell == pid)
            return true;
    }
    return false;
}

static uint32_t parent_of(void *arg, uint32_t pid)
{
    const struct mount *m = arg;
    for (unsigned i = 0; i < MOUNT_PROCESSES; i++) {
        if (m->processes[i].pid == pid)
            return m->processes[i].shell;
    }
    return 0;
}

/* ---- Beliefs ----------------------------------------------------------------------------- */

/* As handle_lost() and locker_check() judge, but that the program does not count as told. */
struct app_belief mount_believes(const struct mount *m, unsigned process, unsigned path)
{
    const struct process *p = &m->processes[process];
    const struct handle *h = (const struct handle *)(uintptr_t)p->fi.fh;
    struct app_belief b = {0, LOCK_EXCLUSIVE, 0};
    const struct locker *l;
    if (m->client == NULL || p->path != path || p->fi.fh == 0 || p->giving_up || h->lost)
        return b;
    if (p->state == LEASE) {
        bool live = h->hold != NULL && h->hold->state == HOLD_LIVE &&
                    now_ns(m) < client_lease_deadline_boot_ns(h->hold->lease);
        b.token = live ? h->hold->token : 0;
    } else if (p->state == FLOCK) {
        LIST_FOREACH(l, &h->lockers, in_handle)
        {
            if (l->held.n == 0 || l->lost || !client_session_live(m->client))
                continue;
            b.token = l->token;
            b.mode = l->held.list[0].mode == HELD_SHARED ? LOCK_SHARED : LOCK_EXCLUSIVE;
        }
    }
    return b;
}

static void believe(struct process *p)
{
    world_believed(p->mount->site.world, p->mount->site.number + p->slot, p->path);
}

/* ---- Calls ------------------------------------------------------------------------------- */

static void process_exit(struct process *p);

static void on_done(void *arg, const struct answer *a)
{
    struct process *p = arg;
    struct mount *m = p->mount;
    void (*then)(struct process *, const struct answer *) = p->then;
    p->request = NULL;
    p->then = NULL;
    m->counts.done_after_heal += world_is_healed(m->site.world);
    m->counts.timeouts += a->error == ETIMEDOUT;
    m->counts.stale += a->error == ESTALE;
    then(p, a);
    if (p->killed && p->request == NULL)
        process_exit(p);
}

static fuse_req_t
call(struct process *p, const char *what, void (*then)(struct process *p, const struct answer *a))
{
    struct mount *m = p->mount;
    p->then = then;
    p->due_ns = now_ns(m) + m->options.timeout_ms * NS_PER_MS;
    p->request = kernel_request(&m->kernel, p->pid, on_done, p);
    m->counts.calls++;
    world_trace(m->site.world, "process %u.%u: %s job%u", m->site.number, p->slot, what, p->path);
    return p->request;
}

/* What the kernel does behind a process's back. */
static fuse_req_t nobodys(struct process *p)
{
    return kernel_request(&p->mount->kernel, 0, NULL, NULL);
}

static void forget(struct process *p, fuse_ino_t ino)
{
    ops_forget(nobodys(p), ino, 1);
}

static void unexpected(struct process *p, const char *what, int error)
{
    world_fail(p->mount->site.world, "process %u.%u: %s: %s", p->mount->site.number, p->slot, what,
               strerror(error));
}

static bool is_of(int error, const int *expected)
{
    while (*expected != 0 && *expected != error)
        expected++;
    return *expected != 0 || error == ETIMEDOUT || error == EINTR;
}

static char *name_of(const struct process *p, char *out)
{
    (void)snprintf(out, 16, "job%u", p->path);
    return out;
}

/* ---- Close ------------------------------------------------------------------------------- */

static void on_flushed(struct process *p, const struct answer *a)
{
    (void)a;
    ops_release(nobodys(p), p->ino, &p->fi);
    forget(p, p->ino);
    p->fi.fh = 0;
    p->state = IDLE;
}

static void do_close(struct process *p)
{
    p->giving_up = true;
    ops_flush(call(p, "close", on_flushed), p->ino, &p->fi);
}

/* The kernel closes what it had open; a new process of the same shell comes in its place. */
static void process_exit(struct process *p)
{
    struct mount *m = p->mount;
    if (p->fi.fh != 0 && m->mounted) {
        do_close(p);
        return; /* And again from on_done(). */
    }
    world_trace(m->site.world, "process %u.%u ends", m->site.number, p->slot);
    p->killed = false;
    p->pid = ++m->last_pid;
    p->state = IDLE;
}

/* ---- O_EXCL ------------------------------------------------------------------------------ */

static void on_created(struct process *p, const struct answer *a)
{
    static const int expected[] = {EEXIST, 0};
    struct mount *m = p->mount;
    if (a->error != 0) {
        if (!is_of(a->error, expected))
            unexpected(p, "open(O_CREAT|O_EXCL)", a->error);
        return;
    }
    m->counts.leases++;
    p->ino = a->entry.ino;
    p->fi = a->fi;
    p->state = LEASE;
    p->giving_up = p->killed;
    world_trace(m->site.world, "process %u.%u has job%u", m->site.number, p->slot, p->path);
    believe(p);
}

/* A lock that is told to be there can be relied on, at least at that moment. */
static void check_created(void *arg, const struct answer *a)
{
    const struct process *p = arg;
    const struct handle *h = (const struct handle *)(uintptr_t)a->fi.fh;
    if (h->hold == NULL || now_ns(p->mount) >= client_lease_deadline_boot_ns(h->hold->lease))
        world_fail(p->mount->site.world, "process %u.%u is given a lease that is over",
                   p->mount->site.number, p->slot);
}

static void check_flocked(void *arg, const struct answer *a)
{
    const struct process *p = arg;
    (void)a;
    if ((p->flock_op & LOCK_UN) == 0 && !client_session_live(p->mount->client))
        world_fail(p->mount->site.world, "process %u.%u is given a lock of a session that is over",
                   p->mount->site.number, p->slot);
}

static void new_file(struct process *p, int flags)
{
    struct mount *m = p->mount;
    p->fi = (struct fuse_file_info){.flags = flags, .lock_owner = 1 + m->n_files++ % OWNERS_MAX};
    for (unsigned i = 0; i < MOUNT_PROCESSES; i++) {
        const struct process *other = &m->processes[i];
        if (other != p && other->fi.fh != 0 && other->fi.lock_owner == p->fi.lock_owner)
            p->fi.lock_owner = 100 + m->n_files; /* No two that are open have one. */
    }
}

static void on_looked_excl(struct process *p, const struct answer *a)
{
    static const int expected[] = {ENOENT, 0};
    char name[16];
    if (a->error == 0) {
        forget(p, a->entry.ino); /* EEXIST. */
    } else if (a->error != ENOENT) {
        if (!is_of(a->error, expected))
            unexpected(p, "lookup", a->error);
    } else if (!p->killed) {
        new_file(p, O_CREAT | O_EXCL | O_RDWR);
        struct fuse_file_info fi = p->fi;
        fuse_req_t r = call(p, "create", on_created);
        r->check = check_created;
        ops_create(r, INODE_ROOT, name_of(p, name), 0644, &fi);
    }
}

static void on_renewed(struct process *p, const struct answer *a)
{
    static const int expected[] = {ESTALE, 0};
    if (a->error == 0) {
        p->mount->counts.renewals++;
        believe(p);
    } else if (!is_of(a->error, expected)) {
        unexpected(p, "renew", a->error);
    }
}

static void on_probed(struct process *p, const struct answer *a)
{
    if (a->error != 0 && a->error != ESTALE)
        unexpected(p, "fsync", a->error);
    if (a->error == ESTALE)
        do_close(p);
}

static void on_read(struct process *p, const struct answer *a)
{
    static const int expected[] = {ESTALE, 0};
    if (a->error != 0 && !is_of(a->error, expected))
        unexpected(p, "read", a->error);
}

/* Released, or lost before; or nobody knows. */
static void on_unlinked(struct process *p, const struct answer *a)
{
    static const int expected[] = {ENOENT, EPERM, ESTALE, 0};
    if (a->error != 0 && !is_of(a->error, expected))
        unexpected(p, "unlink", a->error);
    do_close(p);
}

static void on_looked_unlink(struct process *p, const struct answer *a)
{
    char name[16];
    if (a->error != 0) {
        do_close(p);
        return;
    }
    forget(p, a->entry.ino);
    ops_unlink(call(p, "unlink", on_unlinked), INODE_ROOT, name_of(p, name));
}

static void write_text(struct process *p,
                       const char *text,
                       void (*then)(struct process *p, const struct answer *a))
{
    ops_write(call(p, text, then), p->ino, text, strlen(text), 0, &p->fi);
}

static void lease_act(struct process *p, bool quiet)
{
    struct world *w = p->mount->site.world;
    char name[16], text[32];
    uint64_t what = quiet ? 800 : world_below(w, 1000);
    if (what < 200) {
        (void)snprintf(text, sizeof text, "renew %ums", (unsigned)world_between(w, 100, 1500));
        write_text(p, world_chance(w, 500) ? text : "renew", on_renewed);
    } else if (what < 350) {
        ops_fsync(call(p, "fsync", on_probed), p->ino, 0, &p->fi);
    } else if (what < 450) {
        ops_read(call(p, "read", on_read), p->ino, 4096, 0, &p->fi);
    } else if (what < 500) {
        write_text(p, "a note", on_renewed);
    } else if (what < 700) {
        return;
    } else if (what < 800) {
        do_close(p); /* The lease stays till its end. */
    } else if (what < 900) {
        p->giving_up = true;
        ops_lookup(call(p, "lookup", on_looked_unlink), INODE_ROOT, name_of(p, name));
    } else {
        p->giving_up = true;
        write_text(p, "release", on_unlinked);
    }
}

/* ---- flock ------------------------------------------------------------------------------- */

static void do_flock(struct process *p, int op);

static void on_flocked(struct process *p, const struct answer *a)
{
    static const int expected[] = {EWOULDBLOCK, ESTALE, 0};
    struct mount *m = p->mount;
    struct world *w = m->site.world;
    p->giving_up = false; /* What a conversion that failed left of it. */
    if (a->error == 0 && (p->flock_op & LOCK_UN) == 0) {
        m->counts.flocks++;
        p->state = FLOCK;
        p->giving_up = p->killed;
        believe(p);
        return;
    }
    if (a->error != 0 && !is_of(a->error, expected))
        unexpected(p, "flock", a->error);
    if (a->error == EINTR && !p->killed && world_chance(w, 600))
        do_flock(p, p->flock_op); /* SA_RESTART. */
    else if (p->state != FLOCK || a->error == 0 || a->error == ESTALE)
        do_close(p);
    else
        believe(p);
}

static void do_flock(struct process *p, int op)
{
    p->flock_op = op;
    p->giving_up = true; /* While it converts. */
    fuse_req_t r = call(p,
                        (op & LOCK_UN) != 0   ? "flock -u"
                        : (op & LOCK_EX) != 0 ? "flock -x"
                                              : "flock -s",
                        on_flocked);
    r->check = check_flocked;
    if ((op & (LOCK_NB | LOCK_UN)) == 0) {
        p->due_ns = UINT64_MAX;
        p->mount->counts.waits++;
    }
    ops_flock(r, p->ino, &p->fi, op);
}

static int some_flock(struct world *w)
{
    int op = world_chance(w, 300) ? LOCK_SH : LOCK_EX;
    return world_chance(w, 400) ? op | LOCK_NB : op;
}

static void on_opened(struct process *p, const struct answer *a)
{
    static const int expected[] = {ESTALE, 0};
    if (a->error != 0) {
        if (!is_of(a->error, expected))
            unexpected(p, "open", a->error);
        if (p->ino != 0)
            forget(p, p->ino);
        return;
    }
    if (p->ino == 0)
        p->ino = a->entry.ino;
    p->fi = a->fi;
    if (!p->killed)
        do_flock(p, some_flock(p->mount->site.world));
}

static void on_looked_flock(struct process *p, const struct answer *a)
{
    static const int expected[] = {ENOENT, 0};
    char name[16];
    if (p->killed && a->error == 0) {
        forget(p, a->entry.ino);
    } else if (p->killed) {
        return;
    } else if (a->error == 0) {
        p->ino = a->entry.ino;
        new_file(p, O_RDWR);
        struct fuse_file_info fi = p->fi;
        ops_open(call(p, "open", on_opened), p->ino, &fi);
    } else if (a->error == ENOENT) {
        p->ino = 0;
        new_file(p, O_CREAT | O_RDWR);
        struct fuse_file_info fi = p->fi;
        ops_create(call(p, "open", on_opened), INODE_ROOT, name_of(p, name), 0644, &fi);
    } else if (!is_of(a->error, expected)) {
        unexpected(p, "lookup", a->error);
    }
}

static void flock_act(struct process *p, bool quiet)
{
    struct world *w = p->mount->site.world;
    uint64_t what = quiet ? 0 : world_below(w, 1000);
    if (what < 150)
        do_close(p);
    else if (what < 300)
        do_flock(p, LOCK_UN);
    else if (what < 450)
        ops_fsync(call(p, "fsync", on_probed), p->ino, 0, &p->fi);
    else if (what < 550)
        do_flock(p, some_flock(w));
    else if (what < 600)
        ops_read(call(p, "read", on_read), p->ino, 4096, 0, &p->fi);
}

/* ---- Processes --------------------------------------------------------------------------- */

static void on_looked(struct process *p, const struct answer *a)
{
    static const int expected[] = {ENOENT, 0};
    if (a->error == 0)
        forget(p, a->entry.ino);
    else if (!is_of(a->error, expected))
        unexpected(p, "stat", a->error);
}

static void begin(struct process *p)
{
    struct mount *m = p->mount;
    struct world *w = m->site.world;
    char name[16];
    p->path = (unsigned)world_below(w, m->n_paths);
    p->giving_up = true;
    uint64_t what = world_below(w, 100);
    void (*then)(struct process *, const struct answer *) = what < 45   ? on_looked_excl
                                                            : what < 90 ? on_looked_flock
                                                                        : on_looked;
    ops_lookup(call(p, "lookup", then), INODE_ROOT, name_of(p, name));
}

static void check_answered(struct process *p)
{
    struct mount *m = p->mount;
    uint64_t due_ns = p->due_ns > m->awake_ns ? p->due_ns : m->awake_ns;
    if (p->request != NULL && p->due_ns != UINT64_MAX && now_ns(m) > due_ns + SLACK_NS)
        world_fail(m->site.world, "process %u.%u: a call does not return", m->site.number, p->slot);
}

static void disturb(struct process *p)
{
    struct mount *m = p->mount;
    struct world *w = m->site.world;
    if (world_chance(w, 30)) {
        m->counts.interrupts++;
        kernel_interrupt(p->request);
    } else if (world_chance(w, 15) && !world_is_healed(w)) {
        world_trace(w, "process %u.%u is killed", m->site.number, p->slot);
        m->counts.kills++;
        p->killed = true;
        p->giving_up = true;
        kernel_interrupt(p->request);
    }
}

static void process_act(struct process *p)
{
    struct mount *m = p->mount;
    struct world *w = m->site.world;
    bool quiet = world_is_healed(w) && world_healed_ns(w) + QUIET_NS < world_now_ns(w);
    if (!world_is_healed(w) && p->state != IDLE && world_chance(w, 15)) {
        m->counts.kills++;
        world_trace(w, "process %u.%u is killed", m->site.number, p->slot);
        p->killed = true;
        process_exit(p);
    } else if (p->state == LEASE) {
        lease_act(p, quiet);
    } else if (p->state == FLOCK) {
        flock_act(p, quiet);
    } else if (!quiet) {
        begin(p);
    }
}

/* ---- The daemon -------------------------------------------------------------------------- */

static void start(struct mount *m);

/* Behind the client's end: what fs/ has in memory goes, and a new daemon comes. */
static void on_restart(struct call *c)
{
    struct mount *m = c->arg;
    site_enter(&m->site);
    if (!m->ending)
        start(m);
}

static void on_freed(struct call *c)
{
    struct mount *m = c->arg;
    site_enter(&m->site);
    fs_deinit(&m->fs);
    while (!LIST_EMPTY(&m->kernel.requests)) { /* The daemon ended before it answered. */
        fuse_req_t r = LIST_FIRST(&m->kernel.requests);
        LIST_REMOVE(r, link);
        free(r);
    }
    m->fs_open = false;
    if (!m->ending)
        world_call(m->site.world, world_between(m->site.world, NS_PER_MS, 500 * NS_PER_MS),
                   on_restart, m);
}

static void on_client_gone(void *arg)
{
    struct mount *m = arg;
    world_call(m->site.world, NS_PER_MS, on_freed, m); /* Answers on their way come before. */
}

static void kill_daemon(struct mount *m)
{
    struct client *c = m->client;
    world_trace(m->site.world, "mount %u: the daemon dies", m->site.number);
    m->counts.daemon_kills++;
    kernel_abort(&m->kernel);
    for (unsigned i = 0; i < MOUNT_PROCESSES; i++) { /* ENOTCONN, whatever they do. */
        struct process *p = &m->processes[i];
        p->request = NULL;
        p->fi.fh = 0;
        p->state = IDLE;
        p->killed = false;
        p->pid = ++m->last_pid;
    }
    m->mounted = false;
    m->client = NULL;
    fs_close(&m->fs);
    client_abandon(c, on_client_gone, m);
}

static void on_root(void *arg, const struct client_reply *reply)
{
    struct mount *m = arg;
    if (m->client == NULL)
        return;
    if (reply->status != 0 || reply->query->n_nodes == 0) {
        kill_daemon(m); /* "mount failed"; it is tried again. */
        return;
    }
    attr_update_directory(inode_get(&m->fs.inodes, INODE_ROOT), reply->query->nodes[0], 0);
    m->mounted = true;
}

/* As daemon.c has it. */
static void on_session(void *arg, enum client_session_event event)
{
    struct mount *m = arg;
    world_trace(m->site.world, "mount %u session event %d", m->site.number, (int)event);
    if (m->client == NULL)
        return;
    if (event == CLIENT_SESSION_OPENED && m->had_session)
        fs_on_gap(&m->fs);
    m->had_session = true;
    fs_on_session(&m->fs, event);
    for (unsigned i = 0; i < MOUNT_PROCESSES && event == CLIENT_SESSION_RESUMED; i++)
        believe(&m->processes[i]);
}

static void on_event(void *arg, const Hf__Event *event)
{
    struct mount *m = arg;
    fs_on_event(&m->fs, event);
}

static void on_gap(void *arg)
{
    struct mount *m = arg;
    if (m->client == NULL)
        return;
    fs_on_gap(&m->fs);
    follow_on_gap(&m->fs.follow);
}

static void on_watch(void *arg, uint64_t version, uint64_t index)
{
    struct mount *m = arg;
    follow_on_watch(&m->fs.follow, version, index);
}

static void start(struct mount *m)
{
    struct world *w = m->site.world;
    char addresses[64] = "", host[16];
    for (unsigned i = 0; i < world_n_nodes(w); i++)
        (void)snprintf(addresses + strlen(addresses), sizeof addresses - strlen(addresses),
                       "%sn%u:2", i == 0 ? "" : ",", i + 1);
    (void)snprintf(host, sizeof host, "host%u", m->site.number);
    world_trace(w, "mount %u starts", m->site.number);
    m->had_session = false;
    kernel_set_current(&m->kernel);
    fs_init(&m->fs, &m->site.loop, &m->options, "", "/locks", host);
    m->fs.namer.nonce = (uint32_t)world_below(w, UINT32_MAX);
    m->fs_open = true;
    struct client_config config = {
        .loop = &m->site.loop,
        .clock = &m->site.clock.clock,
        .seed = world_below(w, UINT64_MAX - 1) + 1,
        .addresses = addresses,
        .agent = "sim",
        .host = host,
        .session_ttl_ms = m->options.session_ttl_ms,
        .connect_timeout_ms = 300,
        .events_session = true,
        .on_session = on_session,
        .on_event = on_event,
        .on_gap = on_gap,
        .on_watch = on_watch,
        .arg = m,
    };
    Hf__Query query = HF__QUERY__INIT;
    query.what = HF__QUERY__WHAT__SHOW;
    query.brief = true;
    if (client_new(&config, &m->client) < 0) {
        world_fail(w, "mount %u can't make a client", m->site.number);
        return;
    }
    fs_set_client(&m->fs, m->client);
    if (client_query(m->client, &query, 5000, false, on_root, m) < 0)
        world_fail(w, "mount %u: client_query fails", m->site.number);
}

/* ---- For the world ----------------------------------------------------------------------- */

void mount_think(struct mount *m, unsigned process)
{
    struct world *w = m->site.world;
    struct process *p = &m->processes[process];
    if (!m->mounted)
        return;
    site_enter(&m->site);
    check_answered(p);
    believe(p);
    if (process == 0 && !world_is_healed(w) && world_chance(w, 4)) {
        kill_daemon(m);
    } else if (process == 0 && !world_is_healed(w) && world_chance(w, 8)) {
        uint64_t ns = world_between(w, 10 * NS_PER_MS, 2500 * NS_PER_MS);
        world_trace(w, "mount %u stops for %.3f s", m->site.number, (double)ns / 1e9);
        m->asleep_ns = world_now_ns(w) + ns;
        m->awake_ns =
            clock_local_ns(m->asleep_ns, m->site.clock.drift_ppm, m->site.clock.offset_ns);
    } else if (p->request != NULL) {
        disturb(p);
    } else {
        process_act(p);
    }
}

uint64_t mount_asleep_ns(const struct mount *m)
{
    return m->asleep_ns;
}

struct mount_counts mount_counts(const struct mount *m)
{
    return m->counts;
}

struct mount *mount_new(struct world *w, unsigned number, unsigned n_paths)
{
    struct mount *m = xcalloc(1, sizeof *m);
    site_init(&m->site, w, number);
    m->n_paths = n_paths;
    m->options.ttl_ms = world_between(w, 150, 1500);
    m->options.session_ttl_ms = world_between(w, 800, 3000);
    m->options.timeout_ms = world_between(w, 300, 3000);
    m->options.dircache_ms = OPTIONS_DIRCACHE_MS;
    m->options.release_async = world_chance(w, 300);
    m->kernel = (struct kernel){
        .site = &m->site, .fs = &m->fs, .is_alive = is_alive, .parent = parent_of, .arg = m};
    LIST_INIT(&m->kernel.requests);
    for (unsigned i = 0; i < MOUNT_PROCESSES; i++) {
        struct process *p = &m->processes[i];
        *p = (struct process){.mount = m, .slot = i};
        p->shell = ++m->last_pid;
        p->pid = ++m->last_pid;
    }
    site_enter(&m->site);
    start(m);
    return m;
}

void mount_stop(struct mount *m)
{
    m->ending = true;
    m->asleep_ns = 0;
    site_enter(&m->site);
    if (m->client != NULL)
        kill_daemon(m);
}

void mount_free(struct mount *m)
{
    free(m);
}

struct leak_search {
    struct mount *mount;
    const struct lock_table *table;
};

/* Nothing is kept for this daemon by its session that no locker knows of. */
static bool visit_hold(void *arg, const struct lock_hold_view *v)
{
    struct leak_search *s = arg;
    struct mount *m = s->mount;
    if (v->ttl_ms == 0 && owner_is_of(&m->fs.namer, v->owner))
        world_fail(m->site.world, "mount %u: the cluster keeps token %llu of owner %.*s",
                   m->site.number, (unsigned long long)v->token, (int)v->owner.size,
                   (const char *)v->owner.data);
    return true;
}

static bool visit_node(void *arg, const struct lock_node_view *node)
{
    struct leak_search *s = arg;
    lock_node_holds(s->table, node, visit_hold, s);
    return true;
}

void mount_check_end(struct mount *m, const struct lock_table *t)
{
    struct leak_search s = {m, t};
    if (!m->mounted)
        world_fail(m->site.world, "mount %u is not there in the end", m->site.number);
    for (unsigned i = 0; i < MOUNT_PROCESSES; i++) {
        const struct process *p = &m->processes[i];
        if (p->request != NULL || p->state != IDLE)
            world_fail(m->site.world, "process %u.%u still %s in the end", m->site.number, i,
                       p->request != NULL ? "waits" : "holds a lock");
    }
    lock_list_prefix(t, bytes_str(""), bytes_str(""), visit_node, NULL, &s);
}
