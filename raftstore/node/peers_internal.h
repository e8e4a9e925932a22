/* What peers.c (links, hellos) and peers_image_in.c, peers_image_out.c share. */
#ifndef HOLDFAST_NODE_PEERS_INTERNAL_H
#define HOLDFAST_NODE_PEERS_INTERNAL_H

#include "raftstore/base/random.h"
#include "raftstore/node/bind.h"
#include "raftstore/node/dial.h"
#include "raftstore/node/peers.h"
#include "raftstore/wire/pack.h"

#define PEERS_CONNECT_MS      500u
#define PEERS_HELLO_MS        2000u
#define PEERS_USER_TIMEOUT_MS 5000u
#define PEERS_HELLO_BYTES_MAX 4096u
#define PEERS_STRANGERS_MAX   256u /* First seen as no members; each is remembered for good. */
#define PEERS_STRANGERS_LINKS 8u   /* Of them linked to at once: room is left for members. */
#define PEERS_TOLD            16u
#define PEERS_TOLD_MS         10000u /* A refusal is logged again only then: dialling goes on. */

struct image_in;
struct image_out;

/* Our connection to another node: we send on it. */
struct link {
    LIST_ENTRY(link) entry;
    struct peers *peers;
    uint64_t id;
    struct address address;
    bool member;  /* In the present configuration; else learnt from a hello. */
    bool up;      /* Welcome was said. */
    bool closing; /* The timer is being closed. */
    bool told;    /* That it is unreachable was logged. */
    bool full;    /* That its queue is full was logged. */
    struct dial *dial;
    struct stream *stream;
    uv_timer_t timer; /* Next attempt, or the end of patience for the hello. */
};

/* A connection that another node dialled: we receive on it. */
struct inlink {
    LIST_ENTRY(inlink) entry;
    struct peers *peers;
    struct stream *stream;
    uint64_t id;       /* 0 until its hello. */
    uint64_t begin_ms; /* uv_now() of its accept. */
    bool image_stream;
    struct image_in *in; /* The image that arrives on it. */
};

/* A line that was logged lately. */
struct peers_told {
    uint64_t id;
    uint32_t code;
    uint64_t at_ms; /* uv_now(). */
};

struct peers {
    struct peers_config config;
    struct random random;
    struct arena arena;
    struct bind_set bind;
    uv_timer_t sweep; /* Hellos that do not come. */
    LIST_HEAD(, link) links;
    LIST_HEAD(, inlink) inlinks;
    LIST_HEAD(, image_out) images_out;
    struct image_in *image_in; /* The only one at a time. */
    unsigned n_inlinks;
    unsigned n_links;
    unsigned n_strangers;               /* First seen since start, and no members then. */
    struct peers_told told[PEERS_TOLD]; /* Ring. */
    unsigned next_told;
    unsigned n_open; /* Handles and jobs that must end before the object is freed. */
    bool closing;
    void (*closed)(void *arg);
    void *closed_arg;
};

struct link *peers_link(const struct peers *p, uint64_t id);

/* Append our hello to a stream. */
void peers_hello(const struct peers *p, struct stream *s, uint64_t to, bool image_stream);

/* Judge what the dialled side answered; logs the reason.
 * Return: 0 welcome; -EACCES refused, by them or by us. */
int peers_judge_answer(struct peers *p, uint64_t id, struct stream *s, const Hf__PeerHello *hello);

/* One handle or job less. */
void peers_unref(struct peers *p);

/* Images. */
int peers_image_chunk(struct inlink *in, const Hf__ImageChunk *chunk);
void peers_image_in_ended(struct inlink *in); /* Its connection is gone. */
bool peers_image_in_stuck(const struct inlink *in,
                          uint64_t now_ms); /* Ten seconds without a chunk. */
void peers_inlink_close(struct inlink *in);
void peers_images_close(struct peers *p);
void peers_image_out_cancel(struct peers *p, uint64_t id);

#endif
