#include "tests/sim/site.h"

#include "tests/sim/cable.h"

#include <assert.h>
#include <stdlib.h>

/* A libuv timer that is set. */
struct site_timer {
    LIST_ENTRY(site_timer) link;
    uv_timer_t *timer;
    uv_timer_cb cb;
    struct site *site;
    uint64_t due_ns; /* Own clock. */
    uint64_t order;  /* Of the call that counts. */
};

static struct site *current;

void site_init(struct site *s, struct world *w, unsigned number)
{
    *s = (struct site){.world = w, .number = number};
    s->loop.data = s;
    LIST_INIT(&s->timers);
    sim_clock_init(&s->clock, w, (int64_t)world_below(w, 6001) - 3000,
                   world_below(w, 1000000) * NS_PER_MS);
}

void site_enter(struct site *s)
{
    current = s;
}

struct site *site_current(void)
{
    assert(current != NULL);
    return current;
}

/* ---- In the place of raftstore/base/clock.c ---------------------------------------------- */

const struct clock *clock_system(void)
{
    return &site_current()->clock.clock;
}

/* ---- In the place of libuv --------------------------------------------------------------- */

static uint64_t now_ns(const struct site *s)
{
    return clock_mono_ns(&s->clock.clock);
}

uint64_t uv_now(const uv_loop_t *loop)
{
    return now_ns(loop->data) / NS_PER_MS;
}

static struct site_timer *find(const uv_timer_t *t)
{
    struct site *s = t->loop->data;
    struct site_timer *i;
    LIST_FOREACH(i, &s->timers, link)
    {
        if (i->timer == t)
            return i;
    }
    return NULL;
}

static void drop(struct site_timer *i)
{
    LIST_REMOVE(i, link);
    free(i);
}

int uv_timer_init(uv_loop_t *loop, uv_timer_t *t)
{
    t->loop = loop;
    t->type = UV_TIMER;
    return 0;
}

int uv_timer_stop(uv_timer_t *t)
{
    struct site_timer *i = find(t);
    if (i != NULL)
        drop(i);
    return 0;
}

static void on_due(struct call *c)
{
    struct site *s = c->arg;
    uint64_t asleep_ns = world_app_asleep_ns(s->world, s->number);
    struct site_timer *i;
    LIST_FOREACH(i, &s->timers, link)
    {
        if (i->order == c->order)
            break;
    }
    if (i == NULL)
        return; /* Stopped, or set anew. */
    if (asleep_ns > world_now_ns(s->world)) {
        i->order = world_call(s->world, asleep_ns - world_now_ns(s->world), on_due, s)->order;
        return;
    }
    uv_timer_t *t = i->timer;
    uv_timer_cb cb = i->cb;
    drop(i);
    site_enter(s);
    cb(t);
}

int uv_timer_start(uv_timer_t *t, uv_timer_cb cb, uint64_t timeout_ms, uint64_t repeat_ms)
{
    struct site *s = t->loop->data;
    struct site_timer *i = find(t);
    assert(repeat_ms == 0); /* Nobody here repeats. */
    if (i == NULL) {
        i = xcalloc(1, sizeof *i);
        LIST_INSERT_HEAD(&s->timers, i, link);
    }
    *i = (struct site_timer){.link = i->link,
                             .timer = t,
                             .cb = cb,
                             .site = s,
                             .due_ns = now_ns(s) + timeout_ms * NS_PER_MS};
    uint64_t late_ns = world_below(s->world, NS_PER_MS); /* Its clock counts milliseconds. */
    i->order = world_call(s->world, sim_clock_delay_ns(&s->clock, timeout_ms * NS_PER_MS) + late_ns,
                          on_due, s)
                   ->order;
    return 0;
}

int uv_is_active(const uv_handle_t *h)
{
    assert(h->type == UV_TIMER);
    return find((const uv_timer_t *)h) != NULL;
}

uint64_t uv_timer_get_due_in(const uv_timer_t *t)
{
    const struct site_timer *i = find(t);
    uint64_t now = now_ns(t->loop->data);
    return i != NULL && i->due_ns > now ? (i->due_ns - now) / NS_PER_MS : 0;
}

static void on_closed(struct call *c)
{
    uv_handle_t *h = c->arg;
    site_enter(h->loop->data);
    h->close_cb(h);
}

void uv_close(uv_handle_t *h, uv_close_cb cb)
{
    struct site *s = h->loop->data;
    assert(h->type == UV_TIMER);
    (void)uv_timer_stop((uv_timer_t *)h);
    h->close_cb = cb;
    if (cb != NULL)
        world_call(s->world, 1000, on_closed, h);
}
