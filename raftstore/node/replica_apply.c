#include "raftstore/node/replica_impl.h"

#include <assert.h>

#include "raftstore/node/apply.h"

/* An entry that is being applied, and who waits for its results. */
struct apply_job {
    struct replica *r;
    uint64_t index;
    const struct inflight_entry *f; /* NULL: it is not ours. */
    unsigned n;                     /* Commands applied. */
};

static void apply_each(void *arg,
                       unsigned position,
                       const struct lock_command *command,
                       const struct lock_effects *effects)
{
    struct apply_job *job = arg;
    struct replica *r = job->r;
    const struct inflight_entry *f = job->f;
    r->applied_stamp_ns = command->stamp_ns;
    job->n = position + 1;
    if (f != NULL && position < f->n && !f->own[position])
        r->io->command_done(r->io_arg, f->request_ids[position], REPLICA_OK, &effects->result,
                            job->index);
    r->io->effects(r->io_arg, job->index, command, effects);
}

/* Return: false when this version can't apply it: going on would be a divergence. */
static bool apply_commands(struct replica *r, uint64_t index, const struct log_entry *e)
{
    struct inflight_entry *f = propose_inflight_front(r, index, e->term);
    if (f != NULL)
        buckets_add(&r->figures.commit, r->now_ns - f->proposed_ns);
    struct apply_job job = {.r = r, .index = index, .f = f};
    if (apply_log_entry(r->table, &r->arena, index, e->data, apply_each, &job) != 0)
        return false;
    if (f == NULL)
        return true;
    assert(f->n == job.n);
    if (f->term_start && r->state == RAFT_LEADER && e->term == r->term) {
        r->ready = true;
        r->io->state_changed(r->io_arg);
    }
    propose_inflight_pop(r);
    return true;
}

/* A committed configuration: the core must hear of it before any other event. */
static void apply_change(struct replica *r, uint64_t index, const struct log_entry *e)
{
    struct raft_event event = {.type = RAFT_CONFIGURATION, .configuration = {.index = index}};
    buf_deinit(&r->conf_applied);
    buf_add(&r->conf_applied, e->data.data, e->data.size);
    r->conf_applied_index = index;
    if (codec_configuration_decode(e->data, &event.configuration.conf) != 0) {
        replica_fatal(r, "log entry %llu holds a configuration that can't be read",
                      (unsigned long long)index);
        return;
    }
    (void)core_step(r, &event, NULL); /* Failure is fatal inside. */
    core_members_check(r);
    member_applied(r, index);
}

static void apply_entry(struct replica *r, uint64_t index, const struct log_entry *e)
{
    r->applied = index;
    r->log_entries_applied++;
    r->log_bytes_applied += e->data.size;
    if (e->type == RAFT_COMMAND) {
        /* The data may be asked for in callbacks: keep it over a prune. */
        struct log_entry kept = *e;
        log_chunk_ref(kept.chunk);
        bool ok = apply_commands(r, index, &kept);
        if (ok)
            r->io->entry_applied(r->io_arg, index, kept.term, kept.data);
        log_chunk_unref(kept.chunk);
        if (!ok) {
            replica_fatal(r, "log entry %llu has a command that this version does not know",
                          (unsigned long long)index);
            return;
        }
    } else if (e->type == RAFT_CHANGE) {
        struct log_entry kept = *e;
        log_chunk_ref(kept.chunk);
        apply_change(r, index, &kept);
        log_chunk_unref(kept.chunk);
    }
    digest_applied(r);
}

void apply_committed(struct replica *r)
{
    if (r->applying || r->installing)
        return;
    r->applying = true;
    uint64_t before = r->applied;
    while (r->applied < r->commit && !r->stopped && !r->installing) {
        const struct log_entry *e = log_get(&r->log, r->applied + 1);
        if (e == NULL) {
            replica_fatal(r, "committed log entry %llu is not in the log",
                          (unsigned long long)r->applied + 1);
            break;
        }
        apply_entry(r, r->applied + 1, e);
    }
    r->applying = false;
    if (r->applied == before)
        return;
    r->applied_at_ns = r->now_ns;
    if (!r->stopped)
        read_applied(r);
}
