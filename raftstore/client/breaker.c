#include "raftstore/client/breaker.h"

const char *const breaker_state_names[BREAKER_STATES] = {
    [BREAKER_CLOSED] = "closed",
    [BREAKER_OPEN] = "open",
    [BREAKER_HALF_OPEN] = "half-open",
};

static uint64_t later(uint64_t ns, uint64_t by_ns)
{
    uint64_t sum;
    return __builtin_add_overflow(ns, by_ns, &sum) ? UINT64_MAX : sum;
}

/* Doubled `times` times, at most max_ns, half of it random. */
static uint64_t pause_ns(uint64_t ns, uint64_t max_ns, unsigned times, uint64_t random)
{
    for (; times > 0 && ns < max_ns; times--)
        ns = ns > max_ns / 2 ? max_ns : ns * 2;
    if (ns > max_ns)
        ns = max_ns;
    return ns / 2 + random % (ns / 2 + 1);
}

uint64_t breaker_due_ns(const struct breaker *b, uint64_t pause_max_ns)
{
    if (b->state == BREAKER_HALF_OPEN)
        return UINT64_MAX;
    uint64_t latest = later(b->since_ns, pause_max_ns);
    return b->until_ns < latest ? b->until_ns : latest;
}

bool breaker_allows(const struct breaker *b, uint64_t now_ns, uint64_t pause_max_ns)
{
    return b->state != BREAKER_HALF_OPEN && now_ns >= breaker_due_ns(b, pause_max_ns);
}

void breaker_begin(struct breaker *b)
{
    if (b->state == BREAKER_OPEN)
        b->state = BREAKER_HALF_OPEN;
}

void breaker_abandon(struct breaker *b)
{
    if (b->state == BREAKER_HALF_OPEN)
        b->state = BREAKER_OPEN;
}

void breaker_succeed(struct breaker *b)
{
    b->state = BREAKER_CLOSED;
    b->failures = b->n_again = 0;
    b->since_ns = b->until_ns = 0;
}

bool breaker_trip(struct breaker *b,
                  const struct breaker_rule *rule,
                  uint64_t now_ns,
                  uint64_t random)
{
    if (b->state == BREAKER_OPEN)
        return false;
    b->state = BREAKER_OPEN;
    b->since_ns = now_ns;
    b->until_ns = later(now_ns, pause_ns(rule->open_ns, rule->open_max_ns, b->n_again, random));
    b->n_again++;
    b->n_opened++;
    return true;
}

bool breaker_fail(struct breaker *b,
                  const struct breaker_rule *rule,
                  uint64_t now_ns,
                  uint64_t random)
{
    if (b->state == BREAKER_OPEN)
        return false; /* An attempt from before it opened. */
    b->failures++;
    if (b->state == BREAKER_HALF_OPEN || b->failures >= rule->failures_max)
        return breaker_trip(b, rule, now_ns, random);
    b->since_ns = now_ns;
    b->until_ns = later(now_ns, pause_ns(rule->retry_ns, rule->open_ns, b->failures - 1, random));
    return false;
}

static bool is_better(const struct breaker *a, const struct breaker *b)
{
    if (a->state != b->state)
        return a->state == BREAKER_CLOSED;
    if (a->n_again != b->n_again)
        return a->n_again < b->n_again;
    if (a->failures != b->failures)
        return a->failures < b->failures;
    return a->since_ns < b->since_ns;
}

size_t breaker_best(const struct breaker *const list[], size_t n)
{
    size_t best = n;
    for (size_t i = 0; i < n; i++) {
        if (list[i] == NULL || list[i]->state == BREAKER_HALF_OPEN)
            continue;
        if (best == n || is_better(list[i], list[best]))
            best = i;
    }
    return best;
}
