/* What the tests of the store share: a store with its loop in a directory of its own, and a model
 * of what it must hold. */
#ifndef HOLDFAST_TESTS_STORE_HARNESS_H
#define HOLDFAST_TESTS_STORE_HARNESS_H

#include "raftstore/base/random.h"
#include "raftstore/node/store.h"

#define MODEL_ENTRIES_MAX 65536
#define RIG_FILE_BYTES    (256u * 1024u) /* Small, so that files change often. */

struct rig {
    char directory[512];
    uv_loop_t loop;
    struct store *store;
    const struct store_loaded *loaded;
    uint64_t ticket;    /* The latest given. */
    uint64_t persisted; /* The highest reported. */
    unsigned n_done;    /* Snapshots reported. */
    char *failure;      /* Owned; what on_failed said. */
    unsigned n_failures;
    char *sentence; /* Owned; why rig_open() failed. */
};

/* A new directory under $TMPDIR or /tmp. */
void rig_init(struct rig *r);
void rig_deinit(struct rig *r); /* Removes the directory. */

/* Open and close the store. Return: of store_open(). */
int rig_open(struct rig *r, size_t log_file_bytes);
void rig_close(struct rig *r);

/* Run the loop until everything written is reported, or the store failed. Return: true if all is
 * reported. */
bool rig_wait(struct rig *r);
bool rig_wait_done(struct rig *r, unsigned n_done);

void remove_tree(const char *path);
void copy_tree(const char *from, const char *to);

/* One change to the log, whose entries' content follows from index and term. */
struct op {
    bool set_vote;
    uint64_t term, voted_for;
    uint64_t truncate_from;
    unsigned n_entries; /* Appended with `term`. */
    size_t entry_bytes;
    uint64_t snapshot_index; /* Not 0: commit a snapshot at this index instead of all above. */
    bool install;            /* With drop_log. */
    uint64_t drop_to;
};

struct model {
    uint64_t last, term, voted_for, snapshot_index;
    struct {
        uint32_t term, size;
    } entries[MODEL_ENTRIES_MAX]; /* By index. */
};

void model_apply(struct model *m, const struct op *op);
void op_random(const struct model *m, struct random *rng, struct op *ret);

/* Give the op to the store. */
void rig_write(struct rig *r, const struct model *before, const struct op *op);

/* Is what was loaded exactly the model's state? Return: NULL, or what differs. */
const char *model_compare(const struct model *m, const struct store_loaded *loaded);

#endif
