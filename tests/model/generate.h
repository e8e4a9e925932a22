/* Random commands that bite: few paths, few owners, short ttls, stamps that jump, retries. */
#ifndef HOLDFAST_TESTS_MODEL_GENERATE_H
#define HOLDFAST_TESTS_MODEL_GENERATE_H

#include "raftstore/base/random.h"
#include "tests/model/model.h"

#define G_SENT_MAX 32 /* Commands of a session that may be repeated. */

struct g_session {
    uint64_t id;
    uint64_t seq; /* Last one used. */
    struct lock_command sent[G_SENT_MAX];
    unsigned n_sent;
};

struct generator {
    struct random random;
    struct g_session sessions[12]; /* Live and ended ones. */
    unsigned n_sessions;
    unsigned profile; /* What this seed is about. */
    unsigned n_paths; /* Of the pool. */
    unsigned n_owners;
    uint64_t stamp;
};

void generator_init(struct generator *g, uint64_t seed);

/* The next command; its bytes are static or live in `g`. */
void generator_next(struct generator *g, struct model *m, struct lock_command *ret);

/* Tell what came of it: new sessions are remembered. */
void generator_result(struct generator *g,
                      const struct lock_command *c,
                      const struct lock_result *r);

#endif
