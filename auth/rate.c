#include "auth/rate.h"

#include "auth/siphash.h"
#include "raftstore/base/buf.h"
#include "raftstore/base/clock.h"
#include "raftstore/base/duration.h"
#include "raftstore/base/random.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Entries are named by position + 1; 0 = none. */
struct entry {
    uint64_t hash;    /* Of the key. */
    uint64_t full_ns; /* When its bucket is full again. */
    uint32_t chain;   /* Next of the same slot. */
    uint32_t older;   /* Towards the one used longest ago. */
    uint32_t newer;   /* */
};

struct rate_table {
    uint64_t step_ns;      /* One token's time to come. */
    uint64_t burst;        /* */
    uint64_t secret[2];    /* Of the hash. */
    struct entry *entries; /* keys_max; those from n_entries on were never used. */
    uint32_t *slots;       /* slots_mask + 1; first of each chain. */
    uint32_t slots_mask;   /* */
    uint32_t n_entries;    /* */
    uint32_t keys_max;     /* */
    uint32_t newest;       /* */
    uint32_t oldest;       /* */
};

static int parse_period(const char *text, size_t size, uint64_t *ret_ns)
{
    if (size == 0 || (size == 2 && memcmp(text, "/s", 2) == 0))
        *ret_ns = NS_PER_S;
    else if (size == 2 && memcmp(text, "/m", 2) == 0)
        *ret_ns = 60 * NS_PER_S;
    else if (size == 2 && memcmp(text, "/h", 2) == 0)
        *ret_ns = 3600 * NS_PER_S;
    else
        return -EINVAL;
    return 0;
}

int rate_limit_parse(const char *text, struct rate_limit *ret_limit)
{
    struct rate_limit limit = {0};
    size_t n_digits = strspn(text, "0123456789");
    const char *colon = strchr(text, ':');
    size_t n_rate = colon != NULL ? (size_t)(colon - text) : strlen(text);
    if (n_digits > n_rate || number_parse(bytes_of(text, n_digits), &limit.number) < 0 ||
        parse_period(text + n_digits, n_rate - n_digits, &limit.period_ns) < 0)
        return -EINVAL;
    uint64_t period_s = limit.period_ns / NS_PER_S;
    if (limit.number == 0 || limit.number > RATE_PER_S_MAX * period_s)
        return -EINVAL;
    limit.burst = limit.number / period_s > 0 ? limit.number / period_s : 1;
    if (colon != NULL && number_parse(bytes_str(colon + 1), &limit.burst) < 0)
        return -EINVAL;
    if (limit.burst == 0 || limit.burst > RATE_BURST_MAX)
        return -EINVAL;
    *ret_limit = limit;
    return 0;
}

struct rate_table *rate_table_new(const struct rate_limit *limit, size_t keys_max)
{
    assert(limit->number > 0 && limit->burst > 0 && keys_max > 0 && keys_max < UINT32_MAX / 2);
    struct rate_table *t = xcalloc(1, sizeof *t);
    uint32_t n_slots = 16;
    while (n_slots < keys_max)
        n_slots *= 2;
    t->step_ns = limit->period_ns / limit->number;
    t->burst = limit->burst;
    t->secret[0] = random_system();
    t->secret[1] = random_system();
    t->entries = xcalloc(keys_max, sizeof *t->entries);
    t->slots = xcalloc(n_slots, sizeof *t->slots);
    t->slots_mask = n_slots - 1;
    t->keys_max = (uint32_t)keys_max;
    return t;
}

void rate_table_free(struct rate_table *table)
{
    if (table == NULL)
        return;
    free(table->entries);
    free(table->slots);
    free(table);
}

size_t rate_table_n_keys(const struct rate_table *table)
{
    return table->n_entries;
}

static struct entry *entry_at(const struct rate_table *t, uint32_t name)
{
    return &t->entries[name - 1];
}

static void unlink_use(struct rate_table *t, uint32_t name)
{
    struct entry *e = entry_at(t, name);
    *(e->newer != 0 ? &entry_at(t, e->newer)->older : &t->newest) = e->older;
    *(e->older != 0 ? &entry_at(t, e->older)->newer : &t->oldest) = e->newer;
}

static void link_newest(struct rate_table *t, uint32_t name)
{
    struct entry *e = entry_at(t, name);
    e->newer = 0;
    e->older = t->newest;
    *(t->newest != 0 ? &entry_at(t, t->newest)->newer : &t->oldest) = name;
    t->newest = name;
}

static void unlink_chain(struct rate_table *t, uint32_t name)
{
    uint32_t *at = &t->slots[entry_at(t, name)->hash & t->slots_mask];
    while (*at != name)
        at = &entry_at(t, *at)->chain;
    *at = entry_at(t, name)->chain;
}

/* Return: the entry's name; 0: there is none. */
static uint32_t find(const struct rate_table *t, uint64_t hash)
{
    uint32_t name = t->slots[hash & t->slots_mask];
    while (name != 0 && entry_at(t, name)->hash != hash)
        name = entry_at(t, name)->chain;
    return name;
}

/* The key's entry, made the newest; a new one is full. */
static struct entry *find_or_add(struct rate_table *t, uint64_t hash)
{
    uint32_t *slot = &t->slots[hash & t->slots_mask];
    uint32_t name = find(t, hash);
    if (name != 0) {
        unlink_use(t, name);
        link_newest(t, name);
        return entry_at(t, name);
    }
    if (t->n_entries < t->keys_max) {
        name = ++t->n_entries;
    } else {
        name = t->oldest;
        unlink_use(t, name);
        unlink_chain(t, name);
    }
    *entry_at(t, name) = (struct entry){.hash = hash, .chain = *slot};
    *slot = name;
    link_newest(t, name);
    return entry_at(t, name);
}

static uint64_t round_up_s(uint64_t ns)
{
    return (ns + NS_PER_S - 1) / NS_PER_S;
}

static struct rate_state state_of(const struct rate_table *t, uint64_t missing_ns, bool granted)
{
    uint64_t all_ns = t->step_ns * t->burst;
    return (struct rate_state){
        .limit = t->burst,
        .remaining = (all_ns - missing_ns) / t->step_ns,
        .reset_s = round_up_s(missing_ns),
        .retry_after_s = granted ? 0 : round_up_s(missing_ns + t->step_ns - all_ns),
    };
}

static uint64_t missing(const struct entry *e, uint64_t now_ns)
{
    return e->full_ns > now_ns ? e->full_ns - now_ns : 0;
}

static bool has_one(const struct rate_table *t, uint64_t missing_ns)
{
    return missing_ns + t->step_ns <= t->step_ns * t->burst;
}

bool rate_take(struct rate_table *table, struct bytes key, uint64_t now_ns, struct rate_state *ret)
{
    struct entry *e = find_or_add(table, siphash(table->secret, key));
    uint64_t missing_ns = missing(e, now_ns);
    bool granted = has_one(table, missing_ns);
    if (granted) {
        missing_ns += table->step_ns;
        e->full_ns = now_ns + missing_ns;
    }
    if (ret != NULL)
        *ret = state_of(table, missing_ns, granted);
    return granted;
}

bool rate_would_take(const struct rate_table *table,
                     struct bytes key,
                     uint64_t now_ns,
                     struct rate_state *ret)
{
    uint32_t name = find(table, siphash(table->secret, key));
    uint64_t missing_ns = name != 0 ? missing(entry_at(table, name), now_ns) : 0;
    if (has_one(table, missing_ns))
        return true;
    if (ret != NULL)
        *ret = state_of(table, missing_ns, false);
    return false;
}

const struct rate_state *rate_tighter(const struct rate_state *a, const struct rate_state *b)
{
    if (a->retry_after_s != b->retry_after_s)
        return a->retry_after_s > b->retry_after_s ? a : b;
    return b->remaining < a->remaining ? b : a;
}
