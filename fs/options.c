#include "fs/options.h"

#include "raftstore/base/duration.h"
#include "raftstore/base/trace.h"
#include "raftstore/wire/codes.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const char options_usage[] =
    "usage: mount.holdfast SOURCE DIR [-f] [-v] [-o OPTION[,OPTION...]]\n"
    "\n"
    "SOURCE is `local` (a store embedded in this daemon) or HOST:PORT[,HOST:PORT...] of a "
    "cluster.\n"
    "\n"
    "  -f, --foreground   stay in the foreground and log to standard error\n"
    "  -v                 log more\n"
    "  -V, --version      print the version\n"
    "  -n, -s             accepted from mount(8): no mtab; ignore options that are not known\n"
    "\n"
    "options:\n"
    "  ttl=TIME           lease of a lock made by open(O_CREAT|O_EXCL) (30s)\n"
    "  session_ttl=TIME   how long the cluster waits for a silent mount (10s)\n"
    "  timeout=TIME       longest wait for an answer of the cluster; then ETIMEDOUT (10s)\n"
    "  data=DIR           SOURCE local: where the store lives (/var/lib/holdfast/local, or\n"
    "                     holdfast/ in the user's state directory)\n"
    "  allow_other        other users may use the mount (on for root; off: noallow_other)\n"
    "  dirwatch           inotify on directories hears of other mounts' locks\n"
    "  rate=RATE          how often each user may ask for locks: NUMBER[/s|/m|/h][:BURST]; beyond\n"
    "                     that EAGAIN, or EBUSY of flock and fcntl (no limit)\n"
    "  release=async      rm returns when the release is on its way (sync: when it is durable)\n"
    "  lost=SIGNAL        what a process gets whose lock was lost (TERM, HUP, ...); `freeze`: it "
    "is\n"
    "                     stopped, and goes on if the cluster has kept its locks, else is killed\n"
    "  host=NAME          the host that this mount speaks for (this machine's name)\n"
    "  dircache=TIME      how long the kernel may keep a directory's mode and owner (10ms)\n"
    "  tls=DIR            speak TLS 1.3 with DIR/ca.crt, DIR/tls.crt and DIR/tls.key (SIGHUP reads "
    "them\n"
    "                     anew); the host is the one that the certificate names\n"
    "  http=HOST:PORT     serve /metrics, /healthz and /readyz there, in the clear; on loopback, "
    "unless\n"
    "  http_insecure      is said, too\n"
    "  otlp=URL           send spans to a collector (OTLP/HTTP, JSON); https, or on this machine\n"
    "  trace_ratio=N      of this share of what the mount asks the cluster for, 0 to 1 (0)\n"
    "  log=FILE           log of a daemon in the background\n"
    "  log_level=LEVEL    error, warn, info or debug (info)\n"
    "  ro rw exec noexec atime noatime relatime sync dirsync   as of mount(8)\n"
    "\n"
    "Exit status: 0 mounted (or, with -f, unmounted); 1 wrong usage; 32 the mount failed.\n";

static int refuse(char **ret_sentence, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int refuse(char **ret_sentence, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    *ret_sentence = xvasprintf(format, args);
    va_end(args);
    return -EINVAL;
}

static void set_string(char **target, struct bytes value)
{
    free(*target);
    *target = xmalloc(value.size + 1);
    memcpy(*target, value.data, value.size);
    (*target)[value.size] = '\0';
}

static void fuse_add(struct options *o, struct bytes word)
{
    if (o->fuse.size > 0)
        buf_add(&o->fuse, ",", 1);
    buf_add(&o->fuse, word.data, word.size);
}

static bool one_of(struct bytes word, const char *const *list)
{
    for (; *list != NULL; list++)
        if (bytes_equal(word, bytes_str(*list)))
            return true;
    return false;
}

/* Options that are words alone.  Return: false: not one of them. */
static bool parse_flag(struct options *o, struct bytes word)
{
    static const char *const passed[] = {
        "ro", "noexec", "noatime", "sync", "dirsync", NULL,
    };
    /* What is the default anyway, and what concerns mount(8), fstab and systemd only. */
    static const char *const tolerated[] = {
        "rw",     "exec",    "suid",     "nosuid",   "dev",
        "nodev",  "atime",   "relatime", "async",    "auto",
        "noauto", "user",    "nouser",   "users",    "owner",
        "group",  "_netdev", "nofail",   "defaults", "default_permissions",
        NULL,
    };
    if (one_of(word, passed))
        fuse_add(o, word);
    else if (bytes_equal(word, bytes_str("allow_other")))
        o->allow_other = true;
    else if (bytes_equal(word, bytes_str("dirwatch")))
        o->dirwatch = true;
    else if (bytes_equal(word, bytes_str("http_insecure")))
        o->http_insecure = true;
    else if (bytes_equal(word, bytes_str("noallow_other")))
        o->allow_other = false;
    else if (word.size >= 2 && memcmp(word.data, "x-", 2) == 0)
        return true;
    else
        return one_of(word, tolerated);
    return true;
}

static int parse_time(struct bytes key,
                      struct bytes value,
                      uint64_t min_ms,
                      uint64_t max_ms,
                      uint64_t *ret,
                      char **ret_sentence)
{
    if (duration_parse(value, true, ret) == 0 && *ret >= min_ms && *ret <= max_ms)
        return 0;
    return refuse(ret_sentence, "%.*s= wants a time such as 30s, 1500ms or 2m, not '%.*s'",
                  (int)key.size, (const char *)key.data, (int)value.size, (const char *)value.data);
}

static int parse_text(struct options *o, struct bytes key, struct bytes value, char **ret_sentence)
{
    char **target = bytes_equal(key, bytes_str("data"))   ? &o->data
                    : bytes_equal(key, bytes_str("host")) ? &o->host
                    : bytes_equal(key, bytes_str("otlp")) ? &o->otlp
                    : bytes_equal(key, bytes_str("tls"))  ? &o->tls
                                                          : &o->log;
    if (value.size == 0)
        return refuse(ret_sentence, "%.*s= wants a value", (int)key.size, (const char *)key.data);
    if (target == &o->host &&
        (value.size > WIRE_HOST_BYTES_MAX || memchr(value.data, '/', value.size) != NULL))
        return refuse(ret_sentence, "host= wants a name of at most %u bytes without slashes",
                      WIRE_HOST_BYTES_MAX);
    set_string(target, value);
    return 0;
}

static int parse_lost(struct options *o, struct bytes value, char **ret_sentence)
{
    char name[16] = "";
    o->lost_freeze = bytes_equal(value, bytes_str("freeze"));
    o->lost_signal = 0;
    if (o->lost_freeze)
        return 0;
    if (value.size < sizeof name)
        memcpy(name, value.data, value.size);
    const char *bare = strncmp(name, "SIG", 3) == 0 ? name + 3 : name;
    for (int i = 1; i < NSIG; i++) {
        const char *known = sigabbrev_np(i);
        if (known != NULL && strcmp(known, bare) == 0)
            o->lost_signal = i;
    }
    return o->lost_signal != 0
               ? 0
               : refuse(ret_sentence, "lost= wants the name of a signal such as TERM, or freeze");
}

static int
parse_choice(struct options *o, struct bytes key, struct bytes value, char **ret_sentence)
{
    if (bytes_equal(key, bytes_str("release"))) {
        o->release_async = bytes_equal(value, bytes_str("async"));
        if (o->release_async || bytes_equal(value, bytes_str("sync")))
            return 0;
        return refuse(ret_sentence, "release= wants sync or async");
    }
    if (bytes_equal(key, bytes_str("lost")))
        return parse_lost(o, value, ret_sentence);
    char *word = NULL;
    set_string(&word, value);
    int r = log_level_parse(word, &o->log_level);
    free(word);
    return r < 0 ? refuse(ret_sentence, "log_level= wants error, warn, info or debug") : 0;
}

static int parse_rate(struct options *o, struct bytes value, char **ret_sentence)
{
    char *text = NULL;
    set_string(&text, value);
    int r = rate_limit_parse(text, &o->rate);
    free(text);
    return r < 0 ? refuse(ret_sentence, "rate= wants NUMBER[/s|/m|/h][:BURST], such as 100/s or "
                                        "600/m:50")
                 : 0;
}

static int parse_ratio(struct options *o, struct bytes value, char **ret_sentence)
{
    char *text = NULL;
    set_string(&text, value);
    int r = trace_ratio_parse(text, &o->trace_ratio);
    free(text);
    return r < 0 ? refuse(ret_sentence, "trace_ratio= wants a number from 0 to 1") : 0;
}

static int parse_http(struct options *o, struct bytes value, char **ret_sentence)
{
    char *text = NULL;
    set_string(&text, value);
    int r = address_parse(text, &o->http);
    free(text);
    return r < 0 || o->http.is_unix ? refuse(ret_sentence, "http= wants HOST:PORT") : 0;
}

/* One option of -o.
 *
 * Return: 0; -ENOENT not one of ours; -EINVAL with a sentence. */
static int parse_option(struct options *o, struct bytes word, char **ret_sentence)
{
    static const char *const texts[] = {"data", "host", "log", "otlp", "tls", NULL};
    static const char *const choices[] = {"release", "lost", "log_level", NULL};
    const char *equals = memchr(word.data, '=', word.size);
    if (equals == NULL)
        return parse_flag(o, word) ? 0 : -ENOENT;
    struct bytes key = bytes_of(word.data, (size_t)(equals - (const char *)word.data));
    struct bytes value = bytes_of(equals + 1, word.size - key.size - 1);
    if (bytes_equal(key, bytes_str("rate")))
        return parse_rate(o, value, ret_sentence);
    if (bytes_equal(key, bytes_str("trace_ratio")))
        return parse_ratio(o, value, ret_sentence);
    if (bytes_equal(key, bytes_str("http")))
        return parse_http(o, value, ret_sentence);
    if (bytes_equal(key, bytes_str("ttl")))
        return parse_time(key, value, WIRE_TTL_MS_MIN, WIRE_TTL_MS_MAX, &o->ttl_ms, ret_sentence);
    if (bytes_equal(key, bytes_str("session_ttl")))
        return parse_time(key, value, 100, WIRE_TTL_MS_MAX, &o->session_ttl_ms, ret_sentence);
    if (bytes_equal(key, bytes_str("timeout")))
        return parse_time(key, value, 1, UINT64_C(86400000), &o->timeout_ms, ret_sentence);
    if (bytes_equal(key, bytes_str("dircache")))
        return parse_time(key, value, 0, UINT64_C(3600000), &o->dircache_ms, ret_sentence);
    if (one_of(key, texts))
        return parse_text(o, key, value, ret_sentence);
    if (one_of(key, choices))
        return parse_choice(o, key, value, ret_sentence);
    if ((key.size >= 2 && memcmp(key.data, "x-", 2) == 0) || bytes_equal(key, bytes_str("comment")))
        return 0;
    return -ENOENT;
}

static int parse_options(struct options *o, const char *list, bool sloppy, char **ret_sentence)
{
    while (*list != '\0') {
        size_t n = strcspn(list, ",");
        int r = n > 0 ? parse_option(o, bytes_of(list, n), ret_sentence) : 0;
        if (r == -EINVAL)
            return r;
        if (r == -ENOENT && !sloppy)
            return refuse(ret_sentence, "unknown option '%.*s'", (int)n, list);
        list += n + (list[n] == ',');
    }
    return 0;
}

/* The argument of an option letter: the rest of the word, or the next word. */
static const char *argument(int argc, char **argv, int *index, const char *rest)
{
    if (*rest != '\0')
        return rest;
    return *index + 1 < argc ? argv[++*index] : NULL;
}

/* What -o said comes after all of the command line, so that -s works wherever it stands. */
struct arguments {
    const char *lists[64]; /* Arguments of -o. */
    unsigned n_lists;
    bool sloppy; /* -s. */
};

static int parse_long(struct options *o, const char *word, char **ret_sentence)
{
    if (strcmp(word, "--foreground") == 0)
        o->foreground = true;
    else if (strcmp(word, "--help") == 0)
        o->help = true;
    else if (strcmp(word, "--version") == 0)
        o->version = true;
    else
        return refuse(ret_sentence, "unknown option '%s'", word);
    return 0;
}

static int parse_type(const char *type, char **ret_sentence)
{
    if (type != NULL && (strcmp(type, "holdfast") == 0 || strcmp(type, "fuse.holdfast") == 0))
        return 0;
    return refuse(ret_sentence, "-t wants holdfast");
}

/* A word of option letters, as getopt() would take it. */
static int parse_letters(
    struct options *o, struct arguments *a, int argc, char **argv, int *index, char **ret_sentence)
{
    for (const char *p = argv[*index] + 1; *p != '\0'; p++) {
        switch (*p) {
        case 'f':
            o->foreground = true;
            break;
        case 'v':
            o->log_level = LOG_LEVEL_DEBUG;
            break;
        case 'n':
            break;
        case 's':
            a->sloppy = true;
            break;
        case 'h':
            o->help = true;
            break;
        case 'V':
            o->version = true;
            break;
        case 't':
            return parse_type(argument(argc, argv, index, p + 1), ret_sentence);
        case 'o': {
            const char *list = argument(argc, argv, index, p + 1);
            if (list == NULL || a->n_lists >= sizeof a->lists / sizeof a->lists[0])
                return refuse(ret_sentence, "-o wants options");
            a->lists[a->n_lists++] = list;
            return 0;
        }
        default: /* -N as well: another mount name space is mount(8)'s to enter. */
            return refuse(ret_sentence, "unknown option '-%c'", *p);
        }
    }
    return 0;
}

static int
parse_words(struct options *o, struct arguments *a, int argc, char **argv, char **ret_sentence)
{
    bool only_words = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        int r = 0;
        if (!only_words && strcmp(word, "--") == 0)
            only_words = true;
        else if (!only_words && strncmp(word, "--", 2) == 0)
            r = parse_long(o, word, ret_sentence);
        else if (!only_words && word[0] == '-' && word[1] != '\0')
            r = parse_letters(o, a, argc, argv, &i, ret_sentence);
        else if (o->source == NULL)
            o->source = xstrdup(word);
        else if (o->dir == NULL)
            o->dir = xstrdup(word);
        else
            r = refuse(ret_sentence, "too many arguments: '%s'", word);
        if (r < 0)
            return r;
    }
    return 0;
}

static int options_check(struct options *o, char **ret_sentence)
{
    if (o->help || o->version)
        return 0;
    if (o->source == NULL || o->dir == NULL || o->source[0] == '\0' || o->dir[0] == '\0')
        return refuse(ret_sentence, "SOURCE and DIR are needed (see --help)");
    o->is_local = strcmp(o->source, "local") == 0;
    if (!o->is_local && o->data != NULL)
        return refuse(ret_sentence, "data= is for SOURCE local only");
    if (o->otlp == NULL && o->trace_ratio > 0)
        return refuse(ret_sentence, "trace_ratio= belongs to otlp=");
    if (o->is_local && o->tls != NULL)
        return refuse(ret_sentence, "tls= is for the nodes of a cluster; SOURCE local has none");
    return 0;
}

int options_parse(int argc, char **argv, bool is_root, struct options *ret, char **ret_sentence)
{
    struct options o = {
        .allow_other = is_root,
        .ttl_ms = 30000,
        .session_ttl_ms = 10000,
        .timeout_ms = 10000,
        .dircache_ms = OPTIONS_DIRCACHE_MS,
        .log_level = LOG_LEVEL_INFO,
    };
    struct arguments a = {0};
    int r = parse_words(&o, &a, argc, argv, ret_sentence);
    for (unsigned i = 0; r == 0 && i < a.n_lists; i++)
        r = parse_options(&o, a.lists[i], a.sloppy, ret_sentence);
    if (r == 0)
        r = options_check(&o, ret_sentence);
    if (r < 0) {
        options_deinit(&o);
        return r;
    }
    *ret = o;
    return 0;
}

void options_deinit(struct options *o)
{
    free(o->source);
    free(o->dir);
    free(o->data);
    free(o->host);
    free(o->log);
    free(o->tls);
    free(o->otlp);
    buf_deinit(&o->fuse);
}

char *options_data_default(bool is_root, const char *xdg_state_home, const char *home)
{
    struct buf text = BUF_INIT;
    if (is_root)
        return xstrdup("/var/lib/holdfast/local");
    if (xdg_state_home != NULL && xdg_state_home[0] == '/')
        buf_printf(&text, "%s/holdfast", xdg_state_home);
    else if (home != NULL && home[0] == '/')
        buf_printf(&text, "%s/.local/state/holdfast", home);
    else
        return NULL;
    buf_add(&text, "", 1);
    return (char *)text.data;
}
