#include "gateway/share.h"

#include <stdlib.h>
#include <uthash.h>

struct share {
    UT_hash_handle hh;
    unsigned n;     /* Calls under way; not 0. */
    char subject[]; /* Terminated. */
};

bool share_take(struct call *call)
{
    struct gateway *gw = call->gw;
    struct bytes subject = call_subject(call);
    struct share *s = NULL;
    if (gw->options->no_auth)
        return true;
    if (gw->shares != NULL)
        HASH_FIND(hh, gw->shares, subject.data, subject.size, s);
    if (s == NULL) {
        s = xcalloc(1, sizeof *s + subject.size + 1);
        memcpy(s->subject, subject.data, subject.size);
        HASH_ADD(hh, gw->shares, subject, subject.size, s);
    }
    if (s->n >= gw->options->connections_max / 2)
        return false;
    s->n++;
    call->share = s;
    return true;
}

void share_give(struct call *call)
{
    struct share *s = call->share;
    struct gateway *gw = call->gw;
    call->share = NULL;
    if (s == NULL || --s->n > 0)
        return;
    HASH_DEL(gw->shares, s);
    free(s);
}
