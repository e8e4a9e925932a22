#include "fault_vfs.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "raftstore/base/buf.h"
#include "raftstore/base/random.h"

#define SECTOR 512

struct change {
    struct change *next; /* The one before. */
    char *path;
    sqlite3_int64 offset;
    int size;
    uint8_t old[];
};

struct fault_file {
    sqlite3_file base;
    sqlite3_file *real; /* Behind this struct. */
    char *path;         /* Owned. */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static sqlite3_vfs vfs, *real_vfs;
static unsigned count, fail_at;
static int code_write, code_sync;
static const char *held_suffix; /* NULL = no file's syncs are held. */
static unsigned n_held, n_pass; /* Syncs that wait, and how many of them may go on. */
static pthread_cond_t held_changed = PTHREAD_COND_INITIALIZER;
static bool tracking;
static struct change *changes; /* The newest first. */

static struct fault_file *of(sqlite3_file *f)
{
    return (struct fault_file *)(void *)f;
}

/* Is this call to fail? Under the mutex. */
static bool fails(void)
{
    count++;
    return fail_at != 0 && count >= fail_at;
}

static void remember(struct fault_file *f, int size, sqlite3_int64 offset)
{
    struct change *c = xcalloc(1, sizeof *c + (size_t)size);
    c->next = changes;
    c->path = xstrdup(f->path);
    c->offset = offset;
    c->size = size;
    (void)f->real->pMethods->xRead(f->real, c->old, size, offset); /* Behind the end: zeros. */
    changes = c;
}

static void forget(const char *path)
{
    for (struct change **p = &changes; *p != NULL;) {
        struct change *c = *p;
        if (strcmp(c->path, path) != 0) {
            p = &c->next;
            continue;
        }
        *p = c->next;
        free(c->path);
        free(c);
    }
}

static int fault_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
    struct fault_file *f = of(file);
    pthread_mutex_lock(&mutex);
    int rc = fails() ? code_write : SQLITE_OK;
    if (rc == SQLITE_OK && tracking)
        remember(f, size, offset);
    if (rc == SQLITE_OK)
        rc = f->real->pMethods->xWrite(f->real, data, size, offset);
    pthread_mutex_unlock(&mutex);
    return rc;
}

static bool is_held(const char *path)
{
    size_t n = strlen(path), m = held_suffix != NULL ? strlen(held_suffix) : 0;
    return m > 0 && n >= m && strcmp(path + n - m, held_suffix) == 0;
}

/* Under the mutex, which is given up meanwhile. */
static void wait_if_held(const char *path)
{
    if (!is_held(path))
        return;
    n_held++;
    pthread_cond_broadcast(&held_changed);
    while (is_held(path) && n_pass == 0)
        pthread_cond_wait(&held_changed, &mutex);
    n_held--;
    if (n_pass > 0)
        n_pass--;
}

static int fault_sync(sqlite3_file *file, int flags)
{
    struct fault_file *f = of(file);
    pthread_mutex_lock(&mutex);
    wait_if_held(f->path);
    int rc = fails() ? code_sync : SQLITE_OK;
    if (rc == SQLITE_OK)
        rc = f->real->pMethods->xSync(f->real, flags);
    if (rc == SQLITE_OK)
        forget(f->path);
    pthread_mutex_unlock(&mutex);
    return rc;
}

static int fault_close(sqlite3_file *file)
{
    struct fault_file *f = of(file);
    int rc = f->real->pMethods->xClose(f->real);
    free(f->path);
    return rc;
}

static int fault_read(sqlite3_file *file, void *data, int size, sqlite3_int64 offset)
{
    return of(file)->real->pMethods->xRead(of(file)->real, data, size, offset);
}

static int fault_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    return of(file)->real->pMethods->xTruncate(of(file)->real, size);
}

static int fault_size(sqlite3_file *file, sqlite3_int64 *size)
{
    return of(file)->real->pMethods->xFileSize(of(file)->real, size);
}

static int fault_lock(sqlite3_file *file, int level)
{
    return of(file)->real->pMethods->xLock(of(file)->real, level);
}

static int fault_unlock(sqlite3_file *file, int level)
{
    return of(file)->real->pMethods->xUnlock(of(file)->real, level);
}

static int fault_check_lock(sqlite3_file *file, int *out)
{
    return of(file)->real->pMethods->xCheckReservedLock(of(file)->real, out);
}

static int fault_control(sqlite3_file *file, int op, void *arg)
{
    return of(file)->real->pMethods->xFileControl(of(file)->real, op, arg);
}

static int fault_sector_size(sqlite3_file *file)
{
    return of(file)->real->pMethods->xSectorSize(of(file)->real);
}

static int fault_characteristics(sqlite3_file *file)
{
    return of(file)->real->pMethods->xDeviceCharacteristics(of(file)->real);
}

static const sqlite3_io_methods methods = {
    .iVersion = 1, /* No shared memory: the store must do without. */
    .xClose = fault_close,
    .xRead = fault_read,
    .xWrite = fault_write,
    .xTruncate = fault_truncate,
    .xSync = fault_sync,
    .xFileSize = fault_size,
    .xLock = fault_lock,
    .xUnlock = fault_unlock,
    .xCheckReservedLock = fault_check_lock,
    .xFileControl = fault_control,
    .xSectorSize = fault_sector_size,
    .xDeviceCharacteristics = fault_characteristics,
};

static int
fault_open(sqlite3_vfs *v, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
    (void)v;
    struct fault_file *f = of(file);
    f->real = (sqlite3_file *)(void *)(f + 1);
    f->base.pMethods = NULL;
    int rc = real_vfs->xOpen(real_vfs, name, f->real, flags, ret_flags);
    if (f->real->pMethods == NULL)
        return rc;
    f->path = xstrdup(name != NULL ? name : "");
    f->base.pMethods = &methods;
    return rc;
}

void fault_vfs_install(void)
{
    real_vfs = sqlite3_vfs_find(NULL);
    if (real_vfs == NULL)
        abort();
    vfs = *real_vfs; /* What does not concern files goes straight to the real one. */
    vfs.zName = "fault";
    vfs.szOsFile = (int)sizeof(struct fault_file) + real_vfs->szOsFile;
    vfs.xOpen = fault_open;
    if (sqlite3_vfs_register(&vfs, 1) != SQLITE_OK)
        abort();
}

void fault_vfs_fail(unsigned nth, int write_code, int sync_code)
{
    pthread_mutex_lock(&mutex);
    count = 0;
    fail_at = nth;
    code_write = write_code;
    code_sync = sync_code;
    pthread_mutex_unlock(&mutex);
}

bool fault_vfs_failed(void)
{
    pthread_mutex_lock(&mutex);
    bool failed = fail_at != 0 && count >= fail_at;
    pthread_mutex_unlock(&mutex);
    return failed;
}

unsigned fault_vfs_count(void)
{
    pthread_mutex_lock(&mutex);
    unsigned n = count;
    pthread_mutex_unlock(&mutex);
    return n;
}

void fault_vfs_hold(const char *suffix)
{
    pthread_mutex_lock(&mutex);
    held_suffix = suffix;
    n_pass = 0;
    pthread_cond_broadcast(&held_changed);
    pthread_mutex_unlock(&mutex);
}

void fault_vfs_await_held(void)
{
    pthread_mutex_lock(&mutex);
    while (n_held == 0 || n_pass > 0) /* The one let through is not the one waited for. */
        pthread_cond_wait(&held_changed, &mutex);
    pthread_mutex_unlock(&mutex);
}

void fault_vfs_pass(void)
{
    pthread_mutex_lock(&mutex);
    n_pass++;
    pthread_cond_broadcast(&held_changed);
    pthread_mutex_unlock(&mutex);
}

void fault_vfs_track(void)
{
    tracking = true;
}

void fault_vfs_cut(uint64_t seed)
{
    struct random rng = {seed};
    pthread_mutex_lock(&mutex); /* Never unlocked. */
    for (struct change *c = changes; c != NULL; c = c->next) {
        int fd = open(c->path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
            continue; /* Removed meanwhile. */
        for (int at = 0; at < c->size;) {
            int n = SECTOR - (int)((c->offset + at) % SECTOR);
            n = n < c->size - at ? n : c->size - at;
            if (random_below(&rng, 2) == 0 &&
                pwrite(fd, c->old + at, (size_t)n, c->offset + at) != n)
                abort();
            at += n;
        }
        (void)close(fd);
    }
}
