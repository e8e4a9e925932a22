#include "raftstore/node/apply.h"

#include <errno.h>

#include "raftstore/node/replica_entry.h"
#include "raftstore/node/translate.h"

typedef void each_command(void *arg,
                          unsigned position,
                          const struct lock_command *command,
                          const struct lock_effects *effects);

/* An entry that is being applied. */
struct apply {
    struct lock_table *table;
    struct arena *arena;
    uint64_t index;
    each_command *each;
    void *arg;
    unsigned n; /* Commands applied. */
};

static int apply_command(struct apply *a, struct bytes bytes, uint64_t stamp_ns)
{
    struct lock_command command;
    struct lock_effects effects;
    if (translate_parse(a->arena, bytes, &command) != 0)
        return -EBADMSG;
    command.stamp_ns = stamp_ns;
    lock_step(a->table, a->index, &command, &effects);
    if (a->each != NULL)
        a->each(a->arg, a->n, &command, &effects);
    a->n++;
    return 0;
}

/* Is it laid out as this version's leaders do it, to its end? */
static bool is_plain(struct bytes entry)
{
    struct entry_reader reader;
    struct entry_command c;
    int rv;
    if (!entry_open(&reader, entry))
        return false;
    while ((rv = entry_next(&reader, &c)) == 1)
        ;
    return rv == 0;
}

static int apply_plain(struct apply *a, struct bytes entry)
{
    struct entry_reader reader;
    struct entry_command c;
    int rv = entry_open(&reader, entry) ? 0 : -EBADMSG;
    while (rv == 0 && entry_next(&reader, &c) == 1)
        rv = apply_command(a, c.command, c.stamp_ns);
    return rv;
}

static int apply_any(struct apply *a, struct bytes entry)
{
    const Hf__LogEntry *e =
        (const Hf__LogEntry *)(void *)pack_parse(a->arena, &hf__log_entry__descriptor, entry);
    int rv = e != NULL ? 0 : -EBADMSG;
    for (unsigned i = 0; rv == 0 && i < e->n_commands; i++) {
        const Hf__EntryCommand *c = e->commands[i];
        rv = apply_command(a, pack_bytes(c->command), e->stamp_ns + c->stamp_delta_ns);
    }
    return rv;
}

int apply_log_entry(struct lock_table *t,
                    struct arena *a,
                    uint64_t index,
                    struct bytes entry,
                    each_command *each,
                    void *arg)
{
    struct apply job = {.table = t, .arena = a, .index = index, .each = each, .arg = arg};
    arena_reset(a);
    return is_plain(entry) ? apply_plain(&job, entry) : apply_any(&job, entry);
}
