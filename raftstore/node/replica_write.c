#include "raftstore/node/replica_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void write_persist(struct replica *r,
                   struct replica_write *w,
                   uint64_t report_index,
                   struct log_chunk *chunk)
{
    if (r->n_writes == r->n_writes_alloc) {
        r->n_writes_alloc = r->n_writes_alloc == 0 ? 16 : r->n_writes_alloc * 2;
        r->writes = xrealloc(r->writes, r->n_writes_alloc * sizeof *r->writes);
    }
    w->ticket = ++r->ticket;
    if (w->set_vote)
        r->ticket_vote = w->ticket;
    r->writes[r->n_writes++] = (struct pending_write){
        .ticket = w->ticket,
        .report_index = report_index,
        .chunk = chunk != NULL ? log_chunk_ref(chunk) : NULL,
    };
    r->io->persist(r->io_arg, w);
}

void write_cap(struct replica *r, uint64_t index)
{
    for (size_t i = 0; i < r->n_writes; i++) {
        if (r->writes[i].report_index > index)
            r->writes[i].report_index = index;
    }
}

uint64_t write_complete(struct replica *r, uint64_t ticket)
{
    uint64_t report = 0;
    size_t i = 0;
    for (; i < r->n_writes && r->writes[i].ticket <= ticket; i++) {
        if (r->writes[i].report_index > report)
            report = r->writes[i].report_index;
        log_chunk_unref(r->writes[i].chunk);
    }
    if (i > 0)
        memmove(r->writes, r->writes + i, (r->n_writes - i) * sizeof *r->writes);
    r->n_writes -= i;
    if (ticket > r->ticket_durable)
        r->ticket_durable = ticket;
    return report;
}

void write_free(struct replica *r)
{
    for (size_t i = 0; i < r->n_writes; i++)
        log_chunk_unref(r->writes[i].chunk);
    free(r->writes);
}
