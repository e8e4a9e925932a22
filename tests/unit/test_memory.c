/* What a peak needed goes back to the system. */
#include "raftstore/base/memory.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB (1024 * 1024)

/* Sanitizers bring one. */
#ifndef __has_feature
#define __has_feature(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||                               \
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define OTHER_ALLOCATOR true
#else
#define OTHER_ALLOCATOR false
#endif

/* Without malloc(), whose blocks would stand behind what is to go. */
static long resident_mib(void)
{
    char text[200] = "";
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    (void)close(fd);
    return strtol(strchr(text, ' '), NULL, 10) * sysconf(_SC_PAGESIZE) / MIB;
}

/* MiB that stay after a queue of 16 MiB and then 24 MiB of small things have come and gone. */
static long left_by_a_peak(void)
{
    enum { N = 24 * 256 };
    static void *small[N];
    long before = resident_mib();
    void *volatile queue = malloc(16 * MIB);
    assert_non_null(queue);
    memset(queue, 1, 16 * MIB);
    free(queue);
    for (int i = 0; i < N; i++) {
        small[i] = malloc(4000);
        assert_non_null(small[i]);
        memset(small[i], 1, 4000);
    }
    assert_in_range(resident_mib() - before, 20, 40);
    for (int i = 0; i < N; i++)
        free(small[i]);
    return resident_mib() - before;
}

static void a_peak_is_given_back(void **state)
{
    int status;
    (void)state;
    if (OTHER_ALLOCATOR)
        skip();
    pid_t pid = fork(); /* What glibc has learned meanwhile is its own. */
    assert_true(pid >= 0);
    if (pid == 0) {
        memory_init();
        _exit((int)left_by_a_peak());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_in_range(WEXITSTATUS(status), 0, 2 * MEMORY_SPARE_BYTES / MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_peak_is_given_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
