#include "auth/jwks_source.h"

#include "auth/jwks_fetch.h"
#include "raftstore/base/buf.h"
#include "raftstore/base/log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

LIST_HEAD(waiters, jwks_waiter);

struct jwks_source {
    uv_loop_t *loop;
    struct jwks_source_config config; /* With the defaults put in; texts owned. */
    struct jwks *keys;                /* NULL = none yet. */
    uint64_t generation;
    uint64_t confirmed_ns; /* When the last good fetch began (monotonic). */
    uint64_t asked_ns;     /* When a token last made us fetch; */
    bool asked;            /* if one ever did. */
    struct waiters waiters;
    uv_timer_t timer; /* The next fetch. */
    uv_work_t work;
    bool fetches; /* `work` is under way: fields below are the worker's. */
    bool again;   /* Another fetch was asked for meanwhile. */
    bool closing;
    bool timer_closed;
    void (*closed)(void *arg);
    void *closed_arg;
    /* Of a fetch. */
    uint64_t began_ns;
    atomic_bool cancel;
    struct jwks *fetched; /* NULL = it failed, and: */
    char *sentence;       /* why; owned. */
};

static uint64_t now_ns(const struct jwks_source *s)
{
    return clock_mono_ns(s->config.clock);
}

/* Fetch and parse; on the pool's thread, or before the loop runs. */
static void fetch(struct jwks_source *s)
{
    struct buf document = BUF_INIT;
    const char *wrong = NULL;
    int result = jwks_fetch(s->config.location, s->config.ca_file, s->config.timeout_ms, &s->cancel,
                            &document, &s->sentence);
    if (result == 0 && jwks_parse(bytes_of(document.data, document.size), &s->fetched, &wrong) < 0)
        s->sentence = xstrdup(wrong);
    buf_deinit(&document);
}

/* Take over what a fetch brought. */
static void take(struct jwks_source *s)
{
    const char *location = log_quote(bytes_str(s->config.location));
    if (s->fetched == NULL) {
        if (!s->closing)
            LOG_WARN("keys could not be refreshed", "from=%s why=%s keys=%s", location,
                     log_quote(bytes_str(s->sentence)),
                     jwks_source_keys(s) != NULL ? "\"the last ones\"" : "none");
        free(s->sentence);
        s->sentence = NULL;
        return;
    }
    s->confirmed_ns = s->began_ns;
    if (s->keys != NULL && jwks_equal(s->keys, s->fetched)) {
        jwks_free(s->fetched);
        s->fetched = NULL;
        return;
    }
    LOG_INFO(s->keys == NULL ? "keys fetched" : "keys changed", "from=%s usable=%zu skipped=%zu",
             location, jwks_n_usable(s->fetched), jwks_n_skipped(s->fetched));
    jwks_free(s->keys);
    s->keys = s->fetched;
    s->fetched = NULL;
    s->generation++;
}

static void begin_fetch(struct jwks_source *s);

static void on_timer(uv_timer_t *timer)
{
    begin_fetch(timer->data);
}

/* A set that was just confirmed is looked after at leisure, else soon. */
static void arm(struct jwks_source *s, bool good)
{
    uint64_t ms = good ? s->config.refresh_ms : s->config.refetch_min_ms;
    uv_update_time(s->loop);
    (void)uv_timer_start(&s->timer, on_timer, ms, 0); /* Fails only when closing. */
}

static void on_work(uv_work_t *work)
{
    fetch(work->data);
}

static void free_source(struct jwks_source *s)
{
    jwks_free(s->keys);
    jwks_free(s->fetched);
    free((char *)(uintptr_t)s->config.location);
    free((char *)(uintptr_t)s->config.ca_file);
    free(s->sentence);
    free(s);
}

static void finish_close(struct jwks_source *s)
{
    if (!s->timer_closed || s->fetches)
        return;
    void (*closed)(void *) = s->closed;
    void *arg = s->closed_arg;
    free_source(s);
    closed(arg);
}

/* Only those who wait now, first come first served: one who asks again in its answer belongs to the
 * next fetch. */
static void wake(struct jwks_source *s)
{
    struct waiters now = LIST_HEAD_INITIALIZER(now);
    struct jwks_waiter *w;
    while ((w = LIST_FIRST(&s->waiters)) != NULL) {
        LIST_REMOVE(w, entry);
        LIST_INSERT_HEAD(&now, w, entry);
    }
    while ((w = LIST_FIRST(&now)) != NULL) {
        LIST_REMOVE(w, entry);
        w->waits = false;
        w->fn(w);
    }
}

static void on_worked(uv_work_t *work, int status)
{
    struct jwks_source *s = work->data;
    (void)status; /* Never cancelled by uv_cancel(). */
    bool good = s->fetched != NULL;
    s->fetches = false;
    take(s);
    if (s->closing) {
        finish_close(s);
        return;
    }
    arm(s, good);
    wake(s);
    if (s->again && !s->closing)
        begin_fetch(s);
}

static void begin_fetch(struct jwks_source *s)
{
    s->again = s->fetches;
    if (s->fetches)
        return;
    s->fetches = true;
    s->began_ns = now_ns(s);
    (void)uv_timer_stop(&s->timer); /* Never fails. */
    s->work.data = s;
    int result = uv_queue_work(s->loop, &s->work, on_work, on_worked);
    assert(result == 0); /* It has no other failure than a missing function. */
}

static struct jwks_source *make(uv_loop_t *loop, const struct jwks_source_config *config)
{
    bool url = jwks_location_is_url(config->location);
    struct jwks_source *s = xcalloc(1, sizeof *s);
    struct jwks_source_config *c = &s->config;
    s->loop = loop;
    *c = *config;
    c->location = xstrdup(config->location);
    c->ca_file = config->ca_file != NULL ? xstrdup(config->ca_file) : NULL;
    if (c->refresh_ms == 0)
        c->refresh_ms = url ? 300000 : 10000;
    if (c->refetch_min_ms == 0)
        c->refetch_min_ms = url ? 10000 : 1000;
    if (c->stale_max_ms == 0)
        c->stale_max_ms = UINT64_C(24) * 3600 * 1000;
    if (c->timeout_ms == 0)
        c->timeout_ms = 10000;
    LIST_INIT(&s->waiters);
    return s;
}

int jwks_source_open(uv_loop_t *loop,
                     const struct jwks_source_config *config,
                     struct jwks_source **ret_source,
                     char **ret_sentence)
{
    const char *wrong = NULL;
    if (jwks_location_check(config->location, &wrong) < 0) {
        *ret_sentence = xstrdup(wrong);
        return -EINVAL;
    }
    jwks_fetch_init();
    struct jwks_source *s = make(loop, config);
    s->began_ns = now_ns(s);
    fetch(s);
    bool good = s->fetched != NULL;
    if (!good && !jwks_location_is_url(config->location)) {
        *ret_sentence = s->sentence;
        s->sentence = NULL;
        free_source(s);
        return -EINVAL;
    }
    (void)uv_timer_init(loop, &s->timer); /* Never fails. */
    s->timer.data = s;
    take(s);
    arm(s, good);
    *ret_source = s;
    return 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct jwks_source *s = handle->data;
    s->timer_closed = true;
    finish_close(s);
}

void jwks_source_close(struct jwks_source *source, void (*closed)(void *arg), void *arg)
{
    source->closing = true;
    source->closed = closed;
    source->closed_arg = arg;
    atomic_store(&source->cancel, true);
    wake(source);
    uv_close((uv_handle_t *)&source->timer, on_timer_closed);
}

const struct jwks *jwks_source_keys(const struct jwks_source *source)
{
    uint64_t age_ns = now_ns(source) - source->confirmed_ns;
    bool fresh = source->keys != NULL && age_ns / NS_PER_MS <= source->config.stale_max_ms;
    return fresh ? source->keys : NULL;
}

uint64_t jwks_source_generation(const struct jwks_source *source)
{
    return source->generation;
}

bool jwks_source_may_refetch(const struct jwks_source *source)
{
    uint64_t interval_ns = source->config.refetch_min_ms * NS_PER_MS;
    bool due = !source->asked || now_ns(source) - source->asked_ns >= interval_ns;
    return !source->closing && (source->fetches || due);
}

bool jwks_source_refetch(struct jwks_source *source, struct jwks_waiter *waiter)
{
    assert(!waiter->waits);
    if (!jwks_source_may_refetch(source))
        return false;
    if (!source->fetches) {
        source->asked = true;
        source->asked_ns = now_ns(source);
        begin_fetch(source);
    }
    waiter->waits = true;
    LIST_INSERT_HEAD(&source->waiters, waiter, entry);
    return true;
}

void jwks_waiter_cancel(struct jwks_waiter *waiter)
{
    if (!waiter->waits)
        return;
    waiter->waits = false;
    LIST_REMOVE(waiter, entry);
}

void jwks_source_reload(struct jwks_source *source)
{
    if (!source->closing)
        begin_fetch(source);
}
