/* raftstore/client/boot_alarm.h in virtual time, in the place of boot_alarm.c. */
#include "raftstore/client/boot_alarm.h"

#include "tests/sim/cable.h"
#include "tests/sim/site.h"

#include <stdlib.h>

/* Behind boot_alarm.poll.data. */
struct sim_alarm {
    struct boot_alarm *alarm; /* NULL = closed. */
    struct site *site;
    uint64_t newest; /* Only this call counts. */
    unsigned n_refs;
};

static void alarm_unref(struct sim_alarm *s)
{
    if (--s->n_refs == 0)
        free(s);
}

int boot_alarm_init(struct boot_alarm *a, uv_loop_t *loop, void (*on_alarm)(void *arg), void *arg)
{
    struct sim_alarm *s = xcalloc(1, sizeof *s);
    *a = (struct boot_alarm){.fd = -1, .on_alarm = on_alarm, .arg = arg};
    *s = (struct sim_alarm){.alarm = a, .site = loop->data, .n_refs = 1};
    a->poll.data = s;
    return 0;
}

static void on_due(struct call *c)
{
    struct sim_alarm *s = c->arg;
    struct world *w = s->site->world;
    uint64_t asleep_ns = world_app_asleep_ns(w, s->site->number), now_ns = world_now_ns(w);
    if (s->alarm != NULL && s->newest == c->order) {
        if (asleep_ns > now_ns) {
            s->newest = world_call(w, asleep_ns - now_ns, on_due, s)->order;
            return;
        }
        site_enter(s->site);
        s->alarm->on_alarm(s->alarm->arg);
    }
    alarm_unref(s);
}

void boot_alarm_set(struct boot_alarm *a, uint64_t left_ns)
{
    struct sim_alarm *s = a->poll.data;
    struct world *w = s->site->world;
    uint64_t late_ns = world_below(w, NS_PER_MS / 5); /* A kernel wakes nobody too early. */
    s->n_refs++;
    s->newest =
        world_call(w, sim_clock_delay_ns(&s->site->clock, left_ns) + late_ns, on_due, s)->order;
}

static void on_close(struct call *c)
{
    struct boot_alarm *a = c->arg;
    struct sim_alarm *s = a->poll.data;
    site_enter(s->site);
    alarm_unref(s);
    a->on_closed(a->arg);
}

void boot_alarm_close(struct boot_alarm *a, void (*on_closed)(void *arg))
{
    struct sim_alarm *s = a->poll.data;
    s->alarm = NULL;
    a->on_closed = on_closed;
    world_call(s->site->world, 1000, on_close, a);
}
