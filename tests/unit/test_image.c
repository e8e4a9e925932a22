/* Images: a round trip keeps every answer, the shell can read them, damage is found. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "raftstore/lock/view.h"
#include "raftstore/node/image.h"
#include "store_harness.h"
#include "table_harness.h"

static struct rig rig; /* Only its directory is used. */
static char path[600];
static const struct replica_image identity = {.index = 4711, .term = 12, .conf_index = 3};

static int setup(void **state)
{
    (void)state;
    rig_init(&rig);
    (void)snprintf(path, sizeof path, "%s/image.db", rig.directory);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_deinit(&rig);
    return 0;
}

static void assert_same_digest(const struct lock_table *a, const struct lock_table *b)
{
    struct lock_digest x = lock_digest(a), y = lock_digest(b);
    assert_true(x.lo == y.lo && x.hi == y.hi);
}

/* The two tables behave alike from here on. */
static void assert_same_future(struct lock_table *a, struct lock_table *b, uint64_t seed)
{
    struct commands c;
    commands_init(&c, seed + 1000);
    c.stamp_ns = UINT64_C(4000000000);
    c.n = 5000;
    for (unsigned i = 0; i < 500; i++) {
        struct lock_command k;
        struct lock_effects x, y;
        commands_next(&c, &k);
        lock_step(a, 10000 + i, &k, &x);
        lock_step(b, 10000 + i, &k, &y);
        assert_int_equal(x.result.code, y.result.code);
        assert_true(x.result.token == y.result.token && x.n == y.n);
        assert_same_digest(a, b);
    }
    assert_null(lock_check(b));
}

static void test_round_trip(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct lock_table *t = table_of_commands(seed, seed == 1 ? 0 : 100 * (unsigned)seed);
        struct replica_image in = identity, out;
        char conf[16] = {1, 0, 2, (char)seed};
        in.conf = bytes_of(conf, seed % 2 == 0 ? sizeof conf : 0);
        char *sentence = NULL;
        struct lock_table *back;
        assert_int_equal(image_write(path, t, &in, 12345, &sentence), 0);
        int error = image_read(path, &back, &out, &sentence);
        if (error != 0)
            print_error("seed %d: %s\n", (int)seed, sentence);
        assert_int_equal(error, 0);
        assert_true(out.index == in.index && out.term == in.term && out.conf_index == 3);
        assert_true(bytes_equal(out.conf, in.conf));
        assert_same_digest(t, back);
        assert_null(lock_check(back));
        assert_same_future(t, back, seed);
        free((void *)(uintptr_t)out.conf.data);
        lock_table_free(t);
        lock_table_free(back);
    }
    char wal[700];
    (void)snprintf(wal, sizeof wal, "%s-wal", path);
    assert_int_not_equal(access(wal, F_OK), 0);
}

static void test_bytes(void **state)
{
    (void)state;
    struct lock_table *t = table_of_commands(3, 2000), *back;
    struct bytes image, again;
    struct replica_image out;
    assert_int_equal(image_write_bytes(t, &identity, &image), 0);
    assert_int_equal(image_write_bytes(t, &identity, &again), 0);
    assert_true(bytes_equal(image, again));
    assert_int_equal(image_read_bytes(image, &back, &out), 0);
    assert_same_digest(t, back);
    assert_int_equal(out.index, identity.index);
    free((void *)(uintptr_t)out.conf.data);
    lock_table_free(back);
    assert_int_equal(image_read_bytes(bytes_of(image.data, 100), &back, &out), -EBADMSG);
    assert_int_equal(image_read_bytes(bytes_of(NULL, 0), &back, &out), -EBADMSG);
    free((void *)(uintptr_t)image.data);
    free((void *)(uintptr_t)again.data);
    lock_table_free(t);
}

static void one_text(sqlite3 *db, const char *sql, const char *expected)
{
    sqlite3_stmt *stmt;
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(stmt, 0), expected);
    sqlite3_finalize(stmt);
}

/* What people see with the sqlite3 shell. */
static void test_shell(void **state)
{
    (void)state;
    struct lock_table *t = table_of_leases(10);
    char *sentence = NULL;
    int64_t wall_ns = INT64_C(1700000000000) * 1000000;
    assert_int_equal(image_write(path, t, &identity, wall_ns, &sentence), 0);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    one_text(db, "PRAGMA user_version", "3");
    one_text(db, "PRAGMA integrity_check", "ok");
    one_text(db, "SELECT count(*) FROM lock", "10");
    one_text(db, "SELECT lock_id FROM lock WHERE owner_id = 'worker-00003'",
             "jobs/003/lock-0000003");
    one_text(db, "SELECT mode FROM lock LIMIT 1", "exclusive");
    one_text(db, "SELECT typeof(version) FROM lock LIMIT 1", "integer");
    one_text(db, "SELECT min(expires_at) FROM lock", "1700003600000");
    one_text(db, "SELECT count(*) FROM pragma_index_list('lock') WHERE name = 'lock_expires_at'",
             "1");
    sqlite3_close(db);
    lock_table_free(t);
}

/* A flipped bit: the table comes back the same, or the file is refused by name. */
static void test_flips(void **state)
{
    (void)state;
    struct lock_table *t = table_of_commands(5, 1500);
    char *sentence = NULL;
    assert_int_equal(image_write(path, t, &identity, 0, &sentence), 0);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat st;
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    struct random rng = {9};
    unsigned n_found = 0, n = getenv("HOLDFAST_FLIPS") != NULL ? 20000 : 1500;
    for (unsigned i = 0; i < n; i++) {
        off_t at = (off_t)random_below(&rng, i % 8 == 0 ? 200 : (uint64_t)st.st_size);
        uint8_t byte, bad, mask = (uint8_t)(1u << random_below(&rng, 8));
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        bad = byte ^ mask;
        assert_int_equal(pwrite(fd, &bad, 1, at), 1);
        struct lock_table *back;
        struct replica_image out;
        int error = image_read(path, &back, &out, &sentence);
        if (error == 0) {
            assert_same_digest(t, back);
            assert_true(out.index == identity.index && out.term == identity.term);
            free((void *)(uintptr_t)out.conf.data);
            lock_table_free(back);
        } else {
            n_found++;
            if (error != -EBADMSG || strstr(sentence, path) == NULL)
                print_error("offset %lld: %d %s\n", (long long)at, error, sentence);
            assert_int_equal(error, -EBADMSG);
            assert_non_null(strstr(sentence, path));
            free(sentence);
            sentence = NULL;
        }
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    print_message("%u of %u flips found, the others hit unused space\n", n_found, n);
    assert_true(n_found > n / 4);
    (void)close(fd);
    lock_table_free(t);
}

static void test_truncated(void **state)
{
    (void)state;
    struct lock_table *t = table_of_commands(5, 1500), *back;
    struct replica_image out;
    char *sentence = NULL;
    assert_int_equal(image_write(path, t, &identity, 0, &sentence), 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    for (off_t size = st.st_size - 1; size >= 0; size = size * 3 / 4 - 1) {
        assert_int_equal(truncate(path, size), 0);
        assert_int_equal(image_read(path, &back, &out, &sentence), -EBADMSG);
        assert_non_null(strstr(sentence, path));
        free(sentence);
    }
    assert_int_equal(unlink(path), 0);
    assert_int_not_equal(image_read(path, &back, &out, &sentence), 0);
    assert_non_null(strstr(sentence, path));
    free(sentence);
    lock_table_free(t);
}

static void test_newer_format(void **state)
{
    (void)state;
    struct lock_table *t = table_of_commands(5, 10), *back;
    struct replica_image out;
    char *sentence = NULL;
    assert_int_equal(image_write(path, t, &identity, 0, &sentence), 0);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=4", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(image_read(path, &back, &out, &sentence), -EBADMSG);
    assert_non_null(strstr(sentence, "version 4"));
    free(sentence);
    lock_table_free(t);
}

static char *text_of_file(const char *name)
{
    FILE *file = fopen(name, "re");
    assert_non_null(file);
    char *text = calloc(1, 100000);
    size_t n = fread(text, 1, 99999, file);
    assert_true(n > 1000 && feof(file));
    (void)fclose(file);
    return text;
}

/* Holds of each sort. */
struct sorts {
    unsigned n_semaphores, n_links, n_mtimes;
};

static struct sorts count_sorts(const struct lock_table *t)
{
    struct sorts n = {0};
    for (uint64_t token = 1; token <= lock_counts(t).last_token; token++) {
        struct lock_hold_view h;
        struct bytes at;
        if (!lock_find_token(t, token, &h, &at))
            continue;
        n.n_semaphores += h.limit != 0;
        n.n_links += h.n_links > 1;
        n.n_mtimes += h.mtime_ns != 0;
    }
    return n;
}

/* An image as the program of that time wrote it, dumped by the shell. */
static struct lock_table *read_dump(const char *name)
{
    char *dump = text_of_file(name), *sentence = NULL;
    struct lock_table *t;
    struct replica_image out;
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, dump, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    free(dump);
    int error = image_read(path, &t, &out, &sentence);
    if (error != 0)
        print_error("%s\n", sentence);
    assert_int_equal(error, 0);
    assert_true(out.index == 4711 && out.term == 12 && out.conf_index == 3 && out.conf.size == 4);
    free((void *)(uintptr_t)out.conf.data);
    assert_null(lock_check(t));
    return t;
}

/* On from here in the present format. */
static void write_and_compare(struct lock_table *t)
{
    struct lock_table *back;
    struct replica_image out;
    char *sentence = NULL;
    assert_int_equal(image_write(path, t, &identity, 0, &sentence), 0);
    assert_int_equal(image_read(path, &back, &out, &sentence), 0);
    free((void *)(uintptr_t)out.conf.data);
    assert_same_digest(t, back);
    assert_same_future(t, back, 4);
    lock_table_free(t);
    lock_table_free(back);
}

/* Version 1 had no semaphores. */
static void test_first_format(void **state)
{
    (void)state;
    struct lock_table *t = read_dump(IMAGES "/image_v1.sql");
    struct lock_counts n = lock_counts(t);
    assert_true(n.holds == 49 && n.waiters == 3 && n.sessions == 11);
    assert_int_equal(count_sorts(t).n_semaphores, 0);
    write_and_compare(t);
}

/* Version 2 had no times and no files. */
static void test_second_format(void **state)
{
    (void)state;
    struct lock_table *t = read_dump(IMAGES "/image_v2.sql");
    struct lock_counts n = lock_counts(t);
    struct sorts sorts = count_sorts(t);
    assert_true(n.holds == 59 && n.waiters == 3 && n.sessions == 13);
    assert_true(sorts.n_semaphores == 8 && sorts.n_links == 0 && sorts.n_mtimes == 0);
    write_and_compare(t);
}

/* Give every hold that can have one a second name. */
static void link_all(struct lock_table *t)
{
    uint64_t last = lock_counts(t).last_token, stamp_ns = lock_counts(t).stamp_ns;
    for (uint64_t token = 1; token <= last; token++) {
        struct lock_hold_view h;
        struct bytes at;
        struct lock_effects fx;
        char from[LOCK_PATH_BYTES_MAX + 1], to[32];
        if (!lock_find_token(t, token, &h, &at))
            continue;
        (void)snprintf(from, sizeof from, "%.*s", (int)at.size, (const char *)at.data);
        (void)snprintf(to, sizeof to, "second-%u", (unsigned)token);
        struct lock_command k = {.op = LOCK_OP_LINK,
                                 .stamp_ns = stamp_ns,
                                 .session_id = h.session_id,
                                 .seq = 1000000 + token,
                                 .paths = {bytes_str(from), bytes_str(to)},
                                 .n_paths = 2,
                                 .token = token};
        lock_step(t, 20000 + token, &k, &fx); /* Some are no leases. */
    }
}

/* Does the number, time or file of any hold get lost or made up on the way? */
static void test_columns_kept(void **state)
{
    (void)state;
    struct lock_table *t = table_of_commands(7, 2000), *back;
    char *sentence = NULL;
    struct replica_image out;
    link_all(t);
    assert_int_equal(image_write(path, t, &identity, 0, &sentence), 0);
    assert_int_equal(image_read(path, &back, &out, &sentence), 0);
    free((void *)(uintptr_t)out.conf.data);
    for (uint64_t token = 1; token <= lock_counts(t).last_token; token++) {
        struct lock_hold_view a, b;
        struct bytes at;
        if (!lock_find_token(t, token, &a, &at))
            continue;
        assert_true(lock_find_token(back, token, &b, &at));
        assert_int_equal(a.limit, b.limit);
        assert_int_equal(a.mtime_ns, b.mtime_ns);
        assert_int_equal(a.file_token, b.file_token);
        assert_int_equal(a.n_links, b.n_links);
    }
    struct sorts sorts = count_sorts(t);
    assert_true(sorts.n_semaphores > 0 && sorts.n_links > 0 && sorts.n_mtimes > 0);
    lock_table_free(t);
    lock_table_free(back);
}

static void test_unwritable(void **state)
{
    (void)state;
    struct lock_table *t = table_of_commands(5, 10);
    char *sentence = NULL;
    assert_true(image_write("/nonexistent/image.db", t, &identity, 0, &sentence) < 0);
    assert_non_null(strstr(sentence, "/nonexistent/image.db"));
    free(sentence);
    lock_table_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shell, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flips, setup, teardown),
        cmocka_unit_test_setup_teardown(test_truncated, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newer_format, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_format, setup, teardown),
        cmocka_unit_test_setup_teardown(test_second_format, setup, teardown),
        cmocka_unit_test_setup_teardown(test_columns_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unwritable, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
