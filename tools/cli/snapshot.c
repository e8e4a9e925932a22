/* snapshot save FILE: the state as a SQLite database, whole or not at all. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct saving {
    int fd;
    uint64_t size;  /* Written so far. */
    uint64_t index; /* Of the state. */
    int error;      /* 0, or why the file can't be written or trusted; negative errno. */
    bool whole;
};

static int write_all(int fd, const uint8_t *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

static void on_chunk(void *arg, const struct client_reply *reply)
{
    struct saving *s = arg;
    const Hf__SnapshotChunk *chunk = reply->chunk;
    if (chunk == NULL || s->error != 0)
        return;
    if (chunk->offset != s->size) {
        s->error = -EPROTO; /* A hole: not to be trusted. */
        return;
    }
    s->error = write_all(s->fd, chunk->data.data, chunk->data.len);
    s->size += chunk->data.len;
    if (chunk->index != 0)
        s->index = chunk->index;
    s->whole = chunk->last && (chunk->size == 0 || chunk->size == s->size);
}

/* Make the name last: fsync its directory. */
static int sync_directory(const char *file)
{
    char copy[PATH_MAX];
    (void)snprintf(copy, sizeof copy, "%s", file);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) < 0 ? -errno : 0;
    (void)close(fd);
    return rc;
}

static int finish(struct saving *s, const char *temporary, const char *file)
{
    if (s->error == 0 && !s->whole)
        s->error = -EPROTO;
    if (s->error == 0 && fsync(s->fd) < 0)
        s->error = -errno;
    if (close(s->fd) < 0 && s->error == 0)
        s->error = -errno;
    if (s->error == 0 && rename(temporary, file) < 0)
        s->error = -errno;
    if (s->error == 0)
        s->error = sync_directory(file);
    return s->error;
}

static int save(struct cli *cli, const char *file)
{
    Hf__Admin admin = HF__ADMIN__INIT;
    struct saving s = {0};
    char temporary[PATH_MAX], text[300] = "";
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.part-%ld", file, (long)getpid()) >=
        sizeof temporary)
        return cli_fail(EXIT_USAGE, "the file's name is too long");
    s.fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (s.fd < 0)
        return cli_fail(EXIT_CANT_WRITE, "%s: %s", temporary, strerror(errno));
    admin.what = HF__ADMIN__WHAT__SNAPSHOT;
    int status = cli_admin(cli, &admin, on_chunk, &s, text, sizeof text);
    if (status != 0) {
        (void)close(s.fd);
        (void)unlink(temporary);
        return cli_fail_status(cli, status, "snapshot save", text);
    }
    if (finish(&s, temporary, file) < 0) {
        (void)unlink(temporary); /* Gone already when only the directory failed. */
        return cli_fail(EXIT_CANT_WRITE, "%s: %s", file,
                        s.error == -EPROTO ? "the snapshot came with a hole in it"
                                           : strerror(-s.error));
    }
    if (cli->json)
        return print_json(json_pack("{s:s, s:I, s:I}", "file", file, "bytes", (json_int_t)s.size,
                                    "index", (json_int_t)s.index));
    (void)printf("%s: %llu bytes, the state at index %llu\n", file, (unsigned long long)s.size,
                 (unsigned long long)s.index);
    return EXIT_DONE;
}

int cli_snapshot(struct cli *cli, int n, char **words)
{
    if (n != 2 || strcmp(words[0], "save") != 0 || words[1][0] == '\0')
        return cli_fail(EXIT_USAGE, "snapshot save FILE");
    int code = cli_connect(cli, false);
    return code == EXIT_DONE ? save(cli, words[1]) : code;
}
