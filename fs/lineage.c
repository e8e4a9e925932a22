/* Who descends from whom, as process.h has it: the part that looks nothing up. */
#include "fs/process.h"

bool lineage_contains(const struct lineage *l, struct process_id id)
{
    for (unsigned i = 0; i < l->n; i++)
        if (process_equal(l->ids[i], id))
            return true;
    return false;
}

bool heirs_authorise(struct process_table *t,
                     const struct process_id *heirs,
                     unsigned n_heirs,
                     const struct lineage *caller)
{
    for (unsigned i = 0; i < n_heirs; i++) {
        /* An ancestor of the caller lives: the caller would have another one else. */
        if (lineage_contains(caller, heirs[i]))
            return true;
        if (process_alive(t, heirs[i]))
            return false;
    }
    return false;
}

struct process_id heirs_living(struct process_table *t, const struct process_id *heirs, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (process_alive(t, heirs[i]))
            return heirs[i];
    return (struct process_id){0, 0};
}
