/* Unit tests of fs/process.c and fs/owner.c, with real processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/owner.h"
#include "fs/process.h"

static struct process_table *table;

static int setup(void **state)
{
    (void)state;
    table = process_table_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    process_table_free(table);
    return 0;
}

static struct process_id self(void)
{
    return process_of_thread(table, (uint32_t)getpid());
}

/* A child that waits until its pipe closes. */
struct child {
    pid_t pid;
    int fd;
};

static struct child spawn(void)
{
    int fds[2];
    char byte;
    assert_int_equal(pipe(fds), 0);
    struct child c = {fork(), fds[1]};
    if (c.pid == 0) {
        (void)close(fds[1]);
        (void)!read(fds[0], &byte, 1);
        _exit(0);
    }
    (void)close(fds[0]);
    return c;
}

static void reap(struct child c)
{
    (void)close(c.fd);
    assert_int_equal(waitpid(c.pid, NULL, 0), c.pid);
}

static void test_self(void **state)
{
    struct lineage l;
    struct process_id me = self();
    (void)state;
    assert_true(me.pid == (uint32_t)getpid() && me.start > 0);
    assert_true(process_alive(table, me));
    assert_true(process_lineage(table, me, &l));
    assert_true(process_equal(l.ids[0], me));
    assert_true(l.n < 2 || l.ids[1].pid == (uint32_t)getppid());
    for (unsigned i = 0; i < l.n; i++)
        assert_true(l.ids[i].pid > 1);
    /* Again, out of the table. */
    struct lineage again;
    assert_true(process_lineage(table, me, &again));
    assert_int_equal(l.n, again.n);
    assert_memory_equal(l.ids, again.ids, l.n * sizeof l.ids[0]);
}

static void test_unknown(void **state)
{
    struct lineage l = {.n = 5};
    struct process_id me = self();
    (void)state;
    assert_int_equal(process_of_thread(table, 0).pid, 0);
    assert_int_equal(process_of_thread(table, 0x7ffffff0u).pid, 0);
    assert_false(process_lineage(table, (struct process_id){0, 0}, &l));
    assert_int_equal(l.n, 0);
    me.start++; /* The pid of another process. */
    assert_false(process_lineage(table, me, &l));
    assert_false(process_alive(table, me));
    assert_true(process_open_pidfd(me) < 0);
}

static void *thread_main(void *arg)
{
    *(struct process_id *)arg = process_of_thread(table, (uint32_t)syscall(SYS_gettid));
    return NULL;
}

static void test_thread(void **state)
{
    pthread_t thread;
    struct process_id id = {0, 0};
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, thread_main, &id), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(process_equal(id, self()));
}

static void test_death(void **state)
{
    struct child c = spawn();
    struct process_id id = process_of_thread(table, (uint32_t)c.pid);
    struct lineage l;
    (void)state;
    assert_true(id.pid == (uint32_t)c.pid);
    assert_true(process_lineage(table, id, &l));
    assert_true(l.n >= 2 && process_equal(l.ids[1], self()));
    assert_true(lineage_contains(&l, self()));
    int fd = process_open_pidfd(id);
    assert_true(fd >= 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
    (void)close(c.fd);
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_false(process_alive(table, id)); /* A zombie is dead. */
    assert_false(process_lineage(table, id, &l));
    assert_int_equal(waitpid(c.pid, NULL, 0), c.pid);
    assert_false(process_alive(table, id));
    (void)close(fd);
}

/* middle forks a grandchild, says its pid, and waits to be told to die. */
static pid_t spawn_family(struct child *middle, bool new_session)
{
    int report[2], fds[2];
    char byte;
    pid_t grandchild = 0;
    assert_int_equal(pipe(report), 0);
    assert_int_equal(pipe(fds), 0);
    middle->pid = fork();
    middle->fd = fds[1];
    if (middle->pid == 0) {
        (void)close(fds[1]);
        if (new_session)
            (void)setsid();
        pid_t pid = fork();
        if (pid == 0) {
            (void)close(report[0]);
            (void)prctl(PR_SET_PDEATHSIG, 0);
            (void)pause();
            _exit(0);
        }
        (void)!write(report[1], &pid, sizeof pid);
        (void)!read(fds[0], &byte, 1);
        _exit(0);
    }
    (void)close(fds[0]);
    assert_int_equal(read(report[0], &grandchild, sizeof grandchild), sizeof grandchild);
    (void)close(report[0]);
    (void)close(report[1]);
    return grandchild;
}

/* We adopt the grandchild when its parent dies; the table must notice, although it had read the
 * parent before. */
static void test_adoption(void **state)
{
    struct child middle;
    struct lineage l;
    (void)state;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    pid_t pid = spawn_family(&middle, true);
    struct process_id id = process_of_thread(table, (uint32_t)pid);
    struct process_id middle_id = process_of_thread(table, (uint32_t)middle.pid);
    assert_true(process_lineage(table, id, &l));
    assert_true(l.n >= 3);
    assert_true(process_equal(l.ids[1], middle_id));
    assert_true(process_equal(l.ids[2], self()));
    assert_true(l.n_heirs >= 3); /* setsid(1) by a child of ours breaks nothing. */
    reap(middle);
    assert_true(process_lineage(table, id, &l));
    assert_true(process_equal(l.ids[1], self()));
    assert_int_equal(l.n_heirs, 1); /* Its session's leader is gone: we adopted it. */
    assert_false(lineage_contains(&l, middle_id));
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

/* More processes than the table remembers. */
static void test_many(void **state)
{
    enum { N = 300 };
    struct child children[N];
    struct process_id ids[N];
    (void)state;
    for (int i = 0; i < N; i++) {
        children[i] = spawn();
        ids[i] = process_of_thread(table, (uint32_t)children[i].pid);
        assert_true(ids[i].pid != 0);
    }
    for (int i = 0; i < N; i++)
        assert_true(process_alive(table, ids[i]));
    for (int i = 0; i < N; i++)
        (void)close(children[i].fd);
    for (int i = 0; i < N; i++)
        reap((struct child){children[i].pid, dup(0)});
    for (int i = 0; i < N; i++)
        assert_false(process_alive(table, ids[i]));
}

static void test_owner(void **state)
{
    struct owner_namer namer, other;
    struct process_id id = {4242, 81733}, parsed = {0, 0};
    struct buf text = BUF_INIT, text2 = BUF_INIT;
    (void)state;
    owner_namer_init(&namer, "db1/x");
    assert_string_equal(namer.host, "db1_x");
    owner_format(&namer, id, &text);
    owner_format(&namer, id, &text2);
    assert_false(bytes_equal(bytes_of(text.data, text.size), bytes_of(text2.data, text2.size)));
    assert_true(owner_parse(&namer, bytes_of(text.data, text.size), &parsed));
    assert_true(process_equal(parsed, id));
    owner_namer_init(&other, "db2");
    assert_false(owner_parse(&other, bytes_of(text.data, text.size), &parsed));
    owner_namer_init(&other, "db1_x"); /* The next daemon of this host. */
    assert_true(owner_parse(&other, bytes_of(text.data, text.size), &parsed));
    memcpy(other.boot, "zzzzzzzz", 8); /* Another boot. */
    assert_false(owner_parse(&other, bytes_of(text.data, text.size), &parsed));
    for (size_t n = 0; n < text.size; n++) /* Cut anywhere: never read beyond. */
        (void)owner_parse(&namer, bytes_of(text.data, n), &parsed);
    buf_deinit(&text);
    buf_deinit(&text2);
    /* The longest there can be fits the bound of an owner. */
    char host[100];
    memset(host, 'h', sizeof host);
    host[99] = '\0';
    owner_namer_init(&namer, host);
    namer.counter = UINT64_MAX - 1;
    owner_format(&namer, (struct process_id){4194304, UINT64_C(999999999999)}, &text);
    assert_true(text.size <= 128);
    buf_deinit(&text);
}

static void test_owner_malformed(void **state)
{
    static const char *const rest[] = {
        "", "1", "1.", "1.2", ".2/x", "a.2/x", "1.b/x", "0.2/x", "-1.2/x", "99999999999.2/x",
    };
    struct owner_namer namer;
    struct process_id parsed;
    (void)state;
    owner_namer_init(&namer, "h");
    for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++) {
        struct buf text = BUF_INIT;
        buf_printf(&text, "h/%s/%s", namer.boot, rest[i]);
        assert_false(owner_parse(&namer, bytes_of(text.data, text.size), &parsed));
        buf_deinit(&text);
    }
    assert_false(owner_parse(&namer, bytes_of(NULL, 0), &parsed));
    assert_false(owner_parse(&namer, bytes_str("alice"), &parsed));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_self, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown, setup, teardown),
        cmocka_unit_test_setup_teardown(test_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_death, setup, teardown),
        cmocka_unit_test_setup_teardown(test_adoption, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many, setup, teardown),
        cmocka_unit_test(test_owner),
        cmocka_unit_test(test_owner_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
