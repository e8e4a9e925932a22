#include "fs/tally.h"

#include "raftstore/base/buf.h"

#include <linux/fuse.h>
#include <stdlib.h>

#define SLOTS_MIN 64u

static const char *const names[TALLY_OPCODES] = {
    [FUSE_LOOKUP] = "lookup",
    [FUSE_GETATTR] = "getattr",
    [FUSE_SETATTR] = "setattr",
    [FUSE_READLINK] = "readlink",
    [FUSE_SYMLINK] = "symlink",
    [FUSE_MKNOD] = "mknod",
    [FUSE_MKDIR] = "mkdir",
    [FUSE_UNLINK] = "unlink",
    [FUSE_RMDIR] = "rmdir",
    [FUSE_RENAME] = "rename",
    [FUSE_LINK] = "link",
    [FUSE_OPEN] = "open",
    [FUSE_READ] = "read",
    [FUSE_WRITE] = "write",
    [FUSE_STATFS] = "statfs",
    [FUSE_RELEASE] = "release",
    [FUSE_FSYNC] = "fsync",
    [FUSE_SETXATTR] = "setxattr",
    [FUSE_GETXATTR] = "getxattr",
    [FUSE_LISTXATTR] = "listxattr",
    [FUSE_REMOVEXATTR] = "removexattr",
    [FUSE_FLUSH] = "flush",
    [FUSE_INIT] = "init",
    [FUSE_OPENDIR] = "opendir",
    [FUSE_READDIR] = "readdir",
    [FUSE_RELEASEDIR] = "releasedir",
    [FUSE_FSYNCDIR] = "fsyncdir",
    [FUSE_GETLK] = "getlk",
    [FUSE_SETLK] = "setlk",
    [FUSE_SETLKW] = "setlkw",
    [FUSE_ACCESS] = "access",
    [FUSE_CREATE] = "create",
    [FUSE_DESTROY] = "destroy",
    [FUSE_IOCTL] = "ioctl",
    [FUSE_POLL] = "poll",
    [FUSE_FALLOCATE] = "fallocate",
    [FUSE_READDIRPLUS] = "readdirplus",
    [FUSE_RENAME2] = "rename2",
    [FUSE_LSEEK] = "lseek",
    [FUSE_COPY_FILE_RANGE] = "copy_file_range",
};

void tally_deinit(struct tally *t)
{
    for (unsigned i = 0; i < TALLY_OPCODES; i++)
        free(t->kinds[i]);
    free(t->slots);
    *t = (struct tally){0};
}

/* What has no name is one kind, one errno: a metric must not come twice. */
static void count(struct tally *t, const struct tally_slot *s, uint32_t error, uint64_t now_ns)
{
    uint32_t opcode = s->opcode < TALLY_OPCODES && names[s->opcode] != NULL ? s->opcode : 0;
    struct tally_kind **kind = &t->kinds[opcode];
    bool named = error < TALLY_ERRNOS - 1 && error != 41 && error != 58; /* Holes in Linux' list. */
    if (*kind == NULL)
        *kind = xcalloc(1, sizeof **kind);
    (*kind)->counts[named ? error : TALLY_ERRNOS - 1]++;
    buckets_add(&(*kind)->took, now_ns - s->begin_ns);
}

/* Numbers of requests are even and count up: their neighbourhood is the order of their arrival. */
static size_t home_of(const struct tally *t, uint64_t unique)
{
    return (size_t)(unique / 2) & (t->n_slots - 1);
}

static void put(struct tally *t, struct tally_slot slot)
{
    size_t at = home_of(t, slot.unique);
    while (t->slots[at].unique != 0)
        at = (at + 1) & (t->n_slots - 1);
    t->slots[at] = slot;
}

static void grow(struct tally *t)
{
    struct tally_slot *old = t->slots;
    size_t n_old = t->n_slots;
    t->n_slots = n_old > 0 ? 2 * n_old : SLOTS_MIN;
    t->slots = xcalloc(t->n_slots, sizeof *t->slots);
    for (size_t i = 0; i < n_old; i++)
        if (old[i].unique != 0)
            put(t, old[i]);
    free(old);
}

/* Empty a slot; those behind it that it kept from their places move up. */
static void take(struct tally *t, size_t hole)
{
    size_t mask = t->n_slots - 1;
    for (size_t at = (hole + 1) & mask; t->slots[at].unique != 0; at = (at + 1) & mask) {
        size_t home = home_of(t, t->slots[at].unique);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            t->slots[hole] = t->slots[at];
            hole = at;
        }
    }
    t->slots[hole].unique = 0;
    t->n_pending--;
}

/* These are never answered. */
static bool is_silent(uint32_t opcode)
{
    return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT ||
           opcode == FUSE_NOTIFY_REPLY;
}

void tally_begin(struct tally *t, uint32_t opcode, uint64_t unique, uint64_t now_ns)
{
    t->now = (struct tally_slot){is_silent(opcode) ? 0 : unique, opcode, now_ns};
}

void tally_end(struct tally *t)
{
    if (t->now.unique == 0)
        return;
    if (2 * (t->n_pending + 1) > t->n_slots)
        grow(t);
    put(t, t->now);
    t->n_pending++;
    t->now.unique = 0;
}

void tally_answer(struct tally *t, uint64_t unique, uint32_t error, uint64_t now_ns)
{
    if (unique == 0)
        return;
    if (unique == t->now.unique) {
        count(t, &t->now, error, now_ns);
        t->now.unique = 0;
        return;
    }
    if (t->n_pending == 0)
        return;
    for (size_t at = home_of(t, unique); t->slots[at].unique != 0;
         at = (at + 1) & (t->n_slots - 1)) {
        if (t->slots[at].unique == unique) {
            count(t, &t->slots[at], error, now_ns);
            take(t, at);
            return;
        }
    }
}

const char *tally_name(uint32_t opcode)
{
    const char *name = opcode < TALLY_OPCODES ? names[opcode] : NULL;
    return name != NULL ? name : "other";
}
