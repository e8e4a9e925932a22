/* holdfast run: names of files, exit codes, the command as a process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tools/cli/run.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void signals_are_read(void **state)
{
    static const struct {
        const char *text;
        int number;
    } cases[] = {
        {"TERM", SIGTERM}, {"SIGTERM", SIGTERM}, {"15", 15},         {"KILL", SIGKILL},
        {"USR1", SIGUSR1}, {"64", 64},           {"0", -EINVAL},     {"65", -EINVAL},
        {"", -EINVAL},     {"SIG", -EINVAL},     {"term", -EINVAL},  {"TERM ", -EINVAL},
        {"-9", -EINVAL},   {"SIGSIG", -EINVAL},  {"99999", -EINVAL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (text_signal(cases[i].text) != cases[i].number)
            fail_msg("'%s': %d", cases[i].text, text_signal(cases[i].text));
}

static void names_are_joined(void **state)
{
    static const struct {
        const char *directory, *name, *joined;
    } cases[] = {
        {"/locks", "a", "/locks/a"},        {"/", "a", "/a"},
        {"/locks", "/other/a", "/other/a"}, {"/locks", "./a//b/./c", "/locks/a/b/c"},
        {"/locks", "a/", "/locks/a"},       {"/locks", "..a/b..", "/locks/..a/b.."},
        {"/locks", "", "/locks"},           {"/locks", "../a", NULL},
        {"/locks", "a/..", NULL},           {"/locks", "/a/../b", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *joined = place_join(cases[i].directory, cases[i].name);
        if (cases[i].joined == NULL)
            assert_null(joined);
        else
            assert_string_equal(joined, cases[i].joined);
        free(joined);
    }
}

/* Nothing of this is on a mount, and all of it is told so. */
static void other_files_are_refused(void **state)
{
    char directory[] = "/tmp/hf-unit-XXXXXX", loop[64], self[64];
    static const char *const names[] = {"/", "/etc", "/etc/passwd", "/no/such/directory/x",
                                        "x", "./x",  "../x",        "/etc/passwd/x"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct place p = {0};
        assert_int_equal(place_find(names[i], &p), EXIT_NOT_HOLDFAST);
        assert_null(p.root);
    }
    struct place p = {0};
    assert_int_equal(place_find("", &p), EXIT_USAGE);
    assert_non_null(mkdtemp(directory));
    (void)snprintf(loop, sizeof loop, "%s/loop", directory);
    (void)snprintf(self, sizeof self, "%s/self", directory);
    assert_int_equal(symlink("self/../loop", loop), 0);
    assert_int_equal(symlink(directory, self), 0);
    assert_int_equal(place_find(loop, &p), EXIT_NOT_HOLDFAST);
    assert_int_equal(unlink(loop), 0);
    assert_int_equal(unlink(self), 0);
    assert_int_equal(rmdir(directory), 0);
}

static void statuses_become_codes(void **state)
{
    (void)state;
    assert_int_equal(child_exit_code(W_EXITCODE(0, 0)), 0);
    assert_int_equal(child_exit_code(W_EXITCODE(255, 0)), 255);
    assert_int_equal(child_exit_code(W_EXITCODE(0, SIGKILL)), 137);
    assert_int_equal(child_exit_code(W_EXITCODE(0, SIGSEGV) | WCOREFLAG), 139);
}

/* ---- Processes -------------------------------------------------------------------------- */

struct rig {
    uv_loop_t loop;
    struct child child;
    int n_signals;
    int n_continued;
};

static void on_signal(void *arg, int number)
{
    struct rig *rig = arg;
    rig->n_signals += number == SIGTERM;
}

static void on_continue(void *arg)
{
    ((struct rig *)arg)->n_continued++;
}

static void rig_init(struct rig *rig)
{
    const struct child_callbacks callbacks = {on_signal, on_continue, rig};
    struct sigaction old;
    memset(rig, 0, sizeof *rig);
    assert_int_equal(uv_loop_init(&rig->loop), 0);
    assert_int_equal(sigaction(SIGPIPE, NULL, &old), 0);
    assert_int_equal(child_init(&rig->child, &rig->loop, &callbacks, &old), 0);
    uv_ref((uv_handle_t *)&rig->child.poll); /* There is no client here. */
}

/* Return: exit code. */
static int rig_end(struct rig *rig)
{
    while (rig->child.pid != 0 && !rig->child.ended)
        (void)uv_run(&rig->loop, UV_RUN_ONCE);
    int code = child_exit_code(rig->child.status);
    (void)sigprocmask(SIG_SETMASK, &rig->child.old_mask, NULL);
    child_deinit(&rig->child);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
    return code;
}

static int run_shell(const char *script)
{
    struct rig rig;
    char *words[] = {"sh", "-c", (char *)(uintptr_t)script, NULL};
    rig_init(&rig);
    assert_int_equal(child_start(&rig.child, words), 0);
    int code = rig_end(&rig);
    return code;
}

static void a_command_ends(void **state)
{
    (void)state;
    assert_int_equal(run_shell("exit 0"), 0);
    assert_int_equal(run_shell("exit 42"), 42);
    assert_int_equal(run_shell("kill -KILL $$"), 128 + SIGKILL);
    /* What it leaves behind doesn't count. */
    assert_int_equal(run_shell("(exit 3) & exit 4"), 4);
}

static void some_commands_can_not_be_executed(void **state)
{
    static const struct {
        const char *name;
        int code, error;
    } cases[] = {
        {"/no/such/program", 127, -ENOENT},
        {"no-such-program", 127, -ENOENT},
        {"", 127, -ENOENT},
        {"/etc/passwd", 126, -EACCES},
        {"/", 126, -EACCES},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rig rig;
        char *words[] = {(char *)(uintptr_t)cases[i].name, NULL};
        rig_init(&rig);
        assert_int_equal(child_start(&rig.child, words), 0);
        while (!rig.child.ended)
            (void)uv_run(&rig.loop, UV_RUN_ONCE);
        assert_int_equal(child_exec_error(&rig.child), cases[i].error);
        assert_int_equal(rig_end(&rig), cases[i].code);
    }
}

/* Before the command is there a signal is ours, then it is the command's. */
static void signals_go_where_they_should(void **state)
{
    struct rig rig;
    char *words[] = {"sh", "-c", "trap 'exit 9' TERM; echo; while :; do sleep 0.01; done", NULL};
    int fds[2], out = dup(STDOUT_FILENO);
    char c;
    (void)state;
    rig_init(&rig);
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    while (rig.n_signals == 0)
        (void)uv_run(&rig.loop, UV_RUN_ONCE);
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(dup2(fds[1], STDOUT_FILENO), STDOUT_FILENO);
    assert_int_equal(child_start(&rig.child, words), 0);
    assert_int_equal(dup2(out, STDOUT_FILENO), STDOUT_FILENO);
    assert_int_equal(read(fds[0], &c, 1), 1); /* The trap is set. */
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    assert_int_equal(rig_end(&rig), 9);
    assert_int_equal(rig.n_signals, 1);
    (void)close(fds[0]);
    (void)close(fds[1]);
    (void)close(out);
}

/* A command, its child, and a grandchild whose parent has ended: all are told. */
static void a_whole_tree_is_signalled(void **state)
{
    struct rig rig;
    char *words[] = {"sh", "-c",
                     "trap '' TERM; (sleep 1000 & exec sleep 1000) & "
                     "(sh -c 'echo $$; exec sleep 1000' & :) ; wait; exit 5",
                     NULL};
    int fds[2], out = dup(STDOUT_FILENO);
    char text[32] = "";
    (void)state;
    rig_init(&rig);
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(dup2(fds[1], STDOUT_FILENO), STDOUT_FILENO);
    assert_int_equal(child_start(&rig.child, words), 0);
    assert_int_equal(dup2(out, STDOUT_FILENO), STDOUT_FILENO);
    assert_true(read(fds[0], text, sizeof text - 1) > 0);
    pid_t orphan = (pid_t)strtol(text, NULL, 10);
    assert_true(orphan > 0 && kill(orphan, 0) == 0);
    child_signal_all(&rig.child, SIGKILL);
    assert_int_equal(rig_end(&rig), 128 + SIGKILL);
    /* It became ours when its parent ended; nobody else reaps it. */
    assert_true(waitpid(orphan, NULL, 0) == orphan || (errno == ECHILD && kill(orphan, 0) < 0));
    while (waitpid(-1, NULL, 0) > 0)
        ;
    (void)close(fds[0]);
    (void)close(fds[1]);
    (void)close(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_are_read),
        cmocka_unit_test(names_are_joined),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(statuses_become_codes),
        cmocka_unit_test(a_command_ends),
        cmocka_unit_test(some_commands_can_not_be_executed),
        cmocka_unit_test(signals_go_where_they_should),
        cmocka_unit_test(a_whole_tree_is_signalled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
