/* The store over damaged files: it opens with exactly what was acknowledged (the damage hit nothing
 * that counts), or it fails with a sentence that names the file.  Never anything in between. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "store_harness.h"

#define FILES_MAX 32

static struct rig rig;       /* rig.directory: the whole one. */
static struct model *models; /* [0] is the last state, [1] the one before the last operation. */
static char damaged[sizeof rig.directory];
static char names[FILES_MAX][64];
static off_t sizes[FILES_MAX];
static unsigned n_files;
static unsigned n_found, n_harmless;

/* Write, and end without closing: what a crash leaves. Several files, the last one part full. */
static void fill_directory(bool clean_close)
{
    char *sentence = NULL;
    assert_int_equal(rig_open(&rig, RIG_FILE_BYTES), 0);
    assert_int_equal(store_initialise(rig.store, 1, 77, NULL, 0, &sentence), 0);
    rig_close(&rig);
    struct op ops[96];
    unsigned n = 0;
    ops[n++] = (struct op){.set_vote = true, .term = 4, .voted_for = 2};
    for (int i = 0; i < 14; i++)
        ops[n++] = (struct op){.term = 4, .n_entries = 3, .entry_bytes = (size_t)i * 1000};
    ops[n++] = (struct op){.snapshot_index = 30};
    ops[n++] = (struct op){.drop_to = 12};
    ops[n++] = (struct op){.set_vote = true, .term = 8, .truncate_from = 36, .n_entries = 1};
    for (int i = 0; i < 40; i++)
        ops[n++] = (struct op){.term = 8, .n_entries = 2, .entry_bytes = 100 + 5 * (size_t)i};
    ops[n++] = (struct op){.term = 8, .n_entries = 1, .entry_bytes = 200};
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (rig_open(&rig, RIG_FILE_BYTES) != 0)
            _exit(2);
        struct model *m = &models[1];
        for (unsigned i = 0; i < n; i++) {
            rig_write(&rig, m, &ops[i]);
            model_apply(m, &ops[i]);
            if (!rig_wait(&rig) || (ops[i].snapshot_index != 0 && !rig_wait_done(&rig, 1)))
                _exit(3);
        }
        if (clean_close)
            rig_close(&rig);
        else
            (void)usleep(300000); /* The second thread comes to rest. */
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    for (unsigned i = 0; i < n; i++) {
        models[1] = models[0];
        model_apply(&models[0], &ops[i]);
    }
}

static int setup(bool clean_close)
{
    models = calloc(2, sizeof *models);
    rig_init(&rig);
    fill_directory(clean_close);
    (void)snprintf(damaged, sizeof damaged, "%.500s.bad", rig.directory);
    n_files = n_found = n_harmless = 0;
    DIR *d = opendir(rig.directory);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[1024];
        struct stat st;
        (void)snprintf(path, sizeof path, "%s/%s", rig.directory, e->d_name);
        if (e->d_name[0] == '.' || stat(path, &st) != 0 || st.st_size == 0 ||
            strncmp(e->d_name, "snapshot", 8) == 0) /* Verified by image_read(). */
            continue;
        (void)snprintf(names[n_files], sizeof names[0], "%.60s", e->d_name);
        sizes[n_files++] = st.st_size;
    }
    (void)closedir(d);
    return 0;
}

static int setup_crashed(void **state)
{
    (void)state;
    return setup(false);
}

static int setup_closed(void **state)
{
    (void)state;
    return setup(true);
}

static int teardown(void **state)
{
    (void)state;
    remove_tree(damaged);
    rig_deinit(&rig);
    free(models);
    return 0;
}

/* The name of the database that a file belongs to. */
static void base_name(const char *name, char *out, size_t size)
{
    (void)snprintf(out, size, "%s", name);
    char *end = strstr(out, ".db");
    if (end != NULL)
        end[3] = '\0';
}

/* Open the damaged copy. Return: true if it opened (with the state of models[n], n <= last_lost).
 */
static bool judge(const char *name, const char *what, bool last_may_be_lost)
{
    char base[64], whole[sizeof rig.directory];
    base_name(name, base, sizeof base);
    memcpy(whole, rig.directory, sizeof whole);
    memcpy(rig.directory, damaged, sizeof whole);
    int error = rig_open(&rig, RIG_FILE_BYTES);
    const char *difference = NULL;
    if (error == 0) {
        difference = model_compare(&models[0], rig.loaded);
        if (difference != NULL && last_may_be_lost)
            difference = model_compare(&models[1], rig.loaded);
        n_harmless++;
    } else {
        n_found++;
        if (strstr(rig.sentence, base) == NULL || strstr(rig.sentence, "; ") == NULL)
            difference = rig.sentence;
        else if (error != -EBADMSG && error != -ENOTSUP && error != -EROFS)
            difference = rig.sentence;
    }
    if (difference != NULL)
        print_error("%s, %s: error %d, wrong: %s\n", name, what, error, difference);
    rig_close(&rig);
    memcpy(rig.directory, whole, sizeof whole);
    assert_null(difference);
    return error == 0;
}

static void path_of(unsigned file, char *out, size_t size)
{
    (void)snprintf(out, size, "%s/%s", damaged, names[file]);
}

static void flip(unsigned file, off_t at, unsigned bit)
{
    char path[1024];
    uint8_t byte = 0;
    path_of(file, path, sizeof path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= (uint8_t)(1u << bit);
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    (void)close(fd);
}

static void try_flip(unsigned file, off_t at, unsigned bit)
{
    char what[64];
    (void)snprintf(what, sizeof what, "bit %u at offset %lld", bit, (long long)at);
    copy_tree(rig.directory, damaged);
    flip(file, at, bit);
    (void)judge(names[file], what, false);
}

/* Every kind of file, a bit anywhere; and more of them near the beginning, where headers are. */
static void test_flips(void **state)
{
    (void)state;
    const char *text = getenv("HOLDFAST_FLIPS");
    unsigned n = text != NULL ? (unsigned)strtoul(text, NULL, 10) : 16;
    struct random rng = {11};
    for (unsigned i = 0; i < n_files; i++) {
        for (unsigned k = 0; k < n; k++) {
            off_t span = k % 4 == 0 && sizes[i] > 100 ? 100 : sizes[i];
            try_flip(i, (off_t)random_below(&rng, (uint64_t)span), (unsigned)random_below(&rng, 8));
        }
    }
    print_message("%u found, %u harmless\n", n_found, n_harmless);
    assert_true(n_found > 0 && n_harmless > 0);
}

/* The file that was being written at the crash, and how many of its frames are in use. */
static unsigned current_wal(void)
{
    unsigned found = FILES_MAX;
    for (unsigned i = 0; i < n_files; i++) {
        char path[1024];
        (void)snprintf(path, sizeof path, "%s/%s", rig.directory, names[i]);
        if (strstr(names[i], ".db-wal") == NULL)
            continue;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        uint8_t frames[3 * 4120];
        assert_true(fd >= 0 && pread(fd, frames, sizeof frames, 32) == sizeof frames);
        (void)close(fd);
        if (memcmp(frames + 8, frames + 2 * 4120 + 8, 8) == 0)
            found = i;
    }
    assert_int_not_equal(found, FILES_MAX);
    return found;
}

static unsigned frames_used(unsigned file)
{
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", rig.directory, names[file]);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t header[32], frame[24];
    assert_true(fd >= 0 && pread(fd, header, 32, 0) == 32);
    unsigned n = 0;
    while (pread(fd, frame, 24, 32 + (off_t)n * 4120) == 24 &&
           memcmp(frame + 8, header + 16, 8) == 0)
        n++;
    (void)close(fd);
    return n;
}

/* A bit in each frame of the WAL, in its header or its page: always found, the last too. */
static void test_flip_in_every_frame(void **state)
{
    (void)state;
    unsigned file = current_wal(), n = frames_used(file);
    struct random rng = {12};
    assert_true(n > 20);
    for (unsigned i = 0; i < n; i++) {
        off_t in_frame = (off_t)(i % 2 == 0 ? random_below(&rng, 24) : random_below(&rng, 4120));
        try_flip(file, 32 + (off_t)i * 4120 + in_frame, (unsigned)random_below(&rng, 8));
    }
    assert_int_equal(n_found, n);
    for (off_t at = 0; at < 32; at++) /* And in the header. */
        try_flip(file, at, (unsigned)random_below(&rng, 8));
    assert_int_equal(n_found, n + 32);
    for (off_t at = 0; at < 24; at++) /* And in all of the last frame's. */
        try_flip(file, 32 + (off_t)(n - 1) * 4120 + at, (unsigned)random_below(&rng, 8));
    assert_int_equal(n_found, n + 32 + 24);
}

static void overwrite(unsigned file, off_t at, size_t size, uint8_t with)
{
    char path[1024];
    uint8_t bytes[4120];
    memset(bytes, with, sizeof bytes);
    path_of(file, path, sizeof path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0 && pwrite(fd, bytes, size, at) == (ssize_t)size);
    (void)close(fd);
}

/* A sector lost in any frame but the last is found; in the last, it is what a crash leaves, and the
 * operation before is the state. */
static void test_lost_sectors(void **state)
{
    (void)state;
    unsigned file = current_wal(), n = frames_used(file);
    for (unsigned i = 0; i < n; i++) {
        copy_tree(rig.directory, damaged);
        overwrite(file, 32 + (off_t)i * 4120 + 24 + 3584, 512, 0xa5);
        bool opened = judge(names[file], "a lost sector", i == n - 1);
        assert_int_equal(opened, i == n - 1);
    }
}

static void test_torn_tail(void **state)
{
    (void)state;
    unsigned file = current_wal(), n = frames_used(file);
    for (size_t keep = 0; keep < 4120; keep += 103) {
        copy_tree(rig.directory, damaged);
        overwrite(file, 32 + (off_t)(n - 1) * 4120 + (off_t)keep, 4120 - keep, 0);
        assert_true(judge(names[file], "a torn tail", true));
    }
}

static void test_truncated(void **state)
{
    (void)state;
    for (unsigned i = 0; i < n_files; i++) {
        const off_t lengths[] = {0, 1, 100, sizes[i] / 2, sizes[i] - 4096, sizes[i] - 1};
        for (unsigned k = 0; k < sizeof lengths / sizeof *lengths; k++) {
            char path[1024];
            if (lengths[k] < 0 || lengths[k] >= sizes[i])
                continue;
            copy_tree(rig.directory, damaged);
            path_of(i, path, sizeof path);
            assert_int_equal(truncate(path, lengths[k]), 0);
            bool opened = judge(names[i], "truncated", false);
            /* The last page may be one that holds nothing. */
            if (k < 3 && strstr(names[i], "spare") == NULL && strstr(names[i], "journal") == NULL)
                assert_false(opened);
        }
    }
}

static void test_missing(void **state)
{
    (void)state;
    for (unsigned i = 0; i < n_files; i++) {
        char path[1024];
        copy_tree(rig.directory, damaged);
        path_of(i, path, sizeof path);
        assert_int_equal(unlink(path), 0);
        bool opened = judge(names[i], "missing", false);
        if (strstr(names[i], "spare") == NULL && strstr(names[i], "journal") == NULL)
            assert_false(opened);
    }
    copy_tree(rig.directory, damaged);
    char path[1024];
    (void)snprintf(path, sizeof path, "%.600s/snapshot-30.db", damaged);
    assert_int_equal(unlink(path), 0);
    assert_false(judge("snapshot-30.db", "missing", false));
}

/* meta.db of an earlier time beside younger log files. */
static void test_older_meta(void **state)
{
    (void)state;
    struct model *m = models;
    copy_tree(rig.directory, damaged);
    char whole[sizeof rig.directory], from[1024], command[4096];
    (void)snprintf(from, sizeof from, "%s.meta", damaged);
    (void)snprintf(command, sizeof command, "cp %.600s/meta.db %s", damaged, from);
    assert_int_equal(system(command), 0);
    memcpy(whole, rig.directory, sizeof whole);
    memcpy(rig.directory, damaged, sizeof whole);
    assert_int_equal(rig_open(&rig, RIG_FILE_BYTES), 0);
    for (int i = 0; i < 40; i++) {
        struct op op = {.term = 8, .n_entries = 2, .entry_bytes = 9000};
        rig_write(&rig, m, &op);
        model_apply(m, &op);
        assert_true(rig_wait(&rig));
    }
    rig_close(&rig);
    (void)snprintf(command, sizeof command, "mv %s %.600s/meta.db", from, damaged);
    assert_int_equal(system(command), 0);
    assert_int_equal(rig_open(&rig, RIG_FILE_BYTES), -EBADMSG);
    memcpy(rig.directory, whole, sizeof whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_flips, setup_crashed, teardown),
        cmocka_unit_test_setup_teardown(test_flips, setup_closed, teardown),
        cmocka_unit_test_setup_teardown(test_flip_in_every_frame, setup_crashed, teardown),
        cmocka_unit_test_setup_teardown(test_lost_sectors, setup_crashed, teardown),
        cmocka_unit_test_setup_teardown(test_torn_tail, setup_crashed, teardown),
        cmocka_unit_test_setup_teardown(test_truncated, setup_crashed, teardown),
        cmocka_unit_test_setup_teardown(test_truncated, setup_closed, teardown),
        cmocka_unit_test_setup_teardown(test_missing, setup_crashed, teardown),
        cmocka_unit_test_setup_teardown(test_older_meta, setup_closed, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
