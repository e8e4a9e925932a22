#include "raftstore/node/requests.h"

#include "raftstore/base/buf.h"
#include "telemetry/span.h"

#include <assert.h>
#include <stdlib.h>

#define BLOCK 256u

static struct request *slot_at(const struct requests *rs, uint32_t slot)
{
    return &rs->blocks[slot / BLOCK][slot % BLOCK];
}

static void grow(struct requests *rs)
{
    rs->blocks = xrealloc(rs->blocks, (rs->n_blocks + 1) * sizeof *rs->blocks);
    struct request *block = xcalloc(BLOCK, sizeof *block);
    uint32_t first = rs->n_blocks * BLOCK;
    rs->blocks[rs->n_blocks++] = block;
    for (uint32_t i = BLOCK; i-- > 0;) {
        block[i].slot = first + i;
        block[i].next_free = rs->first_free;
        rs->first_free = first + i + 1;
    }
}

struct request *request_new(struct requests *rs, enum request_kind kind)
{
    if (rs->first_free == 0)
        grow(rs);
    struct request *r = slot_at(rs, rs->first_free - 1);
    rs->first_free = r->next_free;
    rs->n_used++;
    r->generation++;
    r->kind = kind;
    r->owner = NULL;
    r->body = NULL;
    r->size = 0;
    r->trace = NULL;
    r->span = NULL;
    return r;
}

uint64_t request_id(const struct request *r)
{
    return (uint64_t)r->generation << 32 | r->slot;
}

struct request *request_find(const struct requests *rs, uint64_t id)
{
    uint32_t slot = (uint32_t)id;
    if (slot / BLOCK >= rs->n_blocks)
        return NULL;
    struct request *r = slot_at(rs, slot);
    return r->generation == id >> 32 && (r->generation & 1) != 0 ? r : NULL;
}

void request_free(struct requests *rs, struct request *r)
{
    assert((r->generation & 1) != 0);
    free(r->body);
    free(r->trace);
    span_end(r->span);
    r->body = NULL;
    r->trace = NULL;
    r->span = NULL;
    r->generation++;
    r->next_free = rs->first_free;
    rs->first_free = r->slot + 1;
    rs->n_used--;
}

void requests_deinit(struct requests *rs)
{
    for (uint32_t b = 0; b < rs->n_blocks; b++) {
        for (uint32_t i = 0; i < BLOCK; i++) {
            free(rs->blocks[b][i].body);
            free(rs->blocks[b][i].trace);
            span_end(rs->blocks[b][i].span);
        }
        free(rs->blocks[b]);
    }
    free(rs->blocks);
    *rs = (struct requests){0};
}
