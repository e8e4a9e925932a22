#include "fs/owner.h"

#include "raftstore/base/duration.h"
#include "raftstore/base/random.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define PID_NAMESPACE_INIT 0xeffffffcu /* Inode of the machine's own pid name space. */

/* In containers process ids mean something else, though host name and boot may be the same. */
static void add_pid_namespace(struct owner_namer *n)
{
    struct stat st;
    uint32_t key = UINT32_C(0x811c9dc5); /* FNV-1a. */
    if (stat("/proc/self/ns/pid", &st) < 0 || st.st_ino == PID_NAMESPACE_INIT)
        return;
    for (const char *p = n->boot; *p != '\0'; p++)
        key = (key ^ (uint8_t)*p) * UINT32_C(0x01000193);
    for (uint64_t rest = st.st_ino; rest != 0; rest >>= 8)
        key = (key ^ (uint8_t)rest) * UINT32_C(0x01000193);
    (void)snprintf(n->boot, sizeof n->boot, "%08" PRIx32, key);
}

void owner_namer_init(struct owner_namer *n, const char *host)
{
    *n = (struct owner_namer){.nonce = (uint32_t)random_system()};
    (void)snprintf(n->host, sizeof n->host, "%s", host); /* Cut on purpose. */
    for (char *p = n->host; *p != '\0'; p++)
        if (*p == '/')
            *p = '_';
    (void)snprintf(n->boot, sizeof n->boot, "00000000");
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    char text[OWNER_BOOT_BYTES];
    if (read(fd, text, sizeof text) == (ssize_t)sizeof text)
        memcpy(n->boot, text, sizeof text);
    (void)close(fd);
    add_pid_namespace(n);
}

void owner_format(struct owner_namer *n, struct process_id process, struct buf *out)
{
    n->counter++;
    buf_printf(out, "%s/%s/%" PRIu32 ".%" PRIu64 "/%08" PRIx32 "-%" PRIx64, n->host, n->boot,
               process.pid, process.start, n->nonce, n->counter);
}

/* Take what stands before `stop` off the front. */
static bool take_until(struct bytes *rest, char stop, struct bytes *ret)
{
    const char *p = rest->data;
    const char *end = rest->size > 0 ? memchr(p, stop, rest->size) : NULL;
    if (end == NULL)
        return false;
    *ret = bytes_of(p, (size_t)(end - p));
    *rest = bytes_of(end + 1, rest->size - ret->size - 1);
    return true;
}

bool owner_parse(const struct owner_namer *n, struct bytes text, struct process_id *ret_process)
{
    struct bytes host, boot, pid, start;
    uint64_t pid_number, start_number;
    if (!take_until(&text, '/', &host) || !take_until(&text, '/', &boot) ||
        !take_until(&text, '.', &pid) || !take_until(&text, '/', &start))
        return false;
    if (!bytes_equal(host, bytes_str(n->host)) || !bytes_equal(boot, bytes_str(n->boot)))
        return false;
    if (number_parse(pid, &pid_number) < 0 || number_parse(start, &start_number) < 0 ||
        pid_number == 0 || pid_number > INT32_MAX)
        return false;
    *ret_process = (struct process_id){(uint32_t)pid_number, start_number};
    return true;
}

bool owner_is_of(const struct owner_namer *n, struct bytes text)
{
    /* ".../NONCE-COUNTER" of a lease, ".../sNONCE/..." of a lock of the session. */
    char lease[12], lock[12];
    (void)snprintf(lease, sizeof lease, "/%08" PRIx32 "-", n->nonce);
    (void)snprintf(lock, sizeof lock, "/s%08" PRIx32 "/", n->nonce);
    if (text.data == NULL || text.size == 0)
        return false;
    return memmem(text.data, text.size, lease, strlen(lease)) != NULL ||
           memmem(text.data, text.size, lock, strlen(lock)) != NULL;
}
