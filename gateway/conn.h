/* Connections: their phases, limits and suspension; shared by server.c and conn.c only. */
#ifndef HOLDFAST_GATEWAY_CONN_H
#define HOLDFAST_GATEWAY_CONN_H

#include "gateway/server.h"

#include <bsd/sys/queue.h>
#include <microhttpd.h>

enum phase { PHASE_FRESH, PHASE_IDLE, PHASE_BODY, PHASE_WORKING, PHASE_ANSWERING, PHASES };

struct conn {
    TAILQ_ENTRY(conn) link; /* In conns.by_phase, oldest first. */
    struct conns *conns;
    struct MHD_Connection *mhd;
    struct call *call; /* From its head to its end; NULL between two. */
    uv_poll_t poll;    /* For the hang-up; set up when first needed. */
    int fd;
    uint8_t peer[16]; /* The client's network, for limits: its IPv4 address or IPv6 /64. */
    enum phase phase;
    uint64_t since_ms; /* Loop time at which the phase began. */
    bool has_poll;
    bool polling;
    bool suspended;
    bool shut;
};
TAILQ_HEAD(conn_list, conn);

struct conns {
    uv_loop_t *loop;
    struct metrics *metrics;
    struct conn_list by_phase[PHASES];
    unsigned n;
    unsigned n_max;
    bool draining;              /* Those that get idle are shut. */
    void (*on_work)(void *arg); /* MHD has something to do. */
    void *arg;
};

void conns_init(struct conns *cs, uv_loop_t *loop, struct metrics *metrics, unsigned n_max);

/* A connection was accepted; makes room if need be. NULL: it could not be set up. */
struct conn *conn_open(struct conns *cs, struct MHD_Connection *mhd);

/* MHD is about to close it. */
void conn_closed(struct conn *c);

void conn_phase(struct conn *c, enum phase phase);

/* Shut those over their limit; call it every second or so. */
void conns_sweep(struct conns *cs);

/* Shut all of a phase. */
void conns_shut(struct conns *cs, enum phase phase);

#endif
