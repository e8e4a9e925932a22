/* Hard links: leases on several paths that are shown as one file.
 *
 * Each is a lock of its own.  A ring of tokens goes round them, of at most LOCK_LINKS_MAX; what
 * they have in common is the token that names the file.  (A hold in a ring is whole and no POSIX
 * hold, so its token is its alone.) */
#include "raftstore/lock/table.h"

uint64_t file_token(const struct hold *h)
{
    uint64_t token = h->has_file ? hold_file(h)->file_token : 0;
    return token != 0 ? token : h->token;
}

unsigned file_links(const struct lock_table *t, const struct hold *h)
{
    unsigned n = 1;
    const struct hold *at = h;
    while (hold_twin(at) != 0 && hold_twin(at) != h->token) {
        at = tokens_find(&t->tokens, hold_twin(at));
        n++;
    }
    return n;
}

static void set(struct lock_table *t, struct hold *h, uint64_t file_token, uint64_t twin)
{
    struct hold_file *f = hold_file(h);
    digest_hold(t, h, false);
    f->file_token = file_token;
    f->twin = twin;
    digest_hold(t, h, true);
}

/* The one before a token in its ring. */
static struct hold *before(const struct lock_table *t, uint64_t token, struct hold *h)
{
    while (hold_twin(h) != token)
        h = tokens_find(&t->tokens, hold_twin(h));
    return h;
}

/* `made` is one more name of what `h` is shown as; both have a hold_file. */
void file_join(struct lock_table *t, struct hold *h, struct hold *made)
{
    uint64_t file = file_token(h);
    set(t, made, file, hold_twin(h) != 0 ? hold_twin(h) : h->token);
    set(t, h, file, made->token);
}

/* It ends, or is no whole hold any more: the others are left. */
void file_leave(struct lock_table *t, struct hold *h)
{
    if (hold_twin(h) == 0)
        return;
    struct hold *last = before(t, h->token, h);
    uint64_t next = hold_twin(h) == last->token ? 0 : hold_twin(h);
    set(t, last, hold_file(last)->file_token, next);
    set(t, h, hold_file(h)->file_token, 0);
}

/* It has a new token, and had this one. */
void file_renumber(struct lock_table *t, const struct hold *h, uint64_t token)
{
    if (hold_twin(h) == 0)
        return;
    struct hold *last = before(t, token, tokens_find(&t->tokens, hold_twin(h)));
    set(t, last, hold_file(last)->file_token, h->token);
}

/* Does its ring come round to it?  For rows from a file, and lock_check(). */
const char *file_check(const struct lock_table *t, const struct hold *h)
{
    unsigned n = 1;
    const struct hold *at = h;
    while (hold_twin(at) != 0 && hold_twin(at) != h->token) {
        at = tokens_find(&t->tokens, hold_twin(at));
        if (at == NULL || n++ == LOCK_LINKS_MAX || hold_twin(at) == 0 ||
            file_token(at) != file_token(h))
            return "the names of a file do not name each other";
    }
    if (hold_twin(h) == h->token || file_token(h) >= t->next_token)
        return "a hold is linked with itself, or its file was never made";
    if (hold_twin(h) != 0 &&
        (h->ttl_ms == 0 || !hold_is_whole(h) || kind_is_posix((enum lock_kind)h->kind)))
        return "a hold is linked that can't be";
    return NULL;
}
