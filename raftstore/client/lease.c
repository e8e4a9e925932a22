#include "raftstore/client/lease.h"

#include "raftstore/client/internal.h"

#include <stdlib.h>

#define RENEW_RETRY_MIN_MS 20

struct client_lease {
    struct client *client;
    uint8_t *path; /* Owned. */
    size_t path_bytes;
    uint64_t token;
    uint64_t ttl_ms;
    uint64_t deadline_boot_ns; /* The earlier one of `until` and `cap`; 0 = lost. */
    uint64_t until_boot_ns;    /* By the newest news of it. */
    uint64_t stamp_ns;         /* Cluster time of the renewal that gave it; 0 = the grant. */
    uint64_t cap_boot_ns;      /* Announced renewals may let it end then; 0 = none. */
    unsigned n_announced;      /* Those under way. */
    bool later;                /* The only one under way was sent when ends_doubt() held. */
    bool doubt;                /* Of one it is not known whether and when it is done. */
    uint64_t n_doubts;         /* So many times. */
    bool keep;
    struct renewal *renewal; /* Under way; NULL = none. */
    struct boot_timer end;   /* At the deadline. */
    struct boot_timer renew; /* Next renewal. */
    void (*on_lost)(void *arg, struct client_lease *l, uint32_t reason);
    void *arg;
};

/* A renewal under way outlives a lease that is freed meanwhile. */
struct renewal {
    struct client_lease *lease; /* NULL once that is gone or lost. */
    struct client *client;
    bool ends_doubt;   /* Its success does, ... */
    uint64_t n_doubts; /* ... if there was none since. */
    uint64_t token;
    uint8_t *path; /* Owned, from the moment that the lease is lost; else NULL. */
    size_t path_bytes;
};

static void renewal_free(struct renewal *n)
{
    free(n->path);
    free(n);
}

/* Nobody relies on the hold any more, and a renewal may have succeeded after that was so. */
static void give_back(struct client *c, struct bytes path, uint64_t token)
{
    Hf__Command command = HF__COMMAND__INIT;
    ProtobufCBinaryData packed = pack_binary(path);
    command.op = WIRE_OP_RELEASE;
    command.flags = WIRE_F_ANYWHERE;
    command.paths = &packed;
    command.n_paths = 1;
    command.token = token;
    /* Refused (closing, full): then it ends at its deadline. */
    (void)client_command(c, &command, CLIENT_NO_TIMEOUT, NULL, NULL, NULL);
}

static void lose(struct client_lease *l, uint32_t reason)
{
    if (l->deadline_boot_ns == 0)
        return;
    l->deadline_boot_ns = 0;
    boot_timer_stop(&l->client->timers, &l->end);
    boot_timer_stop(&l->client->timers, &l->renew);
    if (l->renewal != NULL) {
        l->renewal->lease = NULL;
        l->renewal->path = xmemdup(l->path, l->path_bytes);
        l->renewal->path_bytes = l->path_bytes;
    }
    l->renewal = NULL;
    if (l->doubt && reason == WIRE_CODE_EXPIRED)
        give_back(l->client, bytes_of(l->path, l->path_bytes), l->token);
    l->on_lost(l->arg, l, reason);
}

static void on_end(struct boot_timer *t)
{
    struct client_lease *l = t->arg;
    if (clock_boot_ns(l->client->config.clock) >= l->deadline_boot_ns)
        lose(l, WIRE_CODE_EXPIRED);
    else
        boot_timer_set(&l->client->timers, t, l->deadline_boot_ns);
}

static void plan(struct client_lease *l, uint64_t in_ms)
{
    if (l->keep && l->deadline_boot_ns != 0 && l->renewal == NULL)
        boot_timer_set(&l->client->timers, &l->renew, client_after_ms(l->client, in_ms));
    else
        boot_timer_stop(&l->client->timers, &l->renew);
}

static uint64_t retry_ms(const struct client_lease *l)
{
    uint64_t ms = l->ttl_ms / 20;
    return ms > RENEW_RETRY_MIN_MS ? ms : RENEW_RETRY_MIN_MS;
}

/* Several renewals may fall into one instant: which was the last is not known, so the earliest end
 * counts, unless they say the same. */
static bool
is_old(const struct client_lease *l, uint64_t stamp_ns, uint64_t ttl_ms, uint64_t deadline_boot_ns)
{
    if (stamp_ns == 0 || stamp_ns > l->stamp_ns)
        return false;
    bool same = stamp_ns == l->stamp_ns && ttl_ms == l->ttl_ms;
    return stamp_ns < l->stamp_ns ||
           (same ? deadline_boot_ns < l->until_boot_ns : deadline_boot_ns > l->until_boot_ns);
}

static void set_deadline(struct client_lease *l)
{
    bool capped = l->cap_boot_ns != 0 && l->cap_boot_ns < l->until_boot_ns;
    l->deadline_boot_ns = capped ? l->cap_boot_ns : l->until_boot_ns;
    boot_timer_set(&l->client->timers, &l->end, l->deadline_boot_ns);
}

static void
extend(struct client_lease *l, uint64_t stamp_ns, uint64_t ttl_ms, uint64_t deadline_boot_ns)
{
    if (is_old(l, stamp_ns, ttl_ms, deadline_boot_ns)) {
        plan(l, l->ttl_ms / 3);
        return;
    }
    if (stamp_ns != 0)
        l->stamp_ns = stamp_ns;
    l->ttl_ms = ttl_ms;
    l->until_boot_ns = deadline_boot_ns;
    set_deadline(l);
    plan(l, ttl_ms / 3);
}

/* Is a command that is given from now on done after the doubtful ones, if these are done at all?
 * It is when none of them is still repeated: then its outcome is known to the client's commands,
 * though nobody was told. */
static bool ends_doubt(const struct client_lease *l)
{
    return !l->doubt || l->client->commands.n_lost_renewals == 0;
}

/* The newest news is of after all that was announced. */
static void uncap(struct client_lease *l)
{
    l->doubt = false;
    if (l->n_announced > 0 || l->cap_boot_ns == 0 || l->deadline_boot_ns == 0)
        return;
    l->cap_boot_ns = 0;
    set_deadline(l);
}

static void on_renewed(void *arg, const struct client_result *r)
{
    struct renewal *n = arg;
    struct client_lease *l = n->lease;
    bool was_later = n->ends_doubt && l != NULL && n->n_doubts == l->n_doubts;
    if (n->path != NULL && r->status == 0 && r->result->code == WIRE_CODE_OK)
        give_back(n->client, bytes_of(n->path, n->path_bytes), n->token);
    renewal_free(n);
    if (l == NULL)
        return;
    l->renewal = NULL;
    if (r->status != 0) {
        plan(l, retry_ms(l));
        return;
    }
    switch (r->result->code) {
    case WIRE_CODE_OK:
        extend(l, r->result->stamp_ns, r->result->ttl_ms, r->deadline_boot_ns);
        if (was_later)
            uncap(l);
        else if (l->doubt)
            plan(l, retry_ms(l));
        break;
    case WIRE_CODE_NOT_HELD:
    case WIRE_CODE_NOT_OWNER:
    case WIRE_CODE_INVALID:
        lose(l, r->result->code);
        break;
    default: /* Our session ended (the lease did not), a bound, ...: try again. */
        plan(l, retry_ms(l));
        break;
    }
}

static void on_renew(struct boot_timer *t)
{
    struct client_lease *l = t->arg;
    struct renewal *n = xcalloc(1, sizeof *n);
    Hf__Command command = HF__COMMAND__INIT;
    ProtobufCBinaryData path = {l->path_bytes, l->path};
    command.op = WIRE_OP_RENEW;
    command.flags = WIRE_F_ANYWHERE; /* It may be renamed just now. */
    command.paths = &path;
    command.n_paths = 1;
    command.token = l->token;
    n->lease = l;
    n->client = l->client;
    n->ends_doubt = ends_doubt(l);
    n->n_doubts = l->n_doubts;
    n->token = l->token;
    /* A third of the ttl is left when two renewals have failed. */
    uint64_t timeout_ms = l->ttl_ms / 3 > RENEW_RETRY_MIN_MS ? l->ttl_ms / 3 : RENEW_RETRY_MIN_MS;
    if (client_command(l->client, &command, timeout_ms, on_renewed, n, NULL) < 0) {
        renewal_free(n);
        plan(l, retry_ms(l));
        return;
    }
    l->renewal = n;
}

struct client_lease *
client_lease_new(struct client *c,
                 struct bytes path,
                 uint64_t token,
                 uint64_t ttl_ms,
                 uint64_t deadline_boot_ns,
                 bool keep,
                 void (*on_lost)(void *arg, struct client_lease *l, uint32_t reason),
                 void *arg)
{
    struct client_lease *l = xcalloc(1, sizeof *l);
    l->client = c;
    l->path = xmemdup(path.data, path.size);
    l->path_bytes = path.size;
    l->token = token;
    l->keep = keep;
    l->on_lost = on_lost;
    l->arg = arg;
    l->end = (struct boot_timer){.cb = on_end, .arg = l};
    l->renew = (struct boot_timer){.cb = on_renew, .arg = l};
    extend(l, 0, ttl_ms, deadline_boot_ns != 0 ? deadline_boot_ns : 1);
    return l;
}

void client_lease_free(struct client_lease *l)
{
    if (l == NULL)
        return;
    boot_timer_stop(&l->client->timers, &l->end);
    boot_timer_stop(&l->client->timers, &l->renew);
    if (l->renewal != NULL)
        l->renewal->lease = NULL;
    free(l->path);
    free(l);
}

void client_lease_keep(struct client_lease *l, bool keep)
{
    l->keep = keep;
    plan(l, 0);
}

void client_lease_renewed(struct client_lease *l,
                          uint64_t stamp_ns,
                          uint64_t ttl_ms,
                          uint64_t deadline_boot_ns)
{
    if (l->deadline_boot_ns != 0 && deadline_boot_ns != 0)
        extend(l, stamp_ns, ttl_ms, deadline_boot_ns);
}

void client_lease_shorten(struct client_lease *l, uint64_t ttl_ms)
{
    /* As of a grant at this instant. */
    struct deadline_pair now = {clock_boot_ns(l->client->config.clock), 1};
    uint64_t ttl_ns, end_ns;
    l->later = l->n_announced++ == 0 && ends_doubt(l);
    if (__builtin_mul_overflow(ttl_ms, NS_PER_MS, &ttl_ns) ||
        __builtin_add_overflow(ttl_ns, now.stamp_ns, &end_ns) || l->deadline_boot_ns == 0)
        return;
    uint64_t cap = deadline_boot_ns(&now, end_ns);
    if (l->cap_boot_ns == 0 || cap < l->cap_boot_ns)
        l->cap_boot_ns = cap;
    set_deadline(l);
}

void client_lease_shortened(struct client_lease *l, enum client_lease_outcome outcome)
{
    l->n_announced--;
    if (outcome == CLIENT_LEASE_UNKNOWN) {
        l->doubt = true;
        l->n_doubts++;
        plan(l, retry_ms(l));
    } else if (!l->doubt || (outcome == CLIENT_LEASE_RENEWED && l->later)) {
        uncap(l);
    }
}

void client_lease_moved(struct client_lease *l, struct bytes path)
{
    free(l->path);
    l->path = xmemdup(path.data, path.size);
    l->path_bytes = path.size;
}

uint64_t client_lease_stamp_ns(const struct client_lease *l)
{
    return l->stamp_ns;
}

void client_lease_ended(struct client_lease *l, uint32_t reason)
{
    lose(l, reason);
}

uint64_t client_lease_jeopardy_boot_ns(const struct client_lease *l)
{
    uint64_t half_ns = l->ttl_ms < UINT64_MAX / NS_PER_MS ? l->ttl_ms * NS_PER_MS / 2 : UINT64_MAX;
    return l->deadline_boot_ns > half_ns ? l->deadline_boot_ns - half_ns : 0;
}

uint64_t client_lease_deadline_boot_ns(const struct client_lease *l)
{
    return l->deadline_boot_ns;
}
