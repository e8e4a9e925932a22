/* The command line of holdfast-gateway. */
#ifndef HOLDFAST_GATEWAY_OPTIONS_H
#define HOLDFAST_GATEWAY_OPTIONS_H

#include "auth/rate.h"
#include "raftstore/base/address.h"

#include <stdbool.h>
#include <stdint.h>

#define OPTIONS_EXIT_OK    0
#define OPTIONS_EXIT_START 1 /* Could not start. */
#define OPTIONS_EXIT_USAGE 2

struct options {
    struct address listen;
    const char *cluster;            /* Addresses of the nodes, with commas between. */
    const char *cluster_tls;        /* Directory with certificates; NULL = in the clear. */
    const char *jwks;               /* File or URL; NULL with no_auth. */
    const char *issuer;             /* Likewise. */
    const char *audience;           /* Likewise. */
    const char *policy;             /* File; likewise. */
    const char *jwks_ca;            /* PEM file: whom to trust as the JWKS' server; NULL = the
                                       system's. */
    const char *scope;              /* That each token must have; NULL = none. */
    const char *roles_claim;        /* Where a token's roles are; NULL = nowhere. */
    uint32_t leeway_s;              /* How far the issuer's clock may be off. */
    struct rate_limit rate_subject; /* Number 0 = no limit. */
    struct rate_limit rate_owner;   /* Per subject and owner_id; likewise. */
    struct rate_limit rate_failed;  /* Refused tokens per client's address; likewise. */
    bool strict_typ;                /* Only tokens of the type at+jwt. */
    const char *tls_cert;           /* PEM file with the chain; NULL = plain HTTP. */
    const char *tls_key;            /* PEM file. */
    const char *audit;              /* File for audit lines, "-" = standard error; NULL = none. */
    const char *otlp;               /* URL of a collector of spans; NULL = none. */
    const char *otlp_ca;            /* PEM file: whom to trust as that; NULL = the system's. */
    double trace_ratio;             /* Share of the traces that begin here that is recorded. */
    bool no_auth;                   /* Serve without tokens. */
    bool insecure;                  /* Allow plain HTTP beyond loopback. */
    uint64_t timeout_ms;            /* Longest wait for an answer of the cluster. */
    uint64_t wait_max_ms;           /* Longest `wait` that a call may ask for. */
    unsigned connections_max;       /* Open at once. */
};

/* Parse and check.
 *
 * Return: -1 go on with *ret; else an exit status: what there is to say has been said. */
int options_parse(int argc, char **argv, struct options *ret);

#endif
