/* Who may do what: subjects have roles, roles allow and deny verbs on path prefixes.
 *
 * Pure but for policy_load().  A policy doesn't change once made; it may be read by several
 * threads.
 *
 * The decision: collect the subject's roles (those of its token that the policy knows, and those of
 * each binding that matches its name); if a deny rule of any of them matches verb and path: no;
 * else if an allow rule of any matches: yes; else: no.  The order of things in the file means
 * nothing.
 *
 * A rule's path covers that path and everything below it: "jobs" covers "jobs" and "jobs/a", not
 * "jobsite"; "/" covers everything.  Verbs are independent of each other: who may acquire can't
 * read unless allowed to.  The file's format is in holdfast-policy(5). */
#ifndef HOLDFAST_AUTH_POLICY_H
#define HOLDFAST_AUTH_POLICY_H

#include "raftstore/base/buf.h"
#include "raftstore/base/bytes.h"

#include <stdbool.h>
#include <stddef.h>

#define POLICY_BYTES_MAX (1024 * 1024)

enum policy_verb {
    POLICY_READ,    /* See that it is held, by whom; watch it; list it. */
    POLICY_ACQUIRE, /* Acquire, renew, release (what one acquired oneself). */
    POLICY_BREAK,   /* Take somebody else's hold away. */
    POLICY_ADMIN,   /* Members, snapshots, leadership: on the path "". */
    POLICY_N_VERBS,
};

/* Where a subject's name comes from; names of one kind never match bindings of the other. */
enum policy_kind {
    POLICY_TOKEN,       /* "sub" of a token. */
    POLICY_CERTIFICATE, /* Kind and name in a client's certificate: "mount/web1". */
};

struct policy_subject {
    enum policy_kind kind;
    const char *name;         /* Borrowed. */
    const char *const *roles; /* Borrowed: roles that came with it (in the token). */
    size_t n_roles;           /* */
};

struct policy;

/* Is this the name of a certificate, as bindings and policy_subject have it: KIND/NAME with node,
 * mount, gateway or client as the kind (a NAME has no slash)? */
bool policy_certificate_valid(const char *name);

/* Parse a policy.
 *
 * @ret_sentence: on failure, what is wrong and in which line, owned by the caller.
 * Return: 0, *ret_policy is the caller's; -EINVAL. */
int policy_parse(struct bytes text, struct policy **ret_policy, char **ret_sentence);

/* Read and parse a file.  Blocks (for a worker thread, or before the loop runs).
 *
 * Return: as policy_parse(); a negative errno of reading. */
int policy_load(const char *path, struct policy **ret_policy, char **ret_sentence);

void policy_free(struct policy *policy); /* NULL is fine. */

/* May this subject do that?
 *
 * @path:        of a lock or directory, as in the table ("jobs/nightly"; leading '/' are dropped);
 *               empty = the root.  One that is no path (empty, "." or ".." components) is denied.
 *               A listing needs the question for each of its entries: a deny may lie below.
 * @explanation: NULL, or one sentence is appended, without a full stop. */
bool policy_allows(const struct policy *policy,
                   const struct policy_subject *subject,
                   enum policy_verb verb,
                   struct bytes path,
                   struct buf *explanation);

/* "read", "acquire", "break", "admin".  Return: 0; -EINVAL. */
int policy_verb_parse(const char *word, enum policy_verb *ret_verb);
const char *policy_verb_name(enum policy_verb verb);

#endif
