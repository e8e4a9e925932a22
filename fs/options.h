/* The command line of mount.holdfast.  Pure, but for the environment it is given. */
#ifndef HOLDFAST_FS_OPTIONS_H
#define HOLDFAST_FS_OPTIONS_H

#include "auth/rate.h"
#include "raftstore/base/address.h"
#include "raftstore/base/buf.h"
#include "raftstore/base/log.h"

#include <stdbool.h>
#include <stdint.h>

/* Just long enough that what a path walk looked up is not asked for again by the check that
 * follows: each walk asks the cluster all the same, but for the mount's root and working
 * directories.  0 would cost a third of all acquires a second, more than this gains nothing
 * measurable. */
#define OPTIONS_DIRCACHE_MS 10u

struct options {
    char *source;       /* "local" or addresses. */
    char *dir;          /* Mount point as given. */
    bool is_local;      /* SOURCE is "local". */
    bool foreground;    /* -f. */
    bool help;          /* -h: print the usage, exit 0. */
    bool version;       /* -V. */
    bool allow_other;   /* Other users may use the mount. */
    bool dirwatch;      /* inotify on directories hears of other mounts. */
    bool release_async; /* unlink answers when the release is on its way. */
    uint64_t ttl_ms;    /* Lease of an O_EXCL acquire. */
    uint64_t session_ttl_ms;
    uint64_t timeout_ms;  /* Longest wait for the cluster. */
    uint64_t dircache_ms; /* How long the kernel may keep a directory's attributes. */
    int lost_signal;      /* To the process whose hold was lost; 0 = none. */
    bool lost_freeze;     /* Stop it instead, and go on if nothing was lost after all. */
    char *data;           /* `local`: data directory; NULL = default. */
    char *host;           /* Host that the mount speaks for; NULL = this machine's name. */
    char *tls;            /* Directory of certificates; NULL = the cluster speaks in the clear. */
    char *log;            /* Log file in the background; NULL = default. */
    struct address http;  /* Where to serve metrics and health; host "" = nowhere. */
    char *otlp;           /* URL of a collector of spans; NULL = none. */
    double trace_ratio;   /* Share of what the mount asks for that is recorded. */
    bool http_insecure;   /* There beyond loopback, too. */
    enum log_level log_level;
    struct buf fuse; /* Comma list of what the kernel's mount is told (ro, noexec, ...). */
    /* Requests for locks, per uid; number 0 = no limit. */
    struct rate_limit rate;
};

/* Parse.
 *
 * @is_root: the default of allow_other.
 * @ret_sentence: on failure what is wrong, malloc()ed.
 * Return: 0; -EINVAL.  On 0, options_deinit() frees. */
int options_parse(int argc, char **argv, bool is_root, struct options *ret, char **ret_sentence);
void options_deinit(struct options *o);

/* The default data directory of `local`, malloc()ed; NULL when there is no home. */
char *options_data_default(bool is_root, const char *xdg_state_home, const char *home);

extern const char options_usage[];

#endif
