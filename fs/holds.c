#include "fs/holds.h"

#include "raftstore/base/buf.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/codes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

/* A process that holds are kept for. */
struct keeper {
    uint64_t key[2]; /* Pid and start time of the process. */
    struct hold_table *table;
    int pidfd;
    uv_poll_t poll;         /* Readable: it has ended. */
    struct hold_list holds; /* Kept for it. */
    UT_hash_handle hh;
};

void holds_init(struct hold_table *t,
                uv_loop_t *loop,
                struct process_table *processes,
                void (*on_keeper_gone)(void *arg, struct hold *h),
                void *arg)
{
    *t = (struct hold_table){
        .loop = loop,
        .processes = processes,
        .on_keeper_gone = on_keeper_gone,
        .arg = arg,
    };
    TAILQ_INIT(&t->ended);
}

static void on_keeper_closed(uv_handle_t *handle)
{
    struct keeper *k = handle->data;
    (void)close(k->pidfd);
    free(k);
}

static void keeper_close(struct keeper *k)
{
    HASH_DEL(k->table->keepers, k);
    uv_close((uv_handle_t *)&k->poll, on_keeper_closed);
}

static void hold_unkeep(struct hold *h)
{
    struct keeper *k = h->keeper;
    if (k == NULL)
        return;
    h->keeper = NULL;
    TAILQ_REMOVE(&k->holds, h, in_keeper);
    if (TAILQ_EMPTY(&k->holds))
        keeper_close(k);
}

static struct hold_path *path_get(struct hold_table *t, const char *path)
{
    struct hold_path *at;
    HASH_FIND_STR(t->by_path, path, at);
    if (at == NULL) {
        at = xcalloc(1, sizeof *at);
        at->path = xstrdup(path);
        TAILQ_INIT(&at->holds);
        HASH_ADD_KEYPTR(hh, t->by_path, at->path, strlen(at->path), at);
    }
    return at;
}

/* Out of its path's list, which goes with the last one. */
static void path_leave(struct hold *h)
{
    struct hold_path *at = h->at;
    TAILQ_REMOVE(&at->holds, h, in_path);
    h->at = NULL;
    if (!TAILQ_EMPTY(&at->holds))
        return;
    HASH_DEL(h->table->by_path, at);
    free(at->path);
    free(at);
}

static void hold_free(struct hold *h)
{
    struct hold_table *t = h->table;
    hold_unkeep(h);
    client_lease_free(h->lease);
    HASH_DEL(t->by_token, h);
    path_leave(h);
    if (h->remembered) {
        TAILQ_REMOVE(&t->ended, h, in_ended);
        t->n_ended--;
    }
    free(h->heirs);
    free(h);
}

void holds_close(struct hold_table *t)
{
    struct hold *h, *next;
    t->closed = true;
    HASH_ITER(hh, t->by_token, h, next)
    {
        holds_ended(h, false);
    }
}

void holds_deinit(struct hold_table *t)
{
    struct hold *h, *next;
    HASH_ITER(hh, t->by_token, h, next)
    {
        hold_free(h);
    }
}

/* Forget the oldest ended holds beyond the bound. */
static void forget_ended(struct hold_table *t)
{
    while (t->n_ended > HOLDS_ENDED_MAX)
        hold_free(TAILQ_FIRST(&t->ended));
}

/* An ended hold that nobody refers to: remembered if it was lost, else gone. */
static void hold_retire(struct hold *h)
{
    struct hold_table *t = h->table;
    if (!h->lost) {
        hold_free(h);
        return;
    }
    h->remembered = true;
    TAILQ_INSERT_TAIL(&t->ended, h, in_ended);
    t->n_ended++;
    forget_ended(t);
}

static void on_lost(void *arg, struct client_lease *lease, uint32_t reason)
{
    struct hold *h = arg;
    (void)lease;
    LOG_INFO("hold lost", "path=%s token=%" PRIu64 " reason=%s kept=%d",
             log_quote(bytes_str(h->at->path)), h->token, wire_code_name(reason),
             h->keeper != NULL);
    holds_ended(h, h->state == HOLD_LIVE);
}

/* An exclusive grant says that all earlier ones at the path are over, told or not. */
static void end_earlier(const struct hold *newest)
{
    struct hold *h, *next;
    for (h = TAILQ_FIRST(&newest->at->holds); h != newest; h = next) {
        next = TAILQ_NEXT(h, in_path);
        if (h->token > newest->token)
            continue; /* The "new" one was only unknown here. */
        if (h->state == HOLD_LIVE)
            LOG_INFO("hold lost", "path=%s token=%" PRIu64 " reason=granted-anew",
                     log_quote(bytes_str(h->at->path)), h->token);
        holds_ended(h, h->state == HOLD_LIVE);
    }
}

struct hold *holds_add(struct hold_table *t,
                       const char *path,
                       uint64_t token,
                       uid_t uid,
                       const struct lineage *lineage,
                       uint64_t ttl_ms,
                       uint64_t deadline_boot_ns)
{
    struct hold *h = xcalloc(1, sizeof *h);
    h->token = token;
    h->table = t;
    h->at = path_get(t, path);
    h->uid = uid;
    h->n_refs = 1;
    h->n_heirs = lineage->n_heirs;
    if (h->n_heirs > 0)
        h->heirs = xmemdup(lineage->ids, h->n_heirs * sizeof h->heirs[0]);
    HASH_ADD(hh, t->by_token, token, sizeof h->token, h);
    TAILQ_INSERT_TAIL(&h->at->holds, h, in_path);
    end_earlier(h);
    if (t->closed) {
        h->state = HOLD_ENDED;
        return h;
    }
    t->n_live++;
    h->lease = client_lease_new(t->client, bytes_str(path), token, ttl_ms, deadline_boot_ns, false,
                                on_lost, h);
    return h;
}

struct hold *holds_find(const struct hold_table *t, uint64_t token)
{
    struct hold *h;
    HASH_FIND(hh, t->by_token, &token, sizeof token, h);
    return h;
}

bool hold_is_live(struct hold *h)
{
    if (h->state != HOLD_LIVE)
        return false;
    if (clock_boot_ns(clock_system()) < client_lease_deadline_boot_ns(h->lease))
        return true;
    hold_ref(h);
    client_lease_ended(h->lease, WIRE_CODE_EXPIRED);
    hold_unref(h);
    return false;
}

struct hold *holds_find_live(const struct hold_table *t, const char *path)
{
    struct hold_path *at;
    struct hold *h;
    HASH_FIND_STR(t->by_path, path, at);
    if (at == NULL)
        return NULL;
    TAILQ_FOREACH_REVERSE(h, &at->holds, hold_list, in_path)
    {
        if (h->state == HOLD_LIVE) /* At most one is: its end may free it, and its path. */
            return hold_is_live(h) ? h : NULL;
    }
    return NULL;
}

bool holds_authorised(struct hold_table *t,
                      const struct hold *h,
                      uid_t uid,
                      const struct lineage *caller)
{
    return uid == h->uid && heirs_authorise(t->processes, h->heirs, h->n_heirs, caller);
}

bool holds_remembered(struct hold_table *t,
                      const char *path,
                      uid_t uid,
                      const struct lineage *caller)
{
    struct hold_path *at;
    struct hold *h;
    unsigned n_looked_at = 0; /* Each may cost a look into /proc. */
    HASH_FIND_STR(t->by_path, path, at);
    if (at == NULL)
        return false;
    TAILQ_FOREACH_REVERSE(h, &at->holds, hold_list, in_path)
    {
        if (n_looked_at++ == 16)
            return false;
        if (h->state == HOLD_ENDED && h->lost && holds_authorised(t, h, uid, caller))
            return true;
    }
    return false;
}

void holds_renewed(struct hold *h, uint64_t stamp_ns, uint64_t ttl_ms, uint64_t deadline_boot_ns)
{
    if (h->lease != NULL)
        client_lease_renewed(h->lease, stamp_ns, ttl_ms, deadline_boot_ns);
}

void holds_releasing(struct hold *h)
{
    if (h->state != HOLD_LIVE)
        return;
    h->state = HOLD_RELEASING;
    h->table->n_live--;
}

void holds_not_released(struct hold *h)
{
    if (h->state != HOLD_RELEASING)
        return;
    h->state = HOLD_LIVE; /* Its lease tells when it is over. */
    h->table->n_live++;
}

bool holds_moved(struct hold *h, const char *path, uint64_t index, bool event)
{
    if (index < h->moved_index || (index == h->moved_index && !event))
        return false;
    h->moved_index = index;
    if (strcmp(h->at->path, path) == 0)
        return false;
    char *copy = xstrdup(path); /* It may lie in what goes now. */
    path_leave(h);
    h->at = path_get(h->table, copy);
    TAILQ_INSERT_TAIL(&h->at->holds, h, in_path);
    if (h->lease != NULL)
        client_lease_moved(h->lease, bytes_str(copy));
    free(copy);
    return true;
}

bool holds_shorten(struct hold *h, uint64_t ttl_ms)
{
    if (h->state != HOLD_LIVE)
        return false;
    client_lease_shorten(h->lease, ttl_ms);
    return true;
}

void holds_shortened(struct hold *h, enum client_lease_outcome outcome)
{
    if (h->lease != NULL) /* Else it has ended. */
        client_lease_shortened(h->lease, outcome);
}

void holds_ended(struct hold *h, bool lost)
{
    if (h->state == HOLD_ENDED)
        return;
    h->table->n_live -= h->state == HOLD_LIVE;
    h->state = HOLD_ENDED;
    h->lost = lost;
    if (lost && h->table->on_lost != NULL)
        h->table->on_lost(h->table->arg, h);
    hold_unkeep(h);
    client_lease_free(h->lease);
    h->lease = NULL;
    if (h->n_refs == 0)
        hold_retire(h);
}

static void on_process_ended(uv_poll_t *poll, int status, int events)
{
    struct keeper *k = poll->data;
    struct hold *h;
    (void)status; /* Readable or broken: either way there is nobody to renew for. */
    (void)events;
    while ((h = TAILQ_FIRST(&k->holds)) != NULL) {
        bool last = TAILQ_NEXT(h, in_keeper) == NULL;
        hold_unkeep(h);
        client_lease_keep(h->lease, false);
        h->table->on_keeper_gone(h->table->arg, h);
        if (last) /* The keeper is closing. */
            return;
    }
}

static int keeper_get(struct hold_table *t, struct process_id process, struct keeper **ret)
{
    struct keeper *k;
    uint64_t key[2] = {process.pid, process.start};
    HASH_FIND(hh, t->keepers, key, sizeof key, k);
    if (k == NULL) {
        int fd = process_open_pidfd(process);
        if (fd < 0)
            return fd;
        k = xcalloc(1, sizeof *k);
        int r = uv_poll_init(t->loop, &k->poll, fd);
        if (r < 0) {
            (void)close(fd);
            free(k);
            return r;
        }
        memcpy(k->key, key, sizeof key);
        k->table = t;
        k->pidfd = fd;
        k->poll.data = k;
        TAILQ_INIT(&k->holds);
        HASH_ADD(hh, t->keepers, key, sizeof k->key, k);
        r = uv_poll_start(&k->poll, UV_READABLE, on_process_ended);
        if (r < 0) {
            keeper_close(k);
            return r;
        }
    }
    *ret = k;
    return 0;
}

int holds_keep(struct hold *h, struct process_id process)
{
    struct keeper *k;
    int r = keeper_get(h->table, process, &k);
    if (r < 0)
        return r;
    if (h->keeper == k)
        return 0;
    TAILQ_INSERT_TAIL(&k->holds, h, in_keeper);
    struct keeper *old = h->keeper;
    h->keeper = k;
    if (old != NULL) {
        TAILQ_REMOVE(&old->holds, h, in_keeper);
        if (TAILQ_EMPTY(&old->holds))
            keeper_close(old);
    }
    client_lease_keep(h->lease, true);
    return 0;
}

struct process_id holds_heir(struct hold_table *t, const struct hold *h)
{
    return heirs_living(t->processes, h->heirs, h->n_heirs);
}

void hold_ref(struct hold *h)
{
    if (h->remembered) {
        h->remembered = false;
        TAILQ_REMOVE(&h->table->ended, h, in_ended);
        h->table->n_ended--;
    }
    h->n_refs++;
}

void hold_unref(struct hold *h)
{
    h->n_refs--;
    if (h->n_refs == 0 && h->state == HOLD_ENDED)
        hold_retire(h);
}
