/* A private certificate authority in a directory, for trial clusters and small ones.
 *
 * DIR/ca.crt and DIR/ca.key (keep it away from the nodes); each certificate with its key and a copy
 * of ca.crt in a directory of its own, ready to be given to --tls.  Keys are EC P-256 and readable
 * by their owner only.  Nothing that is there is ever overwritten. */
#ifndef HOLDFAST_TLS_AUTHORITY_H
#define HOLDFAST_TLS_AUTHORITY_H

#include "raftstore/tls/identity.h"

/* Make the authority unless it is there.
 *
 * Return: 1 it was made; 0 it was there; negative errno, and *ret_sentence (the caller's). */
int authority_create(const char *dir, unsigned days, char **ret_sentence);

/* Issue a certificate into `out`, a directory that is made.
 *
 * @names: DNS names and IP addresses that it is for as well (for HTTPS clients); NULL-terminated;
 *         may be NULL.
 * Return: 0; -EEXIST there is one already; other negative errno; *ret_sentence says more. */
int authority_issue(const char *dir,
                    const struct identity *identity,
                    const char *const *names,
                    unsigned days,
                    const char *out,
                    char **ret_sentence);

#endif
