#include "telemetry/span.h"

#include "raftstore/base/buf.h"
#include "raftstore/base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct spans {
    double ratio;
    unsigned max;
    struct random random;   /* The caller's thread's, like the next two. */
    int64_t wall_offset_ns; /* Wall clock minus monotonic clock. */
    uint64_t measured_ns;   /* When it was; monotonic; 0 = never. */
    pthread_mutex_t mutex;  /* Guards all below. */
    pthread_cond_t cond;    /* There are enough, or spans_wake(). */
    struct span_list queue;
    unsigned n;
    unsigned wanted; /* The exporter sleeps until so many are there; 0: it does not. */
    bool woken;
    struct spans_counts counts;
};

struct spans *spans_new(double ratio, unsigned max)
{
    struct spans *s = xcalloc(1, sizeof *s);
    pthread_condattr_t attributes;
    s->ratio = ratio;
    s->max = max != 0 ? max : SPANS_MAX;
    s->random.state = random_system();
    TAILQ_INIT(&s->queue);
    (void)pthread_mutex_init(&s->mutex, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&s->cond, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    return s;
}

void span_free(struct span *span)
{
    for (unsigned i = 0; i < span->n_attributes; i++)
        free(span->attributes[i].text);
    free(span);
}

void spans_free(struct spans *s)
{
    struct span *span;
    if (s == NULL)
        return;
    while ((span = TAILQ_FIRST(&s->queue)) != NULL) {
        TAILQ_REMOVE(&s->queue, span, link);
        span_free(span);
    }
    (void)pthread_cond_destroy(&s->cond);
    (void)pthread_mutex_destroy(&s->mutex);
    free(s);
}

/* ---- Time ------------------------------------------------------------------------------ */

#define MEASURE_NS NS_PER_S
#define SET_NS     (NS_PER_MS) /* A difference above that: the wall clock was set, or has drifted. */

static uint64_t mono_now_ns(void)
{
    return clock_mono_ns(clock_system());
}

/* The two clocks can't be read at one instant: take the pair that was read closest together. */
static int64_t measure_offset(void)
{
    uint64_t best_ns = UINT64_MAX;
    int64_t offset = 0;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t before = mono_now_ns(), wall = clock_wall_ns(clock_system());
        uint64_t after = mono_now_ns();
        if (after - before >= best_ns)
            continue;
        best_ns = after - before;
        offset = (int64_t)(wall - (before + best_ns / 2));
    }
    return offset;
}

/* So long as nobody sets the wall clock the offset stays exactly the same, so that a child never
 * seems to begin before its parent. */
static uint64_t wall_of(struct spans *s, uint64_t mono_ns)
{
    if (s->measured_ns == 0 || mono_ns - s->measured_ns > MEASURE_NS) {
        int64_t offset = measure_offset();
        if (s->measured_ns == 0 || llabs(offset - s->wall_offset_ns) > (int64_t)SET_NS)
            s->wall_offset_ns = offset;
        s->measured_ns = mono_ns;
    }
    return mono_ns + (uint64_t)s->wall_offset_ns;
}

/* ---- One ------------------------------------------------------------------------------- */

/* A root is recorded by chance; its ids decide. */
static bool begin_root(struct spans *s, struct trace_context *ret)
{
    if (s->ratio <= 0)
        return false;
    trace_begin(&s->random, true, ret);
    return trace_is_chosen(ret, s->ratio);
}

struct span *span_begin(struct spans *spans,
                        const char *name,
                        enum span_kind kind,
                        const struct trace_context *parent,
                        bool is_remote)
{
    struct trace_context context;
    if (spans == NULL || (parent != NULL && !trace_is_sampled(parent)))
        return NULL;
    if (parent == NULL && !begin_root(spans, &context))
        return NULL;
    struct span *span = xcalloc(1, sizeof *span);
    span->spans = spans;
    span->name = name;
    span->kind = kind;
    if (parent != NULL) {
        trace_copy(&span->context, parent);
        memcpy(span->parent_id, parent->span_id, sizeof span->parent_id);
        trace_new_span_id(&spans->random, span->context.span_id);
        span->has_parent = true;
        span->parent_is_remote = is_remote;
    } else {
        trace_copy(&span->context, &context);
    }
    span->begin_mono_ns = mono_now_ns();
    span->begin_wall_ns = wall_of(spans, span->begin_mono_ns);
    return span;
}

const struct trace_context *span_context(const struct span *span,
                                         const struct trace_context *parent)
{
    return span != NULL ? &span->context : parent;
}

static struct span_attribute *attribute_new(struct span *span, const char *key)
{
    if (span->n_attributes == SPAN_ATTRIBUTES_MAX)
        return NULL;
    struct span_attribute *a = &span->attributes[span->n_attributes++];
    *a = (struct span_attribute){.key = key};
    return a;
}

void span_text(struct span *span, const char *key, struct bytes value)
{
    struct span_attribute *a = span != NULL && value.size > 0 ? attribute_new(span, key) : NULL;
    if (a == NULL)
        return;
    size_t size = value.size < SPAN_TEXT_BYTES_MAX ? value.size : SPAN_TEXT_BYTES_MAX;
    a->text = xmalloc(size + 1);
    memcpy(a->text, value.data, size);
    a->text[size] = '\0';
}

void span_number(struct span *span, const char *key, int64_t value)
{
    struct span_attribute *a = span != NULL ? attribute_new(span, key) : NULL;
    if (a != NULL)
        a->number = value;
}

/* The wall clock may be set while the span lasts: only its beginning is read from it. */
static uint64_t wall_now_ns(const struct span *span)
{
    return span->begin_wall_ns + (mono_now_ns() - span->begin_mono_ns);
}

void span_event(struct span *span, const char *name, const char *key, int64_t number)
{
    if (span == NULL || span->n_events == SPAN_EVENTS_MAX)
        return;
    span->events[span->n_events++] = (struct span_event){
        .name = name, .wall_ns = wall_now_ns(span), .key = key, .number = number};
}

void span_set_status(struct span *span, enum span_status status, const char *text)
{
    if (span == NULL)
        return;
    span->status = status;
    (void)snprintf(span->status_text, sizeof span->status_text, "%s", text != NULL ? text : "");
}

void span_end(struct span *span)
{
    if (span == NULL)
        return;
    struct spans *s = span->spans;
    span->end_wall_ns = wall_now_ns(span);
    (void)pthread_mutex_lock(&s->mutex);
    bool full = s->n >= s->max;
    s->counts.ended++;
    if (full) {
        s->counts.dropped++;
    } else {
        TAILQ_INSERT_TAIL(&s->queue, span, link);
        s->n++;
    }
    if (s->wanted != 0 && s->n >= s->wanted) {
        s->wanted = 0;
        (void)pthread_cond_signal(&s->cond);
    }
    (void)pthread_mutex_unlock(&s->mutex);
    if (full)
        span_free(span);
}

/* ---- The exporter's side --------------------------------------------------------------- */

unsigned spans_take(
    struct spans *s, struct span_list *ret, unsigned max, unsigned enough, uint64_t until_mono_ns)
{
    struct timespec until = {(time_t)(until_mono_ns / NS_PER_S), (long)(until_mono_ns % NS_PER_S)};
    unsigned n = 0;
    TAILQ_INIT(ret);
    (void)pthread_mutex_lock(&s->mutex);
    while (s->n < enough && !s->woken) {
        s->wanted = enough;
        if (pthread_cond_timedwait(&s->cond, &s->mutex, &until) == ETIMEDOUT)
            break;
    }
    s->wanted = 0;
    s->woken = false;
    for (; n < max && s->n > 0; n++, s->n--) {
        struct span *span = TAILQ_FIRST(&s->queue);
        TAILQ_REMOVE(&s->queue, span, link);
        TAILQ_INSERT_TAIL(ret, span, link);
    }
    (void)pthread_mutex_unlock(&s->mutex);
    return n;
}

void spans_wake(struct spans *s)
{
    (void)pthread_mutex_lock(&s->mutex);
    s->woken = true;
    (void)pthread_cond_signal(&s->cond);
    (void)pthread_mutex_unlock(&s->mutex);
}

struct spans_counts spans_counts(struct spans *s)
{
    struct spans_counts counts = {0};
    if (s == NULL)
        return counts;
    (void)pthread_mutex_lock(&s->mutex);
    counts = s->counts;
    counts.waiting = s->n;
    (void)pthread_mutex_unlock(&s->mutex);
    return counts;
}

void spans_count(struct spans *s, uint64_t exported, uint64_t dropped)
{
    (void)pthread_mutex_lock(&s->mutex);
    s->counts.exported += exported;
    s->counts.dropped += dropped;
    (void)pthread_mutex_unlock(&s->mutex);
}
