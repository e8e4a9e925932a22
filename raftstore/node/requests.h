/* Requests in flight: a slab of slots, so that a request costs no allocation.
 *
 * A request's number is its slot and the slot's generation; a number that is over is recognised.
 */
#ifndef HOLDFAST_NODE_REQUESTS_H
#define HOLDFAST_NODE_REQUESTS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct span;
struct trace_context;

enum request_kind { REQUEST_COMMAND = 1, REQUEST_QUERY, REQUEST_ADMIN, REQUEST_KINDS };

struct request {
    LIST_ENTRY(request) link; /* Of its connection. */
    void *owner;              /* The connection; NULL when that is gone. */
    uint64_t frame_id;        /* The client's number of it. */
    uint64_t begin_ns;
    void *body;    /* Owned. QUERY: itself; ADMIN: its audit pairs; COMMAND: who asked, once he is
                      gone. */
    uint32_t size; /* Of body. */
    struct trace_context *trace; /* Owned; NULL = none, or nobody wants to know. */
    struct span *span;           /* Owned; NULL: not recorded. */
    uint32_t slot;
    uint32_t generation; /* Odd while in use. */
    uint32_t next_free;  /* Slot number + 1; 0 = none. */
    enum request_kind kind;
    unsigned what; /* See request_stats.h. */
};

LIST_HEAD(request_list, request);

struct requests {
    struct request **blocks; /* Owned; each of REQUESTS_BLOCK slots, never moved. */
    uint32_t n_blocks;
    uint32_t first_free; /* Slot number + 1; 0 = none. */
    uint32_t n_used;
};

/* Take a slot. */
struct request *request_new(struct requests *rs, enum request_kind kind);

/* The number by which the replica knows it. */
uint64_t request_id(const struct request *r);

/* Return: NULL when that number is over. */
struct request *request_find(const struct requests *rs, uint64_t id);

/* Give the slot back (and free body); it must be out of its connection's list. */
void request_free(struct requests *rs, struct request *r);

/* Free all memory. */
void requests_deinit(struct requests *rs);

#endif
