/* Inside the lock table: its objects and what the files of this folder tell each other.
 *
 * Nobody outside raftstore/lock includes this (tests of the parts may).
 *
 * How it hangs together:
 *
 *     lock_table --- root node --- AVL tree of child nodes, by name --- ...
 *         |              a node is a directory, or a lock: list of holds, by (token, start)
 *         |                                                 `- crowd: what only a busy lock has:
 *         |                                                    queues, counters, owner index
 *         |--- sessions by id --- kept results, waiters, session holds
 *         |--- waiters by queue number; each stands in the queue of each of its paths
 *         |--- agents (deadlock detection) --- their waiters
 *         |--- heap of deadlines: leases, delays, sessions, wait limits
 *         `--- index of holds by token
 *
 * A change marks the nodes it touched (node_touch); settle() then grants what became grantable
 * there and frees nodes that nothing keeps.  Until settle() node pointers stay valid.
 *
 * Replicated state is what export.c writes; the rest (indexes, counters, trees' shapes) follows
 * from it and never decides an answer.  Every object that is replicated state is taken out of
 * the digest before a change and put back after it. */
#ifndef HOLDFAST_LOCK_TABLE_H
#define HOLDFAST_LOCK_TABLE_H

#include "raftstore/lock/lock.h"
#include "raftstore/lock/view.h"

#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>

#include "raftstore/base/buf.h"

#define LOCK_NS_PER_MS  UINT64_C(1000000)
#define LOCK_NODES_MAX  64    /* Nodes that NODE_INFO may tell of. */
#define LOCK_EDGES_MAX  10000 /* Holds and waiters that one deadlock search looks at. */
#define LOCK_CROWD_MANY 16    /* Holds and waiters of a node from which its owners are indexed. */
#define LOCK_PERM_MAX   07777u
#define LOCK_ROOT_ID    UINT64_C(1)

/* A session's id: a count, and above it a salt of its client's. Positive as a signed number. */
#define SESSION_COUNT_BITS 40
#define SESSION_SALT_MAX   UINT64_C(0x7fffff)
static inline uint64_t session_count(uint64_t session_id)
{
    return session_id & ((UINT64_C(1) << SESSION_COUNT_BITS) - 1);
}

/* Private bits of a waiter's flags, beside LOCK_F_...; both are settled on its arrival. */
#define WAITER_F_FRONT UINT32_C(0x80000000) /* Stands before those that hold nothing here. */
#define WAITER_F_KNOWN UINT32_C(0x40000000) /* Its owner held or waited on one of its paths. */

struct agent;
struct crowd;
struct directory;
struct node;
struct session;
struct waiter;

/* One grant.  Followed by: hold_extra (if has_extra), hold_file (if has_file), the owner, the note
 * (if has_note: its size in two bytes, then its bytes). A lease's deadline is renewed_ns + ttl_ms.
 */
struct hold {
    uint64_t token;
    uint64_t since_ns;       /* Cluster time of the grant. */
    uint64_t renewed_ns;     /* Of the last renewal. */
    uint64_t session_id;     /* Session that asked. */
    struct node *node;       /* The lock. */
    struct hold *next;       /* On the node; NULL = last. */
    struct hold *prev;       /* On the node; the first one's is the last. */
    struct hold *token_next; /* Chain of the token index. */
    uint32_t ttl_ms;         /* 0 = session hold. */
    uint32_t heap_index;     /* 0 = no deadline of its own. */
    uint32_t pid;
    uint32_t uid;
    uint32_t gid;
    uint16_t perm;
    uint8_t exclusive : 1;
    uint8_t kind : 3;
    uint8_t has_file : 1;
    uint8_t has_extra : 1;
    uint8_t has_note : 1;
    uint8_t owner_size;
    unsigned char tail[];
};

/* What a plain whole-range lease does not need. */
struct hold_extra {
    uint64_t start;
    uint64_t end;
    struct agent *agent;     /* Or NULL. */
    struct session *session; /* Session hold: where it hangs; lease: NULL. */
    struct hold *session_next;
    struct hold *session_prev; /* The first one's is the last. */
    uint32_t lock_delay_ms;
    uint32_t limit; /* Semaphore: holders that it allows; 0 = none. */
};

/* A directory entry: a lock, or a directory. */
struct node {
    struct node *child[2]; /* AVL tree of the parent's entries. */
    struct node *parent;   /* NULL: the root. */
    union {
        struct hold *holds;   /* Lock: by (token, start). */
        struct node *entries; /* Directory: top of the tree of its entries. */
    };
    union {
        struct crowd *crowd;         /* Lock: or NULL. */
        struct directory *directory; /* Directory. */
    };
    uint8_t height; /* AVL. */
    uint8_t is_directory : 1;
    uint8_t touched : 1; /* Waits for settle(). */
    uint8_t name_size;
    char name[];
};

struct directory {
    uint64_t id;
    uint64_t changed_ns;
    size_t n_entries;
    const struct lock_table *table; /* The root's only. */
    uint32_t uid;
    uint32_t gid;
    uint32_t perm;
    bool implicit;
};

/* A waiter's place in the queue of one of its paths. */
struct link {
    TAILQ_ENTRY(link) entry;
    struct node *node;
    struct waiter *waiter;
};

TAILQ_HEAD(link_list, link);

/* A hold in a crowd's index. */
struct member {
    struct member *child[2]; /* AVL tree by (start, token). */
    struct hold *hold;
    struct owner *owner;
    struct member *own_next; /* Holds of the same owner, in no certain order. */
    struct member *own_prev;
    uint64_t reach;           /* Last byte of all holds of the subtree. */
    uint64_t reach_exclusive; /* Of its exclusive ones, if has_exclusive. */
    uint32_t limit_min;       /* Of its semaphores; UINT32_MAX = there are none. */
    uint8_t height;
    bool has_exclusive;
};

/* Somebody who holds or waits in a crowd. */
struct owner {
    struct member *members;
    size_t n_holds;
    size_t n_links;
    uint32_t hash;
    uint8_t name_size;
    char name[];
};

/* A crowd by owner and by range; exists while there are many. */
struct index {
    struct owner **slots; /* Open addressing. */
    size_t mask;
    size_t n_owners;
    struct member *ranges;
};

/* What a lock has that is more than held once: several holds, waiters or a delay. */
struct crowd {
    size_t n_holds;
    size_t n_exclusive;      /* Of the holds; semaphores count. */
    size_t n_semaphores;     /* Of the holds. */
    size_t n_ranged;         /* Holds that don't cover the whole range. */
    size_t n_links;          /* Waiters that stand here. */
    size_t n_known;          /* Of those in line, with WAITER_F_KNOWN. */
    struct link_list front;  /* WAITER_F_FRONT, by queue number. */
    struct link_list line;   /* The others, by queue number. */
    uint64_t delay_until_ns; /* 0 = no delay runs. */
    uint32_t delay_heap_index;
    uint64_t dirty_start; /* Hull of what changed since the last scan; start > end: nothing. */
    uint64_t dirty_end;
    struct index *index; /* NULL while few. */
};

/* How its file is shown, where that does not follow from the rest. */
struct hold_file {
    uint64_t mtime_ns;   /* lock_command.mtime_ns. */
    uint64_t file_token; /* 0 = its own token. */
    uint64_t twin;       /* Ring of the holds with one file: the token of the next; 0 = alone. */
};

struct waiter {
    uint64_t queue_number;
    uint64_t seq;
    uint64_t since_ns;
    uint64_t deadline_ns; /* LOCK_DEADLINE_NEVER = no limit. */
    uint64_t start;
    uint64_t end;
    uint64_t convert_token; /* Not 0: a CONVERT of this hold. */
    struct session *session;
    struct agent *agent;               /* Or NULL. */
    TAILQ_ENTRY(waiter) all_entry;     /* By queue number. */
    TAILQ_ENTRY(waiter) session_entry; /* By queue number. */
    TAILQ_ENTRY(waiter) agent_entry;   /* By queue number. */
    RB_ENTRY(waiter) seq_entry;        /* In the session, by seq. */
    uint32_t ttl_ms;
    uint32_t lock_delay_ms;
    uint32_t limit; /* Semaphore; 0 = none. */
    uint32_t heap_index;
    uint32_t flags;
    uint32_t pid;
    uint32_t uid;
    uint32_t gid;
    uint32_t perm;
    uint32_t n_paths;
    uint16_t note_size;
    uint8_t owner_size;
    bool exclusive;
    enum lock_kind kind;
    struct link links[]; /* n_paths; then owner and note. */
};

TAILQ_HEAD(waiter_list, waiter);
RB_HEAD(waiter_tree, waiter);

/* A result kept for repetition. */
struct kept {
    uint64_t seq;
    uint64_t stamp_ns;
    uint64_t token;
    uint64_t deadline_ns;
    uint64_t ttl_ms;
    enum lock_code code;
};

struct session {
    RB_ENTRY(session) id_entry;
    RB_ENTRY(session) lapsed_entry; /* By (deadline, id), while lapsed. */
    uint64_t id;
    uint64_t deadline_ns;
    uint64_t ttl_ms;
    uint64_t opened_ns;
    uint64_t ack_seq;
    struct hold *holds; /* Session holds by (token, start). */
    struct waiter_list waiters;
    struct waiter_tree waiters_by_seq;
    size_t n_holds;
    size_t n_waiters;
    uint64_t n_reserved; /* Holds that its waiters may become. */
    struct kept *kept;   /* By seq: kept[kept_begin .. kept_begin + n_kept - 1]. */
    uint32_t kept_begin;
    uint32_t n_kept;
    uint32_t kept_alloc;
    uint32_t heap_index;
    bool lapsed;
    uint8_t host_size;
    char host[];
};

RB_HEAD(session_tree, session);
RB_HEAD(lapsed_tree, session);

/* Who sits waiting, as deadlock detection sees it; exists while it holds or waits. */
struct agent {
    RB_ENTRY(agent) entry;
    uint64_t session_id;
    uint64_t number;
    size_t n_holds;
    size_t n_waiters;
    struct waiter_list waiters;
    uint64_t mark; /* Of the last search that came by. */
};

RB_HEAD(agent_tree, agent);

struct node_info {
    uint64_t node_id;
    uint8_t host_size;
    char host[LOCK_HOST_BYTES_MAX];
};

/* Linear hashing: grows bucket by bucket, so that no step rehashes everything. */
struct token_index {
    struct hold ***segments;
    size_t n_buckets;
    size_t base; /* Power of two: base <= n_buckets < 2 * base. */
    size_t n;
};

/* Bytes that live until the next step; never moved. */
struct arena_chunk {
    struct arena_chunk *next;
    size_t size;
    size_t used;
    char data[];
};

struct lock_table {
    struct node *root;
    struct session_tree sessions;
    struct lapsed_tree lapsed;
    struct waiter_list waiters;
    struct agent_tree agents;
    struct token_index tokens;
    uintptr_t *heap; /* Tagged pointers, from 1. */
    size_t n_heap;
    size_t heap_alloc;
    struct node_info *infos; /* By node id. */
    size_t n_infos;

    uint64_t index;
    uint64_t term;
    uint64_t stamp_ns;
    uint64_t next_token;
    uint64_t next_session_id;
    uint64_t next_directory_id;
    uint64_t next_queue_number;
    struct lock_limits limits;
    unsigned __int128 digest; /* Sum over all objects. */

    uint64_t n_locks; /* Nodes with a hold or a waiter. */
    uint64_t n_holds;
    uint64_t n_waiters;
    uint64_t n_reserved; /* Holds that the waiters may become. */
    uint64_t n_sessions;
    uint64_t n_lapsed;
    uint64_t n_directories; /* Without the root. */
    uint64_t n_delays;
    bool importing;
    unsigned import_type;             /* Of the last row. */
    struct lock_digest import_digest; /* As the rows say. */
    char *scratch;                    /* Path of the last lock_find_token(). */
    uint64_t search;                  /* Mark of the last deadlock search. */

    /* Of the step that runs. */
    struct lock_effect *effects;
    size_t n_effects;
    size_t effects_alloc;
    struct arena_chunk *arena;
    uint64_t n_changes;    /* Counts what could let a waiter in. */
    struct node **touched; /* In order of the first touch. */
    size_t n_touched;
    size_t touched_alloc;
    uint64_t *fresh; /* Tokens granted in view of a queue: are they wanted? */
    size_t n_fresh;
    size_t fresh_alloc;
    struct hold **own; /* Result of own_collect(). */
    size_t n_own;
    size_t own_alloc;
    struct agent **found; /* Work list of the deadlock search. */
    size_t n_found;
    size_t found_alloc;
};

/* What decides about a conflict. */
struct claim {
    struct bytes owner;
    uint64_t start;
    uint64_t end;
    bool exclusive;
    uint32_t limit; /* Semaphore (exclusive then); 0 = none. */
};

/* An acquire, as asked now or taken up from the queue. */
struct request {
    struct session *session;
    struct claim claim;
    struct bytes note;
    uint64_t agent_number; /* 0 = takes no part in deadlock detection. */
    uint64_t seq;
    uint64_t mtime_ns;
    uint32_t ttl_ms;
    uint32_t lock_delay_ms;
    uint32_t pid;
    uint32_t uid;
    uint32_t gid;
    uint32_t perm;
    uint32_t flags;
    unsigned n_paths;
    bool has_file; /* Room for a hold_file is wanted. */
    bool no_less;  /* LOCK_F_NO_LESS. */
    enum lock_kind kind;
};

/* Make room for one more element of an array that a table owns. */
#define ARRAY_RESERVE(array, n, alloc)                                                             \
    do {                                                                                           \
        if ((n) == (alloc)) {                                                                      \
            (alloc) = (alloc) == 0 ? 16 : (alloc) + (alloc) / 2;                                   \
            (array) = xrealloc((array), (alloc) * sizeof *(array));                                \
        }                                                                                          \
    } while (0)

/* path.c */
bool path_next(struct bytes *rest, struct bytes *ret_name); /* Take the first component off. */
bool path_is_below(struct bytes path, struct bytes ancestor);
uint64_t time_after_ms(uint64_t from_ns, uint64_t ms); /* Saturates below LOCK_DEADLINE_NEVER. */

/* tree.c: the entries of one directory. */
struct node *tree_find(const struct node *directory, struct bytes name);
struct node *tree_from(const struct node *directory, struct bytes name, bool behind);
void tree_insert(struct node *directory, struct node *node);
void tree_remove(struct node *directory, struct node *node);
const char *tree_check(const struct node *directory);

/* node.c: locks and directories. */
struct place {
    struct node *parent; /* Deepest directory that exists on the way. */
    struct node *node;   /* What stands there, or NULL. */
    struct bytes name;   /* Last component. */
    struct bytes rest;   /* Path below `parent`. */
    unsigned n_missing;  /* Directories to be made first. */
};
struct node *node_root_new(const struct lock_table *t);
struct node *node_new(struct lock_table *t, struct node *parent, struct bytes name, bool directory);
void node_free(struct node *n);
enum lock_code
place_find(const struct lock_table *t, struct bytes path, bool parents, struct place *ret);
struct node *place_make(struct lock_table *t, const struct place *p, bool directory);
struct node *node_find(const struct lock_table *t, struct bytes path);
void node_touch(struct lock_table *t, struct node *n, uint64_t start, uint64_t end);
void node_prune(struct lock_table *t, struct node *n);
void directory_changed(struct lock_table *t, struct node *directory);
size_t node_path_size(const struct node *n);
void node_path_write(const struct node *n, char *to);
static inline struct bytes node_name(const struct node *n)
{
    return bytes_of(n->name, n->name_size);
}

/* crowd.c */
struct crowd *crowd_need(struct node *n);
void crowd_drop(struct node *n); /* Free it if nothing needs it. */
void crowd_add_hold(struct node *n, struct hold *h);
void crowd_remove_hold(struct node *n, struct hold *h);
void crowd_add_link(struct node *n, struct link *l);
void crowd_remove_link(struct node *n, struct link *l);

/* ranges.c */
struct member *ranges_add(struct member *m, struct member *made);
struct member *ranges_remove(struct member *m, const struct hold *h, struct member **ret_member);
bool ranges_visit(const struct member *m,
                  uint64_t start,
                  uint64_t end,
                  bool exclusive_only,
                  bool (*visit)(void *arg, struct hold *h),
                  void *arg);
const char *ranges_check(const struct member *m, size_t *count);

/* members.c: whose holds and waiters stand at a node, and where. */
struct owner_cursor {
    struct bytes owner;
    struct hold *at;
    struct member *member;
};
void members_add_hold(struct crowd *c, struct hold *h);
void members_remove_hold(struct crowd *c, const struct hold *h);
void members_add_link(struct crowd *c, const struct link *l);
void members_remove_link(struct crowd *c, const struct link *l);
void members_free(struct crowd *c);
void members_review(struct node *n);
struct owner_cursor owner_holds(const struct node *n, struct bytes owner);
struct hold *owner_next(struct owner_cursor *c);
bool owner_waits(const struct node *n, struct bytes owner);
bool holds_visit(const struct node *n,
                 uint64_t start,
                 uint64_t end,
                 bool exclusive_only,
                 bool (*visit)(void *arg, struct hold *h),
                 void *arg);
bool own_visit(const struct node *n,
               struct bytes owner,
               uint64_t start,
               uint64_t end,
               bool (*visit)(void *arg, struct hold *h),
               void *arg);
bool own_add(void *arg, struct hold *h);
void own_sort(struct lock_table *t);
void own_collect(
    struct lock_table *t, const struct node *n, struct bytes owner, uint64_t start, uint64_t end);

/* hold.c */
struct hold *
hold_new(struct lock_table *t, struct node *n, const struct request *r, uint64_t token);
struct hold *hold_dup(const struct hold *h, bool extra, bool file, struct bytes note);
void hold_link(struct lock_table *t, struct hold *h);
void hold_link_piece(struct lock_table *t, struct hold *h, struct hold *twin);
void hold_unlink(struct lock_table *t, struct hold *h);
void hold_replace(struct lock_table *t, struct hold *h, struct hold *d);
struct hold *hold_alloc(bool extra, bool file, struct bytes owner, struct bytes note);
struct bytes hold_owner(const struct hold *h);
struct bytes hold_note(const struct hold *h);
static inline struct hold_extra *hold_extra(const struct hold *h)
{
    return h->has_extra ? (struct hold_extra *)(uintptr_t)h->tail : NULL;
}
static inline struct hold_file *hold_file(const struct hold *h)
{
    size_t at = h->has_extra ? sizeof(struct hold_extra) : 0;
    return h->has_file ? (struct hold_file *)(uintptr_t)(h->tail + at) : NULL;
}
static inline uint64_t hold_mtime(const struct hold *h)
{
    return h->has_file ? hold_file(h)->mtime_ns : 0;
}
static inline uint64_t hold_twin(const struct hold *h)
{
    return h->has_file ? hold_file(h)->twin : 0;
}
static inline uint64_t hold_start(const struct hold *h)
{
    return h->has_extra ? hold_extra(h)->start : 0;
}
static inline uint64_t hold_end(const struct hold *h)
{
    return h->has_extra ? hold_extra(h)->end : LOCK_RANGE_END;
}
static inline struct session *hold_session(const struct hold *h)
{
    return h->has_extra ? hold_extra(h)->session : NULL;
}
static inline struct agent *hold_agent(const struct hold *h)
{
    return h->has_extra ? hold_extra(h)->agent : NULL;
}
static inline uint32_t hold_limit(const struct hold *h)
{
    return h->has_extra ? hold_extra(h)->limit : 0;
}
static inline bool hold_is_whole(const struct hold *h)
{
    return hold_start(h) == 0 && hold_end(h) == LOCK_RANGE_END;
}
static inline uint64_t hold_deadline(const struct hold *h)
{
    return h->ttl_ms == 0 ? 0 : time_after_ms(h->renewed_ns, h->ttl_ms);
}
static inline bool kind_is_posix(enum lock_kind kind)
{
    return kind == LOCK_KIND_POSIX || kind == LOCK_KIND_OFD;
}
int hold_order(const struct hold *a, const struct hold *b); /* By (token, start). */

/* file.c: the ring of the holds that have one file. */
uint64_t file_token(const struct hold *h);
unsigned file_links(const struct lock_table *t, const struct hold *h);
void file_join(struct lock_table *t, struct hold *h, struct hold *made);
void file_leave(struct lock_table *t, struct hold *h);
void file_renumber(struct lock_table *t, const struct hold *h, uint64_t token);
const char *file_check(const struct lock_table *t, const struct hold *h);

/* token.c */
void tokens_init(struct token_index *x);
void tokens_deinit(struct token_index *x);
void tokens_add(struct token_index *x, struct hold *h);
void tokens_remove(struct token_index *x, struct hold *h);
struct hold *tokens_find(const struct token_index *x, uint64_t token);

/* heap.c.  The types are in the order in which equal deadlines come up. */
enum heap_type { HEAP_HOLD = 0, HEAP_DELAY = 1, HEAP_SESSION = 2, HEAP_WAITER = 3 };
void heap_add(struct lock_table *t, enum heap_type type, void *object);
void heap_remove(struct lock_table *t, enum heap_type type, void *object);
void heap_moved(struct lock_table *t,
                enum heap_type type,
                void *object); /* Its deadline changed. */
uint64_t heap_deadline(uintptr_t item);
const char *heap_check(const struct lock_table *t);

/* check.c */

/* lock_check() of what rows from a file could have broken, in linear time; the digest is not looked
 * at. */
const char *check_imported(const struct lock_table *t);

/* digest.c */
void digest_hold(struct lock_table *t, const struct hold *h, bool add);
void digest_waiter(struct lock_table *t, const struct waiter *w, bool add);
void digest_session(struct lock_table *t, const struct session *s, bool add);
void digest_ack(struct lock_table *t, const struct session *s, bool add);
void digest_kept(struct lock_table *t, const struct session *s, const struct kept *k, bool add);
void digest_directory(struct lock_table *t, const struct node *n, bool add);
void digest_changed(struct lock_table *t, const struct node *n, bool add);
void digest_delay(struct lock_table *t, const struct node *n, bool add);
void digest_info(struct lock_table *t, const struct node_info *i, bool add);
uint64_t digest_fold(uint64_t a, uint64_t b); /* A mixing step, for the hash tables. */

/* conflict.c */

/* Two semaphores conflict by this, and stand in line like that; whether their holds go together
 * is a matter of counting: node_holds_conflict(). */
static inline bool claims_conflict(const struct claim *a, const struct claim *b)
{
    return (a->exclusive || b->exclusive) && a->start <= b->end && b->start <= a->end &&
           !bytes_equal(a->owner, b->owner);
}
struct claim hold_claim(const struct hold *h);
struct claim waiter_claim(const struct waiter *w);
bool node_holds_conflict(const struct node *n, const struct claim *c);
struct hold *node_first_conflict(const struct node *n,
                                 const struct claim *c); /* By (start, token). */
bool node_owner_blocks(const struct node *n, struct bytes owner, const struct claim *c);
bool node_waiters_conflict(const struct node *n,
                           const struct claim *c,
                           uint32_t flags,
                           const struct link *before);
bool waiter_is_ahead(const struct link *l, const struct claim *c, uint32_t flags);
bool claim_wants(const struct claim *c, const struct hold *h);

/* waiter.c */
struct waiter *waiter_new(const struct request *r, uint64_t convert_token, uint64_t deadline_ns);
void waiter_stand(struct lock_table *t, struct waiter *w, unsigned i, struct node *n);
void waiter_enqueue(struct lock_table *t, struct waiter *w, struct node *const *nodes);
void waiter_dequeue(struct lock_table *t, struct waiter *w);
void waiter_refuse(struct lock_table *t, struct waiter *w, enum lock_code code);
struct waiter *waiter_find(const struct session *s, uint64_t seq);
struct bytes waiter_owner(const struct waiter *w);
struct bytes waiter_note(const struct waiter *w);
uint64_t request_need(enum lock_kind kind, unsigned n_paths);
uint64_t waiter_need(const struct waiter *w);
struct request waiter_request(const struct waiter *w);
void waiters_refuse_converts(struct lock_table *t, struct node *n, uint64_t token, uint64_t start);
void waiters_follow_convert(struct lock_table *t, const struct hold *h, uint64_t token);

/* deadlock.c */
struct agent *agent_need(struct lock_table *t, uint64_t session_id, uint64_t number);
void agent_drop(struct lock_table *t, struct agent *a);
bool deadlock_closes(struct lock_table *t, const struct waiter *w);
bool deadlock_raises(const struct waiter *w);

/* grant.c */
void grant(struct lock_table *t,
           const struct request *r,
           struct node *const *nodes,
           bool waited,
           struct lock_result *ret);
void grant_convert(struct lock_table *t,
                   const struct request *r,
                   struct hold *h,
                   struct lock_result *ret);
bool own_all_exact(const struct request *r, struct node *const *nodes);
/* What a lease that the owner has on a lock is to a request for a lease of the same. */
enum own_lease {
    OWN_LEASE_NONE,   /* There is none, or it has nothing to do with the request. */
    OWN_LEASE_COVERS, /* It gives all that is asked for. */
    OWN_LEASE_RAISE,  /* Shared; exclusive is asked for. */
    OWN_LEASE_OTHER,  /* A semaphore's limit differs: neither gives all that the other does. */
};
enum own_lease own_lease(const struct node *n, const struct request *r, struct hold **ret_hold);
struct hold *own_exact(const struct node *n, const struct request *r, bool any_mode);
void hold_finish(struct lock_table *t, struct hold *h, enum lock_code code);
void hold_end_now(struct lock_table *t, struct hold *h, enum lock_code code);
void hold_cut(struct lock_table *t, struct hold *h, uint64_t start, uint64_t end);
struct hold *hold_renew(struct lock_table *t,
                        struct hold *h,
                        uint64_t ttl_ms,
                        uint64_t mtime_ns,
                        uint64_t session_id,
                        bool no_less);
struct hold *hold_set_mode(struct lock_table *t, struct hold *h, bool exclusive);
void hold_made(struct lock_table *t, const struct hold *h);
void result_of_hold(const struct hold *h, struct lock_result *ret);

/* settle.c */
void settle(struct lock_table *t);
bool waiter_grantable(const struct waiter *w);
bool hold_is_wanted(const struct hold *h, const struct waiter *except);

/* session.c */
struct session *session_find(const struct lock_table *t, uint64_t id);
struct session *session_after(const struct lock_table *t, uint64_t id);
struct session *session_add(struct lock_table *t, const struct session *like, struct bytes host);
void session_end(struct lock_table *t, struct session *s);
void session_expire(struct lock_table *t, struct session *s);
void session_free(struct session *s);
bool evict_lapsed(struct lock_table *t, struct node *n, const struct claim *c);
RB_PROTOTYPE(session_tree, session, id_entry, id_order)
RB_PROTOTYPE(lapsed_tree, session, lapsed_entry, lapsed_order)
RB_PROTOTYPE(waiter_tree, waiter, seq_entry, seq_order)
RB_PROTOTYPE(agent_tree, agent, entry, agents_order)

/* results.c */
struct kept *result_find(const struct session *s, uint64_t seq);
void result_keep(struct lock_table *t,
                 struct session *s,
                 uint64_t seq,
                 const struct lock_result *r);
void result_update(struct lock_table *t,
                   struct session *s,
                   uint64_t seq,
                   const struct lock_result *r);
void results_ack(struct lock_table *t, struct session *s, uint64_t ack_seq);

/* effect.c */
void effects_begin(struct lock_table *t);
void *effects_alloc(struct lock_table *t, size_t size);
struct bytes effects_keep(struct lock_table *t, struct bytes b);
struct bytes effects_path(struct lock_table *t, const struct node *n);
struct lock_effect *effect_add(struct lock_table *t, enum lock_effect_type type);
struct lock_effect *
effect_hold(struct lock_table *t, enum lock_effect_type type, const struct hold *h);
struct lock_effect *effect_waiter(struct lock_table *t,
                                  enum lock_effect_type type,
                                  const struct waiter *w,
                                  const struct node *n);

/* The commands' bodies: acquire.c, convert.c, release.c, directory.c, move.c, meta.c,
 * session.c. Each returns the result's code and fills the rest of it. */
struct op {
    struct lock_table *t;
    const struct lock_command *c;
    struct session *s; /* Of the command, or NULL. */
    struct lock_result *r;
};
enum lock_code op_session_open(struct op *o);
enum lock_code op_session_keepalive(struct op *o);
enum lock_code op_session_close(struct op *o);
enum lock_code op_acquire(struct op *o);
enum lock_code op_cancel(struct op *o);
enum lock_code op_renew(struct op *o);
enum lock_code op_release(struct op *o);
enum lock_code op_convert(struct op *o);
enum lock_code op_note(struct op *o);
enum lock_code op_break(struct op *o);
enum lock_code op_mkdir(struct op *o);
enum lock_code op_rmdir(struct op *o);
enum lock_code op_setattr(struct op *o);
enum lock_code op_link(struct op *o);
enum lock_code op_rename(struct op *o);
enum lock_code op_term_start(struct op *o);
enum lock_code op_node_info(struct op *o);
enum lock_code op_epoch(struct op *o);
bool owner_valid(struct bytes owner);
bool mode_valid(enum lock_mode mode);
bool limit_valid(
    uint32_t limit, enum lock_mode mode, enum lock_kind kind, uint64_t start, uint64_t end);
bool ttl_valid(uint64_t ttl_ms);
enum lock_code find_own(struct op *o, struct hold **ret_hold);
enum lock_code convert_hold(struct op *o, struct hold *h, bool exclusive);
enum lock_code
queue_up(struct op *o, struct request *r, uint64_t convert_token, const struct place *places);
bool room_for_holds(const struct lock_table *t, const struct session *s, uint64_t need, bool bound);
void conflict_show(struct op *o);
enum lock_code place_free(struct op *o, struct bytes path, unsigned n_more, struct place *ret);
size_t info_position(const struct lock_table *t, uint64_t node_id);

/* view.c */
struct lock_node_view view_node(const struct node *n, struct bytes path);

/* expire.c */
void expire_until(struct lock_table *t, uint64_t stamp_ns);

#endif
