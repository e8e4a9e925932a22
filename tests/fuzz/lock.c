/* Commands of the lock table, against the naive model (tests/model): every result and effect is
 * the model's, the digests of a table and of one that is exported and imported now and then are
 * equal, and every invariant holds.
 *
 * Input: two bytes choose what the run is about, then each four bytes are a command. */
#include "tests/fuzz/fuzz.h"

#include "raftstore/lock/restore.h"
#include "tests/model/compare.h"
#include "tests/model/generate.h"

#define COMMANDS_MAX 400u

static int import_row(void *arg, const struct lock_row *row)
{
    return lock_import_row(arg, row);
}

static struct lock_table *reborn(struct lock_table *t)
{
    struct lock_table *fresh = lock_table_new();
    fuzz_require(lock_export(t, import_row, fresh) == 0 && lock_import_finish(fresh) == 0,
                 "an exported table can't be imported");
    lock_table_free(t);
    return fresh;
}

static void check(struct model *m, const struct lock_table *t)
{
    const char *broken = lock_check(t);
    fuzz_require(broken == NULL, "%s", broken);
    fuzz_require(compare_state(m, t), "the table is not the model's");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = feed_of(data, size);
    struct generator g;
    struct model *m = model_new();
    struct lock_table *t = lock_table_new(), *again = lock_table_new();
    uint64_t about = feed_u8(&f);
    about |= (uint64_t)feed_u8(&f) << 8;
    generator_init(&g, about);
    for (unsigned step = 1; step <= COMMANDS_MAX && !feed_is_empty(&f); step++) {
        struct lock_command c;
        struct lock_result want;
        struct lock_effects got;
        uint64_t choice = 0;
        for (unsigned i = 0; i < 4; i++)
            choice |= (uint64_t)feed_u8(&f) << (8 * i);
        g.random.state = choice;
        generator_next(&g, m, &c);
        model_step(m, step, &c, &want);
        lock_step(t, step, &c, &got);
        bool same = compare_step(m, &want, &got);
        lock_step(again, step, &c, &got);
        same = same && compare_step(m, &want, &got);
        struct lock_digest a = lock_digest(t), b = lock_digest(again);
        if (!same || a.lo != b.lo || a.hi != b.hi) {
            print_command(&c);
            fuzz_fail("step %u differs", step);
        }
        if ((choice & 63) == 0)
            again = reborn(again);
        generator_result(&g, &c, &want);
    }
    check(m, t);
    again = reborn(again);
    check(m, again);
    model_free(m);
    lock_table_free(t);
    lock_table_free(again);
    return 0;
}
