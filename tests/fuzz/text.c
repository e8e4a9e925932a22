/* Small texts that people, programs and other systems write: each parser takes or refuses them, and
 * what it took can be written and read back.
 *
 * Input: a byte that chooses the parser, then the text. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <stdlib.h>

#include "auth/rate.h"
#include "fs/command.h"
#include "fs/event_line.h"
#include "fs/event_log.h"
#include "fs/options.h"
#include "fs/owner.h"
#include "fs/path.h"
#include "fs/report.h"
#include "raftstore/base/address.h"
#include "raftstore/base/duration.h"
#include "raftstore/base/fields.h"
#include "raftstore/base/log.h"
#include "raftstore/base/trace.h"
#include "raftstore/base/utf8.h"
#include "raftstore/lock/lock.h"
#include "raftstore/tls/identity.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

/* A copy with a NUL behind it; the caller frees it.  What has a NUL in it ends there. */
static char *terminated(struct bytes text)
{
    char *copy = xmalloc(text.size + 1);
    if (text.size > 0)
        memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    return copy;
}

static bool has(struct buf *b, char c)
{
    return b->size > 0 && memchr(b->data, c, b->size) != NULL;
}

static void try_command(struct bytes text)
{
    struct command c;
    int rv = command_parse(text, &c);
    fuzz_require(rv == 0 || rv == -EINVAL || rv == -EFBIG, "command: %d", rv);
    if (rv == 0 && c.verb == COMMAND_NOTE)
        fuzz_require(c.note.size <= WIRE_NOTE_BYTES_MAX, "a note of %zu bytes", c.note.size);
}

static void try_address(struct bytes text)
{
    struct address a, b;
    char out[300];
    char *s = terminated(text);
    if (address_parse(s, &a) == 0) {
        (void)address_is_loopback(&a);
        fuzz_require(address_parse(address_format(&a, out, sizeof out), &b) == 0 &&
                         a.is_unix == b.is_unix && a.port == b.port && strcmp(a.host, b.host) == 0,
                     "address: '%s' is written as '%s'", s, out);
    }
    free(s);
}

static void try_numbers(struct bytes text)
{
    struct rate_limit rate;
    uint64_t n;
    char *s = terminated(text);
    if (duration_parse(text, true, &n) == 0)
        fuzz_require(n <= UINT64_C(1) << 53, "a long duration");
    (void)duration_parse(text, false, &n);
    (void)number_parse(text, &n);
    if (rate_limit_parse(s, &rate) == 0) {
        fuzz_require(rate.number > 0 && rate.period_ns > 0 && rate.burst > 0, "a rate of nothing");
        struct rate_table *t = rate_table_new(&rate, 2);
        (void)rate_take(t, text, 1, NULL);
        rate_table_free(t);
    }
    free(s);
}

static void try_options(struct bytes text)
{
    struct options o;
    char *sentence = NULL;
    char *s = terminated(text), *argv[] = {"mount.holdfast", "a:1,b:2", "/mnt", "-o", s, NULL};
    if (options_parse(5, argv, /* is_root= */ true, &o, &sentence) == 0) {
        fuzz_require(o.ttl_ms >= WIRE_TTL_MS_MIN && o.ttl_ms <= WIRE_TTL_MS_MAX, "ttl");
        fuzz_require(o.session_ttl_ms >= WIRE_TTL_MS_MIN, "session ttl");
        options_deinit(&o);
    } else {
        fuzz_require(sentence != NULL, "refused without a sentence");
    }
    free(sentence);
    free(s);
}

static void try_path(struct bytes text)
{
    char *s = terminated(text), *slash = strchr(s, '\n'), *path = NULL;
    const char *name = slash != NULL ? slash + 1 : s;
    if (slash != NULL)
        *slash = '\0';
    const char *parent = slash != NULL ? s : "";
    if ((parent[0] == '\0' || lock_path_valid(bytes_str(parent))) &&
        path_join(parent, name, &path) == 0) {
        fuzz_require(lock_path_valid(bytes_str(path)), "'%s' is no path", path);
        fuzz_require(strcmp(path_name(path), name) == 0, "another name");
    }
    (void)path_names_lock(name);
    (void)lock_path_valid(text);
    free(path);
    free(s);
}

static void try_owner(struct bytes text)
{
    struct owner_namer n = {.host = "host", .boot = "01234567", .nonce = 7};
    struct process_id process;
    (void)owner_parse(&n, text, &process);
    (void)owner_is_of(&n, text);
}

static void try_trace(struct bytes text)
{
    struct trace_context t = {0}, again = {0};
    char out[TRACE_PARENT_BYTES + 1], state[TRACE_STATE_BYTES_MAX + 1],
        state2[TRACE_STATE_BYTES_MAX + 1];
    if (trace_parse(text, &t)) {
        fuzz_require(trace_is_set(&t), "a traceparent of nothing");
        fuzz_require(trace_parse(bytes_str(trace_format(&t, out)), &again) &&
                         memcmp(t.trace_id, again.trace_id, sizeof t.trace_id) == 0 &&
                         memcmp(t.span_id, again.span_id, sizeof t.span_id) == 0 &&
                         t.flags == again.flags,
                     "traceparent is written otherwise: %s", out);
    }
    if (trace_state_parse(text, state))
        fuzz_require(trace_state_parse(bytes_str(state), state2) && strcmp(state, state2) == 0,
                     "tracestate '%s' becomes '%s'", state, state2);
    else
        fuzz_require(state[0] == '\0', "a refused tracestate is passed on");
}

static void try_identity(struct bytes text)
{
    struct identity a, b;
    char out[IDENTITY_URI_BYTES_MAX + 1];
    if (identity_parse(text, &a) != 0)
        return;
    fuzz_require(identity_parse(bytes_str(identity_format(&a, out)), &b) == 0 && a.kind == b.kind &&
                     a.node_id == b.node_id && strcmp(a.name, b.name) == 0,
                 "identity is written as '%s'", out);
}

/* Whatever the values are: one line, and no control bytes. */
static void try_fields(struct bytes text)
{
    struct buf out = BUF_INIT;
    field_bytes(&out, "a", text);
    field_text(&out, "b", "plain");
    fuzz_require(!has(&out, '\n') && !has(&out, '\0') && !has(&out, '\x1b'), "more than a line");
    field_end(&out);
    fuzz_require(out.data[out.size - 1] == '\n', "no line");
    const char *quoted = log_quote(text);
    fuzz_require(strchr(quoted, '\n') == NULL && quoted[0] == '"', "quoted: more than a line");
    for (size_t i = 0; i < text.size; i++) {
        size_t n = utf8_char((const uint8_t *)text.data + i, text.size - i);
        fuzz_require(n <= text.size - i, "a character beyond the end");
    }
    buf_deinit(&out);
}

static unsigned count(const struct buf *b, char c)
{
    unsigned n = 0;
    for (size_t i = 0; i < b->size; i++)
        n += b->data[i] == (uint8_t)c;
    return n;
}

/* A message from the cluster, as the mount shows it. */
static void try_message(struct bytes text, bool event)
{
    struct arena a;
    struct buf out = BUF_INIT;
    arena_init(&a);
    ProtobufCMessage *m =
        pack_parse(&a, event ? &hf__event__descriptor : &hf__node__descriptor, text);
    if (m != NULL && event) {
        event_line((const Hf__Event *)(const void *)m, &out);
        fuzz_require(out.size == 0 || count(&out, '\n') == 1, "an event of several lines");
    } else if (m != NULL) {
        report_node((const Hf__Node *)(const void *)m, &out);
    }
    fuzz_require(!has(&out, '\0') && !has(&out, '\x1b'), "control bytes are shown");
    buf_deinit(&out);
    arena_deinit(&a);
}

/* Readers of the event stream at any offsets. */
static void try_event_log(struct feed *f)
{
    static const char line[] = "time=x event=granted path=abcdefghijklmnopqrstuvwxyz0123456789\n";
    struct event_log l;
    struct event_reader r = {0};
    char *many = xmalloc(EVENT_LOG_CHUNK_BYTES);
    size_t n_many = 0;
    while (n_many + strlen(line) <= EVENT_LOG_CHUNK_BYTES) {
        memcpy(many + n_many, line, strlen(line));
        n_many += strlen(line);
    }
    event_log_init(&l);
    for (unsigned i = 0; i < 64 && !feed_is_empty(f); i++) {
        struct buf out = BUF_INIT;
        uint8_t op = feed_u8(f);
        const uint64_t bases[] = {r.next, l.begin, l.end, 0, UINT64_MAX, l.end - r.shift};
        if (op % 4 == 0) {
            event_log_add(&l, bytes_of(many, op & 4 ? n_many : strlen(line)));
        } else {
            size_t size = feed_u8(f) * (op & 4 ? 17u : 1u);
            uint64_t offset = op % 4 == 1 ? r.next : feed_near(f, bases, 6);
            event_log_read(&l, &r, offset, size, 1, &out);
            fuzz_require(out.size <= size, "more than asked for");
            (void)event_log_has_more(&l, &r);
        }
        buf_deinit(&out);
    }
    event_log_clear(&l);
    event_reader_deinit(&r);
    free(many);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = feed_of(data, size);
    unsigned what = feed_below(&f, 12);
    struct bytes text = bytes_of(f.next, (size_t)(f.end - f.next));
    static void (*const tries[])(struct bytes text) = {
        try_command, try_address, try_numbers,  try_options, try_path,
        try_owner,   try_trace,   try_identity, try_fields,
    };
    if (what < sizeof tries / sizeof tries[0])
        tries[what](text);
    else if (what < 11)
        try_message(text, what == 9);
    else
        try_event_log(&f);
    return 0;
}
