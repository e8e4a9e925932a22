#include "raftstore/node/access_policy.h"

#include "raftstore/base/buf.h"

#include <stdio.h>
#include <stdlib.h>

static int identity_order(const struct access_rights *a, const struct access_rights *b)
{
    if (a->identity.kind != b->identity.kind)
        return a->identity.kind < b->identity.kind ? -1 : 1;
    return strcmp(a->identity.name, b->identity.name);
}

RB_HEAD(access_rights_tree, access_rights);
RB_PROTOTYPE(access_rights_tree, access_rights, link, identity_order)
RB_GENERATE(access_rights_tree, access_rights, link, identity_order)

struct access_policy {
    struct policy *policy; /* Owned. */
    struct access_rights_tree rights;
    unsigned n_refs;
};

struct access_policy *access_policy_new(struct policy *policy)
{
    struct access_policy *p = xcalloc(1, sizeof *p);
    p->policy = policy;
    p->n_refs = 1;
    RB_INIT(&p->rights);
    return p;
}

struct access_policy *access_policy_ref(struct access_policy *p)
{
    if (p != NULL)
        p->n_refs++;
    return p;
}

void access_policy_unref(struct access_policy *p)
{
    if (p == NULL || --p->n_refs > 0)
        return;
    policy_free(p->policy);
    free(p);
}

void access_host(const struct identity *identity, char *out)
{
    size_t size = LOCK_HOST_BYTES_MAX + 1;
    bool mount = identity->kind == IDENTITY_MOUNT;
    int n = snprintf(out, size, "%s%s%s", mount ? "" : identity_kind_name(identity->kind),
                     mount ? "" : "/", identity->name);
    if (n < 0 || (size_t)n >= size)
        out[0] = '\0';
}

struct access_rights *access_rights_get(struct access_policy *p, const struct identity *identity)
{
    char name[IDENTITY_URI_BYTES_MAX + 1];
    struct access_rights key = {.identity = *identity};
    struct access_rights *r = RB_FIND(access_rights_tree, &p->rights, &key);
    if (r == NULL) {
        (void)snprintf(name, sizeof name, "%s/%s", identity_kind_name(identity->kind),
                       identity->name);
        struct policy_subject subject = {.kind = POLICY_CERTIFICATE, .name = name};
        r = xcalloc(1, sizeof *r);
        r->policy = p;
        r->identity = *identity;
        r->rules = policy_resolve(p->policy, &subject);
        access_host(identity, r->host);
        RB_INSERT(access_rights_tree, &p->rights, r);
        p->n_refs++;
    }
    r->n_refs++;
    return r;
}

void access_rights_put(struct access_rights *r)
{
    if (r == NULL || --r->n_refs > 0)
        return;
    struct access_policy *p = r->policy;
    RB_REMOVE(access_rights_tree, &p->rights, r);
    policy_rights_free(r->rules);
    free(r);
    access_policy_unref(p);
}
