#include "tests/sim/sim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftstore/base/log.h"
#include "raftstore/node/replica_rule.h"

static const char *const rule_names[RULE_N] = {
    [RULE_VOTE_FIRST] = "vote-first",
    [RULE_READ_ROUND] = "read-round",
    [RULE_OWN_STAMP] = "own-stamp",
    [RULE_STALE_TERM] = "stale-term",
    [RULE_RESULT_BOUND] = "result-bound",
    [RULE_SOLE_TERM] = "sole-term",
    [RULE_SOLE_TIMEOUT_NOW] = "sole-timeout-now",
    [RULE_SOLE_TIMEOUT] = "sole-timeout",
    [RULE_PREV_COMPACTED] = "prev-compacted",
    [RULE_LATE_REJECTION] = "late-rejection",
    [RULE_VOTE_RESULT] = "vote-result",
    [RULE_CHANGE_FIRST] = "change-first",
    [RULE_ONE_IMAGE] = "one-image",
    [RULE_IMAGE_REJECTION] = "image-rejection",
    [RULE_INSTALLING] = "installing",
    [RULE_HEARTBEAT_RATE] = "heartbeat-rate",
    [RULE_SAME_TERM_LEADER] = "same-term-leader",
    [RULE_CONF_ROLLBACK] = "conf-rollback",
    [RULE_CAP_WRITES] = "cap-writes",
    [RULE_COMMIT_MAX] = "commit-max",
};

struct arguments {
    struct options options;
    uint64_t first, last;
    uint64_t budget_s; /* Real time after which no further seed is begun; 0 = none. */
    bool expect_failure;
};

static int usage(void)
{
    fprintf(stderr,
            "usage: sim [--seed N | --seeds A-B] [--seconds S] [--nodes N] [--trace]\n"
            "           [--members]          change the membership, with two spare nodes\n"
            "           [--budget S]         begin no seed after S seconds of real time\n"
            "           [--rule-off NAME]    break a rule of the replica, to see it noticed\n"
            "           [--expect-failure]   succeed when some seed fails\n"
            "rules:");
    for (unsigned i = 0; i < RULE_N; i++)
        fprintf(stderr, " %s", rule_names[i]);
    fprintf(stderr, "\n");
    return 2;
}

static bool number_parse(const char *text, uint64_t *ret)
{
    char *end;
    errno = 0;
    *ret = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == '\0';
}

static bool range_parse(const char *text, struct arguments *a)
{
    unsigned long long first, last;
    if (sscanf(text, "%llu-%llu", &first, &last) != 2 || first > last)
        return false;
    a->first = first;
    a->last = last;
    return true;
}

static bool rule_parse(const char *name, uint64_t *rules)
{
    for (unsigned i = 0; i < RULE_N; i++) {
        if (strcmp(name, rule_names[i]) == 0) {
            *rules |= UINT64_C(1) << i;
            return true;
        }
    }
    return false;
}

static bool option_parse(struct arguments *a, const char *name, const char *value)
{
    uint64_t n = 0;
    if (strcmp(name, "--seeds") == 0)
        return range_parse(value, a);
    if (strcmp(name, "--rule-off") == 0)
        return rule_parse(value, &a->options.rules_off);
    if (!number_parse(value, &n))
        return false;
    if (strcmp(name, "--seed") == 0)
        a->first = a->last = n;
    else if (strcmp(name, "--seconds") == 0)
        a->options.seconds = n;
    else if (strcmp(name, "--budget") == 0)
        a->budget_s = n;
    else if (strcmp(name, "--nodes") == 0 && n >= 1 && n <= NODES_MAX)
        a->options.nodes = (unsigned)n;
    else
        return false;
    return true;
}

static bool arguments_parse(struct arguments *a, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--trace") == 0)
            a->options.trace = true;
        else if (strcmp(argv[i], "--members") == 0)
            a->options.members = true;
        else if (strcmp(argv[i], "--expect-failure") == 0)
            a->expect_failure = true;
        else if (i + 1 < argc && option_parse(a, argv[i], argv[i + 1]))
            i++;
        else
            return false;
    }
    return true;
}

struct totals {
    uint64_t seeds, events, entries, elections, crashes, images, snapshots, done, grants, reads,
        changes, shared_slots, renamed, torn, failed_writes, rotten, refused, refused_images,
        replaced;
    struct app_counts apps;
    struct mount_counts mounts;
};

static void mounts_add(struct mount_counts *t, const struct mount_counts *m)
{
    t->calls += m->calls;
    t->leases += m->leases;
    t->flocks += m->flocks;
    t->waits += m->waits;
    t->renewals += m->renewals;
    t->interrupts += m->interrupts;
    t->kills += m->kills;
    t->daemon_kills += m->daemon_kills;
    t->stale += m->stale;
    t->timeouts += m->timeouts;
}

static void apps_add(struct app_counts *t, const struct app_counts *a)
{
    t->done += a->done;
    t->grants += a->grants;
    t->reads += a->reads;
    t->waited += a->waited;
    t->canceled += a->canceled;
    t->timeouts += a->timeouts;
    t->lost += a->lost;
    t->sessions_lost += a->sessions_lost;
    t->resumed += a->resumed;
    t->crashes += a->crashes;
}

static void totals_add(struct totals *t, const struct world *w)
{
    t->seeds++;
    t->events += w->n_events;
    t->entries += w->n_entries;
    t->elections += w->n_elections;
    t->crashes += w->n_crashes;
    t->images += w->n_images;
    t->snapshots += w->n_snapshots;
    t->changes += w->n_changes;
    t->shared_slots += w->n_shared_slots;
    t->torn += w->n_torn;
    t->failed_writes += w->n_failed_writes;
    t->rotten += w->n_rotten;
    t->refused += w->n_refused;
    t->refused_images += w->n_refused_images;
    t->replaced += w->n_replaced;
    for (unsigned i = 0; i < w->n_clients; i++) {
        t->done += w->clients[i].n_done;
        t->grants += w->clients[i].n_grants;
        t->reads += w->clients[i].n_reads;
        t->renamed += w->clients[i].n_renamed;
        if (w->clients[i].app != NULL) {
            struct app_counts a = app_counts(w->clients[i].app);
            apps_add(&t->apps, &a);
        }
        if (w->clients[i].mount != NULL && w->clients[i].process == 0) {
            struct mount_counts m = mount_counts(w->clients[i].mount);
            mounts_add(&t->mounts, &m);
        }
    }
}

static void totals_print(const struct totals *t)
{
    printf("%llu seeds, %llu events, %llu entries, %llu elections, %llu crashes, %llu snapshots, "
           "%llu images, %llu changes, %llu answers, %llu grants, %llu reads, %llu shared slots, "
           "%llu renamed\n",
           (unsigned long long)t->seeds, (unsigned long long)t->events,
           (unsigned long long)t->entries, (unsigned long long)t->elections,
           (unsigned long long)t->crashes, (unsigned long long)t->snapshots,
           (unsigned long long)t->images, (unsigned long long)t->changes,
           (unsigned long long)t->done, (unsigned long long)t->grants, (unsigned long long)t->reads,
           (unsigned long long)t->shared_slots, (unsigned long long)t->renamed);
    printf(
        "the disks: %llu torn writes, %llu failed ones, %llu rotten, %llu starts and %llu images "
        "refused, %llu nodes replaced\n",
        (unsigned long long)t->torn, (unsigned long long)t->failed_writes,
        (unsigned long long)t->rotten, (unsigned long long)t->refused,
        (unsigned long long)t->refused_images, (unsigned long long)t->replaced);
    printf("the client library: %llu answers, %llu grants, %llu reads, %llu asked to wait, %llu "
           "canceled, %llu out of time, %llu leases lost, %llu sessions lost, %llu resumed, %llu "
           "processes died\n",
           (unsigned long long)t->apps.done, (unsigned long long)t->apps.grants,
           (unsigned long long)t->apps.reads, (unsigned long long)t->apps.waited,
           (unsigned long long)t->apps.canceled, (unsigned long long)t->apps.timeouts,
           (unsigned long long)t->apps.lost, (unsigned long long)t->apps.sessions_lost,
           (unsigned long long)t->apps.resumed, (unsigned long long)t->apps.crashes);
    printf("the mounts: %llu calls, %llu leases, %llu flocks, %llu waited, %llu renewals, %llu "
           "interrupts, %llu killed, %llu daemons killed, %llu ESTALE, %llu ETIMEDOUT\n",
           (unsigned long long)t->mounts.calls, (unsigned long long)t->mounts.leases,
           (unsigned long long)t->mounts.flocks, (unsigned long long)t->mounts.waits,
           (unsigned long long)t->mounts.renewals, (unsigned long long)t->mounts.interrupts,
           (unsigned long long)t->mounts.kills, (unsigned long long)t->mounts.daemon_kills,
           (unsigned long long)t->mounts.stale, (unsigned long long)t->mounts.timeouts);
}

static uint64_t real_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec;
}

static bool seed_run(struct arguments *a, uint64_t seed, struct world *w, struct totals *t)
{
    a->options.seed = seed;
    bool ok = world_run(w, &a->options);
    if (!ok)
        printf("seed %llu failed at %.6f: %s\n", (unsigned long long)seed, (double)w->now_ns / 1e9,
               w->failure);
    totals_add(t, w);
    world_free(w);
    return ok;
}

int main(int argc, char **argv)
{
    struct arguments a = {.options = {.seconds = 20}, .first = 1, .last = 1};
    struct totals totals = {0};
    uint64_t begin_s = real_s();
    bool failed = false;
    if (!arguments_parse(&a, argc, argv))
        return usage();
    log_set_level(LOG_LEVEL_ERROR); /* Of the product's own code: it speaks of what we do to it. */
    struct world *w = xcalloc(1, sizeof *w);
    for (uint64_t seed = a.first; seed <= a.last && !failed; seed++) {
        if (a.budget_s != 0 && real_s() - begin_s >= a.budget_s)
            break;
        failed = !seed_run(&a, seed, w, &totals);
    }
    totals_print(&totals);
    free(w);
    if (a.expect_failure)
        printf(failed ? "noticed, as it should be\n" : "NOT noticed\n");
    return failed == a.expect_failure ? 0 : 1;
}
