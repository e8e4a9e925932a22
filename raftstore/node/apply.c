#include "raftstore/node/apply.h"

#include <errno.h>

#include "raftstore/node/translate.h"

int apply_log_entry(struct lock_table *t,
                    struct arena *a,
                    uint64_t index,
                    struct bytes entry,
                    void (*each)(void *arg,
                                 unsigned position,
                                 uint64_t stamp_ns,
                                 const struct lock_effects *effects),
                    void *arg)
{
    arena_reset(a);
    const Hf__LogEntry *e =
        (const Hf__LogEntry *)(void *)pack_parse(a, &hf__log_entry__descriptor, entry);
    if (e == NULL)
        return -EBADMSG;
    for (unsigned i = 0; i < e->n_commands; i++) {
        const Hf__EntryCommand *ec = e->commands[i];
        const Hf__Command *message = (const Hf__Command *)(void *)pack_parse(
            a, &hf__command__descriptor, pack_bytes(ec->command));
        struct lock_command command;
        if (message == NULL || translate_command(message, &command) != 0)
            return -EBADMSG;
        command.stamp_ns = e->stamp_ns + ec->stamp_delta_ns;
        struct lock_effects effects;
        lock_step(t, index, &command, &effects);
        if (each != NULL)
            each(arg, i, command.stamp_ns, &effects);
    }
    return 0;
}
