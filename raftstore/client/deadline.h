/* From cluster time to this machine's CLOCK_BOOTTIME: the arithmetic of client.h, "Deadlines".
 * Pure. */
#ifndef HOLDFAST_CLIENT_DEADLINE_H
#define HOLDFAST_CLIENT_DEADLINE_H

#include <stdint.h>

/* An answer with cluster time stamp_ns was to a request first sent at sent_boot_ns or later. */
struct deadline_pair {
    uint64_t sent_boot_ns;
    uint64_t stamp_ns; /* 0 = no pair yet. */
};

/* Take the new pair if it says more than the kept one.
 *
 * A pair promises, for a deadline D, sent + (D - stamp) * 127/128 - 5 ms; so of two pairs the one
 * with the greater sent - stamp * 127/128 is better for every D. */
void deadline_learn(struct deadline_pair *best, uint64_t sent_boot_ns, uint64_t stamp_ns);

/* The boot time until which a hold that ends at deadline_ns can surely be relied on.
 *
 * Return: 0 when there is no pair or no deadline; 1 (long past) when it was over at the stamp;
 *         saturates at UINT64_MAX. */
uint64_t deadline_boot_ns(const struct deadline_pair *pair, uint64_t deadline_ns);

#endif
