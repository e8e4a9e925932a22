#include "store_harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raftstore/base/buf.h"

void rig_init(struct rig *r)
{
    const char *tmp = getenv("TMPDIR");
    *r = (struct rig){0};
    (void)snprintf(r->directory, sizeof r->directory, "%s/holdfast-store-XXXXXX",
                   tmp != NULL && strlen(tmp) < 400 ? tmp : "/tmp");
    if (mkdtemp(r->directory) == NULL || uv_loop_init(&r->loop) != 0)
        abort();
}

static void clear(struct rig *r)
{
    free(r->failure);
    free(r->sentence);
    r->failure = r->sentence = NULL;
    r->n_failures = 0;
    r->ticket = r->persisted = 0;
    r->n_done = 0;
}

void rig_deinit(struct rig *r)
{
    rig_close(r);
    clear(r);
    (void)uv_loop_close(&r->loop);
    remove_tree(r->directory);
}

static void on_persisted(void *arg, uint64_t ticket)
{
    struct rig *r = arg;
    if (ticket <= r->persisted || ticket > r->ticket || r->failure != NULL)
        abort();
    r->persisted = ticket;
}

static void on_failed(void *arg, const char *sentence)
{
    struct rig *r = arg;
    r->n_failures++;
    free(r->failure);
    r->failure = xstrdup(sentence);
}

static void on_done(void *arg, int status)
{
    struct rig *r = arg;
    if (status == 0)
        r->n_done++;
}

int rig_open(struct rig *r, size_t log_file_bytes)
{
    clear(r);
    struct store_config config = {.loop = &r->loop,
                                  .directory = r->directory,
                                  .log_file_bytes = log_file_bytes,
                                  .on_persisted = on_persisted,
                                  .on_failed = on_failed,
                                  .arg = r};
    int error = store_open(&config, &r->store, &r->loaded, &r->sentence);
    if (error != 0) {
        r->store = NULL;
        (void)uv_run(&r->loop, UV_RUN_DEFAULT); /* The handle closes. */
    }
    return error;
}

void rig_close(struct rig *r)
{
    if (r->store == NULL)
        return;
    store_close(r->store);
    r->store = NULL;
    (void)uv_run(&r->loop, UV_RUN_DEFAULT);
}

bool rig_wait(struct rig *r)
{
    while (r->persisted < r->ticket && r->failure == NULL)
        (void)uv_run(&r->loop, UV_RUN_ONCE);
    return r->persisted == r->ticket;
}

bool rig_wait_done(struct rig *r, unsigned n_done)
{
    while (r->n_done < n_done && r->failure == NULL)
        (void)uv_run(&r->loop, UV_RUN_ONCE);
    return r->n_done >= n_done;
}

void remove_tree(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        char name[1024];
        (void)snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            (void)unlink(name);
    }
    if (d != NULL)
        (void)closedir(d);
    (void)rmdir(path);
}

static void copy_file(const char *from, const char *to)
{
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (in < 0 || out < 0)
        abort();
    static char chunk[1 << 20];
    for (ssize_t n; (n = read(in, chunk, sizeof chunk)) > 0;)
        if (write(out, chunk, (size_t)n) != n)
            abort();
    (void)close(in);
    (void)close(out);
}

void copy_tree(const char *from, const char *to)
{
    remove_tree(to);
    if (mkdir(to, 0700) != 0)
        abort();
    DIR *d = opendir(from);
    if (d == NULL)
        abort();
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char a[1024], b[1024];
        (void)snprintf(a, sizeof a, "%s/%s", from, e->d_name);
        (void)snprintf(b, sizeof b, "%s/%s", to, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            copy_file(a, b);
    }
    (void)closedir(d);
}

/* The content of an entry. */
static void fill(uint64_t index, uint64_t term, uint8_t *data, size_t size)
{
    struct random rng = {index * 1000003 + term};
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = random_next(&rng);
        memcpy(data + i, &word, size - i < 8 ? size - i : 8);
    }
}

void model_apply(struct model *m, const struct op *op)
{
    if (op->snapshot_index != 0) {
        m->snapshot_index = op->snapshot_index;
        if (op->install)
            m->last = op->snapshot_index;
        return;
    }
    if (op->set_vote) {
        m->term = op->term;
        m->voted_for = op->voted_for;
    }
    if (op->truncate_from != 0 && op->truncate_from <= m->last)
        m->last = op->truncate_from - 1;
    for (unsigned i = 0; i < op->n_entries; i++) {
        m->last++;
        m->entries[m->last].term = (uint32_t)op->term;
        m->entries[m->last].size = (uint32_t)op->entry_bytes;
    }
}

static size_t random_size(struct random *rng)
{
    switch (random_below(rng, 12)) {
    case 0:
        return 0;
    case 1:
        return random_below(rng, 10000);
    case 2:
        return random_below(rng, 65536);
    default:
        return random_below(rng, 300);
    }
}

void op_random(const struct model *m, struct random *rng, struct op *ret)
{
    *ret = (struct op){.term = m->term > 0 ? m->term : 1};
    uint64_t kind = random_below(rng, 100);
    if (kind < 10) {
        ret->set_vote = true;
        ret->term++;
        ret->voted_for = random_below(rng, 4);
    } else if (kind < 25 && m->last > m->snapshot_index) {
        uint64_t span = m->last - m->snapshot_index;
        ret->set_vote = true; /* A new leader's entries. */
        ret->term++;
        ret->truncate_from = m->last + 1 - random_below(rng, span < 40 ? span : 40);
        ret->n_entries = (unsigned)random_below(rng, 4);
    } else if (kind < 30 && m->last > m->snapshot_index) {
        ret->snapshot_index =
            m->snapshot_index + 1 + random_below(rng, m->last - m->snapshot_index);
    } else if (kind < 32) {
        ret->snapshot_index = m->last + 1 + random_below(rng, 50);
        ret->install = true;
    } else if (kind < 40) {
        uint64_t trailing = random_below(rng, 10);
        ret->drop_to = m->snapshot_index > trailing ? m->snapshot_index - trailing : 0;
    } else {
        ret->n_entries = 1 + (unsigned)random_below(rng, 6);
        ret->entry_bytes = random_size(rng);
    }
}

void rig_write(struct rig *r, const struct model *before, const struct op *op)
{
    if (op->snapshot_index != 0) {
        char path[600];
        store_image_path(r->store, op->snapshot_index, op->install, path, sizeof path);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, "image", 5) != 5 || close(fd) != 0)
            abort();
        struct replica_image image = {.index = op->snapshot_index,
                                      .term = before->term,
                                      .conf_index = 1,
                                      .conf = bytes_str("conf")};
        store_snapshot_commit(r->store, &image, path, op->install, on_done, r);
        return;
    }
    uint64_t last = op->truncate_from != 0 && op->truncate_from <= before->last
                        ? op->truncate_from - 1
                        : before->last;
    struct replica_entry entries[64];
    uint8_t *data = xmalloc(op->n_entries * (op->entry_bytes + 1) + 1);
    for (unsigned i = 0; i < op->n_entries; i++) {
        uint8_t *at = data + i * op->entry_bytes;
        entries[i] = (struct replica_entry){last + 1 + i, op->term, RAFT_COMMAND,
                                            bytes_of(at, op->entry_bytes)};
        fill(last + 1 + i, op->term, at, op->entry_bytes);
    }
    struct replica_write w = {.ticket = ++r->ticket,
                              .set_vote = op->set_vote,
                              .term = op->term,
                              .voted_for = op->voted_for,
                              .truncate_from = op->truncate_from,
                              .entries = entries,
                              .n_entries = op->n_entries,
                              .drop_to = op->drop_to};
    store_write(r->store, &w);
    free(data);
}

const char *model_compare(const struct model *m, const struct store_loaded *l)
{
    static char text[160];
    if (l->term != m->term || l->voted_for != m->voted_for)
        return "term or vote";
    if (l->image.index != m->snapshot_index)
        return "snapshot";
    uint64_t last = l->n_entries > 0 ? l->entries[l->n_entries - 1].index : l->image.index;
    if (last != m->last || (l->n_entries > 0 && l->entries[0].index > m->snapshot_index + 1)) {
        (void)snprintf(text, sizeof text, "log is %llu..%llu, must end at %llu",
                       l->n_entries > 0 ? (unsigned long long)l->entries[0].index : 0,
                       (unsigned long long)last, (unsigned long long)m->last);
        return text;
    }
    static uint8_t expected[65536];
    for (unsigned i = 0; i < l->n_entries; i++) {
        const struct replica_entry *e = &l->entries[i];
        if (i > 0 && e->index != l->entries[i - 1].index + 1)
            return "a gap";
        if (e->term != m->entries[e->index].term || e->data.size != m->entries[e->index].size ||
            e->type != RAFT_COMMAND)
            return "an entry's term, type or size";
        fill(e->index, e->term, expected, e->data.size);
        if (!bytes_equal(e->data, bytes_of(expected, e->data.size)))
            return "an entry's data";
    }
    return NULL;
}
