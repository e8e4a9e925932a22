/* The lock table against the naive model.
 *
 *     model [--seed N | --seeds A-B] [--commands N] [--check-every N] [--trace]
 *
 * Each seed is a run of random commands.  Three tables take them: the model, a real one, and a
 * real one that is exported and imported into a fresh table now and then.  Every result and
 * every effect must be equal, and the digests of the two real ones after each command. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "raftstore/lock/restore.h"
#include "tests/model/compare.h"
#include "tests/model/generate.h"

struct options {
    uint64_t seed_first;
    uint64_t seed_last;
    uint64_t commands;
    uint64_t check_every;
    bool trace;
};

static uint64_t seen[32]; /* How often each code was answered: does the generator bite? */

static int import_row(void *arg, const struct lock_row *row)
{
    return lock_import_row(arg, row);
}

static struct lock_table *import(const struct lock_table *from)
{
    struct lock_table *t = lock_table_new();
    if (lock_export(from, import_row, t) != 0 || lock_import_finish(t) != 0) {
        printf("an exported table can't be imported\n");
        lock_table_free(t);
        return NULL;
    }
    return t;
}

static bool sound(struct model *m, const struct lock_table *t)
{
    const char *why = lock_check(t);
    if (why != NULL)
        printf("lock_check: %s\n", why);
    return why == NULL && compare_state(m, t);
}

static bool run_step(const struct options *o,
                     struct generator *g,
                     struct model *m,
                     struct lock_table *t,
                     struct lock_table **again,
                     uint64_t step)
{
    struct lock_command c;
    struct lock_result want;
    struct lock_effects got;
    generator_next(g, m, &c);
    if (o->trace)
        print_command(&c);
    model_step(m, step, &c, &want);
    lock_step(t, step, &c, &got);
    bool same = compare_step(m, &want, &got);
    lock_step(*again, step, &c, &got);
    if (same && !compare_step(m, &want, &got)) {
        printf("only the imported table differs\n");
        same = false;
    }
    if (same && (step % o->check_every == 0))
        same = sound(m, t);
    struct lock_digest a = lock_digest(t), b = lock_digest(*again);
    if (same && (a.lo != b.lo || a.hi != b.hi)) {
        printf("the digests differ\n");
        same = false;
    }
    if (same && random_below(&g->random, 100) == 0) {
        struct lock_table *fresh = import(*again);
        lock_table_free(*again);
        *again = fresh;
        same = fresh != NULL && sound(m, fresh);
    }
    if (!same)
        print_command(&c);
    seen[want.code < 32 ? want.code : 31]++;
    generator_result(g, &c, &want);
    return same;
}

static bool run_seed(const struct options *o, uint64_t seed)
{
    struct generator g;
    struct model *m = model_new();
    struct lock_table *t = lock_table_new(), *again = lock_table_new();
    bool same = true;
    generator_init(&g, seed);
    for (uint64_t step = 1; step <= o->commands && same; step++) {
        same = run_step(o, &g, m, t, &again, step);
        if (!same)
            printf("FAILED: seed %" PRIu64 ", step %" PRIu64 "; replay: --seed %" PRIu64
                   " --commands %" PRIu64 "\n",
                   seed, step, seed, step);
    }
    model_free(m);
    lock_table_free(t);
    lock_table_free(again);
    return same;
}

static bool parse(const char *s, char **ret_end, uint64_t *ret)
{
    errno = 0;
    *ret = strtoull(s, ret_end, 10);
    return errno == 0 && *ret_end != s;
}

static bool parse_options(int argc, char **argv, struct options *o)
{
    static const struct option names[] = {
        {"seed", required_argument, NULL, 's'},     {"seeds", required_argument, NULL, 'r'},
        {"commands", required_argument, NULL, 'c'}, {"check-every", required_argument, NULL, 'k'},
        {"trace", no_argument, NULL, 't'},          {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        char *end = NULL;
        bool ok = true;
        if (option == 's') {
            ok = parse(optarg, &end, &o->seed_first) && *end == 0;
            o->seed_last = o->seed_first;
        } else if (option == 'r') {
            ok = parse(optarg, &end, &o->seed_first) && *end == '-' &&
                 parse(end + 1, &end, &o->seed_last) && *end == 0;
        } else if (option == 'c') {
            ok = parse(optarg, &end, &o->commands) && *end == 0;
        } else if (option == 'k') {
            ok = parse(optarg, &end, &o->check_every) && *end == 0 && o->check_every > 0;
        } else if (option == 't') {
            o->trace = true;
        } else {
            ok = false;
        }
        if (!ok)
            return false;
    }
    return optind == argc;
}

int main(int argc, char **argv)
{
    struct options o = {.seed_first = 1, .seed_last = 300, .commands = 4000, .check_every = 16};
    unsigned passed = 0, failed = 0;
    if (!parse_options(argc, argv, &o)) {
        fprintf(stderr,
                "usage: %s [--seed N | --seeds A-B] [--commands N] [--check-every N] [--trace]\n",
                argv[0]);
        return 2;
    }
    for (uint64_t seed = o.seed_first; seed <= o.seed_last && failed == 0; seed++) {
        if (run_seed(&o, seed))
            passed++;
        else
            failed++;
    }
    printf("answers:");
    for (unsigned i = 0; i < 32; i++) {
        if (seen[i] > 0)
            printf(" %s=%" PRIu64, lock_code_name((enum lock_code)i), seen[i]);
    }
    printf("\nseeds: %u passed, %u failed\n", passed, failed);
    return failed > 0;
}
