/* A naive lock table: the rules of raftstore/lock once more, as lists that are scanned.
 *
 * Written for being obvious, not fast, and sharing no code with the real one.  Names are at most
 * 79 bytes here, which the generator keeps to. */
#ifndef HOLDFAST_TESTS_MODEL_MODEL_H
#define HOLDFAST_TESTS_MODEL_MODEL_H

#include "raftstore/lock/lock.h"

#define M_TEXT_MAX    80
#define M_HOLDS_MAX   4096
#define M_WAITERS_MAX 1024
#define M_NODES_MAX   512
#define M_SESSION_MAX 64
#define M_KEPT_MAX    LOCK_RESULTS_MAX
#define M_EFFECTS_MAX 8192

struct text {
    size_t size;
    char data[M_TEXT_MAX];
};

struct m_claim {
    struct text owner;
    uint64_t start;
    uint64_t end;
    bool exclusive;
    uint32_t limit; /* Semaphore; 0 = none. */
};

struct m_hold {
    struct m_claim c;
    struct text path;
    struct text note;
    uint64_t token, session_id, since, renewed, ttl, delay, agent;
    uint64_t mtime; /* 0 = renewed. */
    uint64_t file;  /* Token that names its file; 0 = its own. */
    uint64_t twin;  /* Ring of the names of one file: the next one's token; 0 = alone. */
    bool bound;     /* To its session. */
    int kind;
    uint32_t pid, uid, gid, perm;
};

struct m_waiter {
    struct m_claim c;
    struct text paths[LOCK_PATHS_MAX];
    unsigned n_paths;
    struct text note;
    uint64_t number, session_id, seq, since, deadline, ttl, delay, agent, convert, mtime;
    bool front;   /* Stands before those in line. */
    bool known;   /* Its owner held or waited here when it came. */
    bool no_less; /* Takes nothing away from a lease of its owner. */
    int kind;
    uint32_t pid, uid, gid, perm;
};

/* A lock or a directory; it goes when nothing keeps it (looked at when a step settles). */
struct m_node {
    struct text path;
    bool directory;
    bool implicit;
    uint64_t id, changed;
    uint32_t uid, gid, perm;
    uint64_t delay_until; /* 0 = none. */
};

struct m_kept {
    uint64_t seq;
    struct lock_result r;
};

struct m_session {
    uint64_t id, deadline, ttl, opened, ack;
    bool lapsed;
    struct text host;
    struct m_kept kept[M_KEPT_MAX];
    unsigned n_kept;
};

struct m_touched {
    struct text path;
    uint64_t start; /* Hull of what changed; start > end: nothing. */
    uint64_t end;
};

struct model {
    struct m_hold *holds[M_HOLDS_MAX];
    unsigned n_holds;
    struct m_waiter *waiters[M_WAITERS_MAX]; /* By number. */
    unsigned n_waiters;
    struct m_session *sessions[M_SESSION_MAX]; /* By id. */
    unsigned n_sessions;
    struct m_node nodes[M_NODES_MAX];
    unsigned n_nodes;
    uint64_t index, term, stamp;
    uint64_t next_token, next_session, next_directory, next_number;
    struct lock_limits limits;
    uint64_t info_ids[64];
    struct text info_hosts[64];
    unsigned n_infos;

    struct m_touched touched[M_NODES_MAX];
    unsigned n_touched;
    uint64_t fresh[M_HOLDS_MAX];
    unsigned n_fresh;
    struct lock_effect effects[M_EFFECTS_MAX];
    struct text effect_texts[M_EFFECTS_MAX][3];
    unsigned n_effects;
    struct text holder;
};

struct model *model_new(void);
void model_free(struct model *m);
void model_step(struct model *m,
                uint64_t index,
                const struct lock_command *c,
                struct lock_result *r);

/* Of model_acquire.c and model_ops.c, for each other. */
int m_acquire(struct model *m,
              struct m_session *s,
              const struct lock_command *c,
              struct lock_result *r);
int m_raise_or_lower(struct model *m,
                     struct m_session *s,
                     const struct lock_command *c,
                     struct m_hold *h,
                     bool exclusive,
                     struct lock_result *r);
bool m_show_holder(struct model *m,
                   const struct text *path,
                   const struct m_claim *claim,
                   struct lock_result *r);
bool m_room(struct model *m, uint64_t session_id, uint64_t need, bool bound);
uint64_t m_directories(struct model *m);
bool m_ttl_ok(uint64_t ttl);
bool m_path_ok(struct bytes path);
int m_resolve(struct model *m, const struct text *path, bool parents, unsigned *missing);
void m_make_parents(struct model *m, const struct text *path);
void m_make_lock(struct model *m, const struct text *path);

/* Of model.c, model_wait.c and model_end.c, for all. */
struct text text_of(struct bytes b);
bool text_equal(const struct text *a, const struct text *b);
struct bytes text_bytes(const struct text *t);
bool m_overlap(const struct m_claim *a, const struct m_claim *b);
bool m_conflict(const struct m_claim *a, const struct m_claim *b);
bool m_posix(int kind);
unsigned m_holds_at(struct model *m, const struct text *path, struct m_hold **ret); /* Sorted. */
unsigned
m_owned(struct model *m, const struct text *path, const struct text *owner, struct m_hold **ret);
struct m_node *m_node(struct model *m, const struct text *path);
struct m_session *m_session(struct model *m, uint64_t id);
uint64_t m_after(uint64_t from, uint64_t ms);
uint64_t m_deadline(const struct m_hold *h);
struct lock_effect *m_effect(struct model *m, int type);
struct lock_effect *m_effect_hold(struct model *m, int type, const struct m_hold *h);
struct lock_effect *
m_effect_waiter(struct model *m, int type, const struct m_waiter *w, unsigned i);
void m_effect_path(struct model *m, const struct text *path, int which);
void m_touch(struct model *m, const struct text *path, uint64_t start, uint64_t end);
bool m_stands_at(const struct m_waiter *w, const struct text *path);
void m_end_hold(struct model *m, struct m_hold *h, int code); /* That alone. */
/* And the lapsed session whose last hold it was. */
void m_end(struct model *m, struct m_hold *h, int code);
/* Of the session's holds that end with it the oldest; NULL: none. */
struct m_hold *m_first_bound(struct model *m, const struct m_session *s);
void m_cut(struct model *m, struct m_hold *h, uint64_t start, uint64_t end);
struct m_hold *m_hold_add(struct model *m, const struct m_hold *like);
void m_hold_made(struct model *m, const struct m_hold *h);
void m_renewed(const struct model *m, struct m_hold *h, uint64_t ttl, bool no_less);
void m_set_mode(struct model *m, struct m_hold *h, bool exclusive);
void m_refuse(struct model *m, struct m_waiter *w, int code);
void m_forget(struct model *m, struct m_waiter *w);
void m_refuse_converts(struct model *m, const struct text *path, uint64_t token, uint64_t start);
bool m_is_ahead(struct model *m,
                const struct m_waiter *v,
                const struct m_waiter *w,
                const struct text *path);
bool m_free_of_holds(struct model *m, const struct text *path, const struct m_claim *c);
bool m_grantable(struct model *m, const struct m_waiter *w);
bool m_wanted(struct model *m, const struct m_hold *h, const struct m_waiter *except);
void m_grant(struct model *m, const struct m_waiter *w, bool waited, struct lock_result *r);
bool m_has_all(struct model *m, const struct m_waiter *w);
/* A lease of the owner that gives all that is asked for, though perhaps in another mode. */
struct m_hold *m_covered(struct model *m, const struct m_waiter *w);
/* Has the owner a lease of another limit, which gives not all that is asked for? */
bool m_at_odds(struct model *m, const struct m_waiter *w);
struct m_hold *
m_exact(struct model *m, const struct text *path, const struct m_waiter *w, bool any);
void m_settle(struct model *m);
void model_expire(struct model *m);
void m_session_end(struct model *m, struct m_session *s);
bool m_evict(struct model *m, const struct text *path, const struct m_claim *c);
void m_node_add(struct model *m, const struct text *path, bool directory);
void m_node_remove(struct model *m, const struct text *path);
struct text m_parent(const struct text *path);
unsigned m_entries(struct model *m, const struct text *path);
uint64_t m_need(const struct m_waiter *w);

#endif
