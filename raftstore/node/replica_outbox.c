#include "raftstore/node/replica_impl.h"

#include <stdlib.h>
#include <string.h>

/* A message may claim a term or a vote only when a crash can't take it back (Raft section 5.1):
 * while such a write is under way everything waits, in order. */
void outbox_send(struct replica *r, uint64_t to, const Hf__PeerFrame *frame)
{
    if (r->ticket_vote <= r->ticket_durable || !replica_rule(r, RULE_VOTE_FIRST)) {
        r->io->send(r->io_arg, to, frame);
        return;
    }
    if (r->n_outbox == REPLICA_OUTBOX_MAX)
        return; /* Loss is allowed; whoever needs an answer repeats. */
    if (r->n_outbox == r->n_outbox_alloc) {
        r->n_outbox_alloc = r->n_outbox_alloc == 0 ? 16 : r->n_outbox_alloc * 2;
        r->outbox = xrealloc(r->outbox, r->n_outbox_alloc * sizeof *r->outbox);
    }
    struct outbox_frame *f = &r->outbox[r->n_outbox++];
    *f = (struct outbox_frame){.ticket = r->ticket_vote, .to = to};
    pack_add(&f->packed, &frame->base);
}

void outbox_release(struct replica *r)
{
    size_t i = 0;
    for (; i < r->n_outbox && r->outbox[i].ticket <= r->ticket_durable; i++) {
        struct outbox_frame *f = &r->outbox[i];
        arena_reset(&r->arena);
        ProtobufCMessage *m = pack_parse(&r->arena, &hf__peer_frame__descriptor,
                                         bytes_of(f->packed.data, f->packed.size));
        if (m != NULL)
            r->io->send(r->io_arg, f->to, (const Hf__PeerFrame *)m);
        buf_deinit(&f->packed);
    }
    if (i == 0)
        return;
    memmove(r->outbox, r->outbox + i, (r->n_outbox - i) * sizeof *r->outbox);
    r->n_outbox -= i;
}

void outbox_free(struct replica *r)
{
    for (size_t i = 0; i < r->n_outbox; i++)
        buf_deinit(&r->outbox[i].packed);
    free(r->outbox);
}
