/* How much a client may repeat.
 *
 * When a cluster fails, everything that is repeated comes on top of what is asked anew, and many
 * clients that do so keep it down.  So a client repeats at most a share of what it asks, beside a
 * small floor: in each span of RETRY_BUDGET_SPAN_NS no more than
 *
 *     requests of that span * percent / 100 + floor
 *
 * (Finagle's RetryBudget with its windowed token bucket; gRPC's retry throttling is like it.)
 *
 * Pure: no clock.  Instants are nanoseconds of one clock; one that is earlier than the last counts
 * as the last.  The span moves in steps of a tenth. */
#ifndef HOLDFAST_CLIENT_RETRY_BUDGET_H
#define HOLDFAST_CLIENT_RETRY_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#define RETRY_BUDGET_SPAN_NS UINT64_C(10000000000)
#define RETRY_BUDGET_SLICES  10u

struct retry_budget {
    unsigned percent;
    unsigned floor;      /* In a span. */
    uint64_t slice;      /* Number of the newest one. */
    uint64_t n_requests; /* Of the span. */
    uint64_t n_retries;  /* Likewise. */
    uint64_t requests[RETRY_BUDGET_SLICES];
    uint64_t retries[RETRY_BUDGET_SLICES];
    uint64_t n_refused; /* Since it was made. */
};

void retry_budget_init(struct retry_budget *b, unsigned percent, unsigned floor);

/* Something was asked for the first time. */
void retry_budget_request(struct retry_budget *b, uint64_t now_ns);

/* May something be repeated now?  Return: true: it is counted; false: not now (counted as
 * refused). */
bool retry_budget_take(struct retry_budget *b, uint64_t now_ns);

/* Something is repeated whatever the budget says: others will repeat less. */
void retry_budget_charge(struct retry_budget *b, uint64_t now_ns);

/* How many would be granted now. */
uint64_t retry_budget_left(struct retry_budget *b, uint64_t now_ns);

#endif
