/* Holds by token: linear hashing (Litwin, "Linear hashing: a new tool for file and table
 * addressing", VLDB 1980).  One bucket is split per insertion, so a million holds never cost a
 * pause. */
#include "raftstore/lock/table.h"

#include <assert.h>
#include <stdlib.h>

#define SEGMENT 512 /* Buckets of one allocation. */

static size_t bucket_of(const struct token_index *x, uint64_t token)
{
    uint64_t hash = digest_fold(token, UINT64_C(0x9e3779b97f4a7c15));
    size_t b = (size_t)(hash & (2 * x->base - 1));
    return b < x->n_buckets ? b : b - x->base;
}

static struct hold **bucket(const struct token_index *x, size_t b)
{
    return &x->segments[b / SEGMENT][b % SEGMENT];
}

void tokens_init(struct token_index *x)
{
    x->segments = xmalloc(sizeof *x->segments);
    x->segments[0] = xcalloc(SEGMENT, sizeof **x->segments);
    x->n_buckets = x->base = SEGMENT;
    x->n = 0;
}

void tokens_deinit(struct token_index *x)
{
    for (size_t i = 0; i * SEGMENT < x->n_buckets; i++)
        free(x->segments[i]);
    free(x->segments);
}

static void grow(struct token_index *x)
{
    size_t made = x->n_buckets;
    if (made % SEGMENT == 0) {
        size_t n = made / SEGMENT;
        x->segments = xrealloc(x->segments, (n + 1) * sizeof *x->segments);
        x->segments[n] = xcalloc(SEGMENT, sizeof **x->segments);
    }
    struct hold *chain = *bucket(x, made - x->base);
    *bucket(x, made - x->base) = NULL;
    x->n_buckets++;
    while (chain != NULL) {
        struct hold *h = chain;
        chain = h->token_next;
        struct hold **to = bucket(x, bucket_of(x, h->token));
        h->token_next = *to;
        *to = h;
    }
    if (x->n_buckets == 2 * x->base)
        x->base *= 2;
}

void tokens_add(struct token_index *x, struct hold *h)
{
    if (x->n++ >= 2 * x->n_buckets)
        grow(x);
    struct hold **to = bucket(x, bucket_of(x, h->token));
    h->token_next = *to;
    *to = h;
}

void tokens_remove(struct token_index *x, struct hold *h)
{
    struct hold **at = bucket(x, bucket_of(x, h->token));
    while (*at != h) {
        assert(*at != NULL);
        at = &(*at)->token_next;
    }
    *at = h->token_next;
    x->n--;
}

/* Of the pieces of a split hold, the first. */
struct hold *tokens_find(const struct token_index *x, uint64_t token)
{
    struct hold *best = NULL;
    for (struct hold *h = *bucket(x, bucket_of(x, token)); h != NULL; h = h->token_next) {
        if (h->token == token && (best == NULL || hold_start(h) < hold_start(best)))
            best = h;
    }
    return best;
}
