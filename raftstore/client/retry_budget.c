#include "raftstore/client/retry_budget.h"

#define SLICE_NS (RETRY_BUDGET_SPAN_NS / RETRY_BUDGET_SLICES)

void retry_budget_init(struct retry_budget *b, unsigned percent, unsigned floor)
{
    *b = (struct retry_budget){.percent = percent, .floor = floor};
}

/* Move on to the slice of now, and forget those that fall out of the span.  Return: its place. */
static unsigned move_on(struct retry_budget *b, uint64_t now_ns)
{
    uint64_t slice = now_ns / SLICE_NS;
    for (unsigned i = 0; b->slice < slice && i < RETRY_BUDGET_SLICES; i++) {
        unsigned at = (unsigned)(++b->slice % RETRY_BUDGET_SLICES);
        b->n_requests -= b->requests[at];
        b->n_retries -= b->retries[at];
        b->requests[at] = b->retries[at] = 0;
    }
    if (b->slice < slice)
        b->slice = slice; /* A long pause: all of them are empty. */
    return (unsigned)(b->slice % RETRY_BUDGET_SLICES);
}

void retry_budget_request(struct retry_budget *b, uint64_t now_ns)
{
    b->requests[move_on(b, now_ns)]++;
    b->n_requests++;
}

void retry_budget_charge(struct retry_budget *b, uint64_t now_ns)
{
    b->retries[move_on(b, now_ns)]++;
    b->n_retries++;
}

uint64_t retry_budget_left(struct retry_budget *b, uint64_t now_ns)
{
    (void)move_on(b, now_ns);
    uint64_t all = b->n_requests * b->percent / 100 + b->floor;
    return all > b->n_retries ? all - b->n_retries : 0;
}

bool retry_budget_take(struct retry_budget *b, uint64_t now_ns)
{
    if (retry_budget_left(b, now_ns) == 0) {
        b->n_refused++;
        return false;
    }
    retry_budget_charge(b, now_ns);
    return true;
}
