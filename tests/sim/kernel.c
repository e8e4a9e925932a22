#include "tests/sim/kernel.h"

#include "fs/control.h"
#include "fs/notifier.h"
#include "raftstore/base/buf.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Requests ---------------------------------------------------------------------------- */

fuse_req_t kernel_request(struct kernel *k,
                          uint32_t pid,
                          void (*done)(void *arg, const struct answer *a),
                          void *arg)
{
    fuse_req_t r = xcalloc(1, sizeof *r);
    r->kernel = k;
    r->ctx = (struct fuse_ctx){.pid = (pid_t)pid};
    r->done = done;
    r->arg = arg;
    LIST_INSERT_HEAD(&k->requests, r, link);
    return r;
}

void kernel_interrupt(fuse_req_t r)
{
    if (!r->answered && r->on_interrupt != NULL)
        r->on_interrupt(r, r->interrupt_arg);
}

static void request_free(fuse_req_t r)
{
    LIST_REMOVE(r, link);
    free(r);
}

void kernel_abort(struct kernel *k)
{
    fuse_req_t r;
    LIST_FOREACH(r, &k->requests, link) r->abandoned = true;
}

static void on_answer(struct call *c)
{
    fuse_req_t r = c->arg;
    struct answer a = r->answer;
    void (*done)(void *arg, const struct answer *answer) = r->abandoned ? NULL : r->done;
    void *arg = r->arg;
    struct site *site = r->kernel->site;
    request_free(r);
    site_enter(site);
    if (done != NULL)
        done(arg, &a);
}

static int answer(fuse_req_t r, int error)
{
    struct world *w = r->kernel->site->world;
    if (r->answered)
        world_fail(w, "the daemon answers a request twice");
    r->answered = true;
    r->answer.error = error;
    if (error == 0 && r->check != NULL && !r->abandoned)
        r->check(r->arg, &r->answer);
    world_call(w, world_below(w, 50000), on_answer, r);
    return 0;
}

int fuse_reply_err(fuse_req_t r, int error)
{
    return answer(r, error);
}

void fuse_reply_none(fuse_req_t r)
{
    (void)answer(r, 0);
}

int fuse_reply_entry(fuse_req_t r, const struct fuse_entry_param *e)
{
    r->answer.entry = *e;
    return answer(r, 0);
}

int fuse_reply_create(fuse_req_t r,
                      const struct fuse_entry_param *e,
                      const struct fuse_file_info *fi)
{
    r->answer.entry = *e;
    r->answer.fi = *fi;
    return answer(r, 0);
}

int fuse_reply_open(fuse_req_t r, const struct fuse_file_info *fi)
{
    r->answer.fi = *fi;
    return answer(r, 0);
}

int fuse_reply_write(fuse_req_t r, size_t size)
{
    r->answer.size = size;
    return answer(r, 0);
}

int fuse_reply_buf(fuse_req_t r, const char *data, size_t size)
{
    (void)data;
    r->answer.size = size;
    return answer(r, 0);
}

int fuse_reply_attr(fuse_req_t r, const struct stat *attr, double timeout_s)
{
    (void)attr;
    (void)timeout_s;
    return answer(r, 0);
}

int fuse_reply_lock(fuse_req_t r, const struct flock *lock)
{
    (void)lock;
    return answer(r, 0);
}

int fuse_reply_readlink(fuse_req_t r, const char *text)
{
    (void)text;
    return answer(r, 0);
}

int fuse_reply_statfs(fuse_req_t r, const struct statvfs *s)
{
    (void)s;
    return answer(r, 0);
}

int fuse_reply_xattr(fuse_req_t r, size_t size)
{
    r->answer.size = size;
    return answer(r, 0);
}

int fuse_reply_poll(fuse_req_t r, unsigned events)
{
    (void)events;
    return answer(r, 0);
}

void *fuse_req_userdata(fuse_req_t r)
{
    return r->kernel->fs;
}

const struct fuse_ctx *fuse_req_ctx(fuse_req_t r)
{
    return &r->ctx;
}

void fuse_req_interrupt_func(fuse_req_t r, fuse_interrupt_func_t func, void *data)
{
    r->on_interrupt = func;
    r->interrupt_arg = data;
}

/* Processes of the simulation don't list directories, poll, or watch. */
size_t fuse_add_direntry(
    fuse_req_t r, char *out, size_t size, const char *name, const struct stat *st, off_t off)
{
    (void)r;
    (void)out;
    (void)size;
    (void)name;
    (void)st;
    (void)off;
    abort();
}

int fuse_lowlevel_notify_poll(struct fuse_pollhandle *h)
{
    (void)h;
    abort();
}

void fuse_pollhandle_destroy(struct fuse_pollhandle *h)
{
    (void)h;
}

int fuse_lowlevel_notify_inval_inode(struct fuse_session *s, fuse_ino_t ino, off_t off, off_t len)
{
    (void)s;
    (void)ino;
    (void)off;
    (void)len;
    return 0;
}

/* ---- fs/process.h ------------------------------------------------------------------------ */

/* A process's start is its number: none is ever used again. */
struct process_table {
    struct kernel *kernel;
};

static struct kernel *kernel_new_mount;

struct process_table *process_table_new(void)
{
    struct process_table *t = xcalloc(1, sizeof *t);
    t->kernel = kernel_new_mount;
    return t;
}

void kernel_set_current(struct kernel *k)
{
    kernel_new_mount = k;
}

void process_table_free(struct process_table *t)
{
    free(t);
}

bool process_alive(struct process_table *t, struct process_id id)
{
    return id.pid != 0 && t->kernel->is_alive(t->kernel->arg, id.pid);
}

struct process_id process_of_thread(struct process_table *t, uint32_t tid)
{
    struct process_id id = {tid, tid};
    return process_alive(t, id) ? id : (struct process_id){0, 0};
}

bool process_lineage(struct process_table *t, struct process_id id, struct lineage *ret_lineage)
{
    ret_lineage->n = ret_lineage->n_heirs = 0;
    if (!process_alive(t, id))
        return false;
    uint32_t parent = t->kernel->parent(t->kernel->arg, id.pid);
    ret_lineage->ids[ret_lineage->n++] = id;
    if (parent != 0)
        ret_lineage->ids[ret_lineage->n++] = (struct process_id){parent, parent};
    ret_lineage->n_heirs = ret_lineage->n;
    return true;
}

/* Nobody here is signaled or kept for. */
int process_signal(struct process_id id, int number)
{
    (void)id;
    (void)number;
    return -ESRCH;
}

int process_open_pidfd(struct process_id id)
{
    (void)id;
    return -ESRCH;
}

/* ---- fs/notifier.h: nobody watches ------------------------------------------------------- */

struct notifier {
    void *nothing;
};

struct notifier *notifier_new(uv_loop_t *loop,
                              const char *dir,
                              void (*on_done)(void *arg, const struct notice *n),
                              void *arg)
{
    (void)loop;
    (void)dir;
    (void)on_done;
    (void)arg;
    return xcalloc(1, sizeof(struct notifier));
}

void notifier_created(
    struct notifier *n, const char *path, uint64_t number, mode_t mode, uint32_t uid)
{
    (void)n;
    (void)path;
    (void)number;
    (void)mode;
    (void)uid;
}

void notifier_deleted(struct notifier *n, const char *path, uint64_t number, mode_t mode)
{
    (void)n;
    (void)path;
    (void)number;
    (void)mode;
}

void notifier_renamed(
    struct notifier *n, const char *path, const char *to, uint64_t number, mode_t mode)
{
    (void)n;
    (void)path;
    (void)to;
    (void)number;
    (void)mode;
}

bool notifier_probe(struct notifier *n, const char *path, uint64_t number)
{
    (void)n;
    (void)path;
    (void)number;
    return false;
}

bool notifier_is_caller(const struct notifier *n, pid_t thread_id)
{
    (void)n;
    (void)thread_id;
    return false;
}

const struct notice *notifier_current(struct notifier *n)
{
    (void)n;
    return NULL;
}

const char *notifier_secret(const struct notifier *n)
{
    (void)n;
    return "";
}

struct notifier_stats notifier_stats(struct notifier *n)
{
    (void)n;
    return (struct notifier_stats){0};
}

void notifier_close(struct notifier *n)
{
    (void)n;
}

void notifier_free(struct notifier *n)
{
    free(n);
}

/* ---- fs/control.h: no `.holdfast` -------------------------------------------------------- */

struct control *control_new(struct fs *fs)
{
    (void)fs;
    return NULL;
}

void control_close(struct control *c)
{
    (void)c;
}

void control_free(struct control *c)
{
    (void)c;
}

void control_session(struct fs *fs, enum client_session_event event)
{
    (void)fs;
    (void)event;
}

void control_lease_lost(struct fs *fs, const struct hold *h)
{
    (void)fs;
    (void)h;
}

void control_lock_lost(struct fs *fs, const struct locker *l)
{
    (void)fs;
    (void)l;
}
