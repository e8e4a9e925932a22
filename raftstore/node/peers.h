/* Connections between the nodes of a cluster.
 *
 * Each node dials every other one and sends on that connection; what it receives comes on the
 * connections that the others dialled.  So a pair has two connections, each used in one direction
 * (but for the answer to the hello): no race decides which of two survives, and a one-way fault
 * stays one-way.  An image travels on a third connection, made for it, and is answered with a
 * receipt (an ImageChunk with `last` set and no data), so that heartbeats never queue behind it.
 *
 * Connections: TCP_NODELAY; keepalive; TCP_USER_TIMEOUT 5 s (heartbeats are always under way, so
 * only five seconds without a single acknowledged byte end a connection: a slow link lives);
 * connecting takes at most 500 ms per address, and is tried again after 50 to 200 ms.
 *
 * Who may connect: the same cluster, the right node, a version that both speak, and a node whose
 * incarnation (drawn when its data directory was made) is the one that was seen first under its
 * id.  A node whose disk was wiped has forgotten its votes: letting it back under its old id could
 * elect two leaders, so it is refused, and told so.  A node that is not a member may connect: it
 * may be one of which this node has not heard yet.  Replies to such a node go to the address that
 * it told in its hello.
 *
 * Malformed or oversized input ends its connection with a log line.  All on the loop's thread. */
#ifndef HOLDFAST_NODE_PEERS_H
#define HOLDFAST_NODE_PEERS_H

#include "raftstore/base/address.h"
#include "raftstore/node/replica.h"
#include "raftstore/node/stream.h"

#include "holdfast.pb-c.h"

#define PEERS_MAX             32                  /* Nodes that may be known at once. */
#define PEERS_QUEUE_BYTES_MAX (16u * 1024 * 1024) /* Waiting for one peer; beyond: dropped. */
#define PEERS_REFUSED_VERSION 1u
#define PEERS_REFUSED_CLUSTER 2u
#define PEERS_REFUSED_NODE    3u
#define PEERS_REFUSED_WIPED   4u
#define PEERS_REFUSED_CERT    5u /* Its certificate is not that node's. */

struct peers;

struct peers_config {
    struct stream_hub *hub;
    uint64_t id;
    uint64_t incarnation;
    uint64_t cluster_id;        /* 0 = not known yet: learnt from the first node that connects. */
    const char *raft_address;   /* Told to the others. Borrowed. */
    const char *client_address; /* Likewise. */
    void *arg;

    /* What was seen first of a node; 0 = never. */
    uint64_t (*incarnation_known)(void *arg, uint64_t id);
    void (*incarnation_seen)(void *arg, uint64_t id, uint64_t incarnation);
    void (*cluster_learnt)(void *arg, uint64_t cluster_id);
    /* A frame that is neither hello nor image; lives for the call. */
    void (*frame)(void *arg, uint64_t from, const Hf__PeerFrame *frame);
    void (*link_changed)(void *arg, uint64_t id, bool up);
    /* A node of our cluster refused this one because its data directory is not the one that it
     * knows under our id.  Whether that node is a member, and right, is the callee's to judge; it
     * may be told again and again. */
    void (*wiped)(void *arg, uint64_t by);

    /* Is an image welcome?  If so, the path of a file to receive it into. */
    bool (*image_wanted)(void *arg, uint64_t from, uint64_t index, char *ret_path, size_t size);
    /* Verify a received file; called in the worker pool. Return: 0, or a negative errno with a
     * malloc()ed sentence. NULL = no check beyond the checksum. */
    int (*image_check)(const char *path, const struct replica_image *image, char **ret_sentence);
    /* A whole image is on disk and verified; the file is the callee's. */
    void (*image_received)(void *arg,
                           uint64_t from,
                           uint64_t term,
                           const struct replica_image *image,
                           const char *path);
    /* The outcome of peers_send_image(). */
    void (*image_sent)(void *arg, uint64_t to, uint64_t index, bool delivered);
};

struct peers *peers_new(const struct peers_config *config);

/* Listen. Return: as bind_listen(). */
int peers_listen(struct peers *p,
                 const struct address *address,
                 bool insecure,
                 char **ret_sentence);
uint16_t peers_port(const struct peers *p);

/* The members as of now (this node may be among them); links to others are made and dropped. */
struct peers_member {
    uint64_t id;
    struct address address;
};
void peers_set(struct peers *p, const struct peers_member *members, unsigned n);

/* Queue a frame; written at the hub's next flush.  Dropped when there is no connection or too much
 * waits already: Raft repeats. */
void peers_send(struct peers *p, uint64_t to, const Hf__PeerFrame *frame);

/* Stream the image file to a node; image_sent follows from the loop.
 *
 * @path: opened before the call returns.
 * Return: 0; -EBUSY one is under way to it; -ENOENT unknown node; other negative errno. */
int peers_send_image(struct peers *p,
                     uint64_t to,
                     uint64_t term,
                     const struct replica_image *image,
                     const char *path);

/* Is our connection to this node up? */
bool peers_is_up(const struct peers *p, uint64_t id);

/* Close everything; `closed` is called from the loop (or at once), then the object is gone. */
void peers_close(struct peers *p, void (*closed)(void *arg), void *arg);

#endif
