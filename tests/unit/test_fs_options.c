/* Unit tests of fs/options.c and fs/path.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "fs/options.h"
#include "fs/path.h"

/* Parse a command line given as words separated by blanks. */
static int parse(const char *line, bool is_root, struct options *o, char **sentence)
{
    char *copy = strdup(line), *words[32] = {"mount.holdfast"}, *rest = NULL;
    int n = 1;
    for (char *w = strtok_r(copy, " ", &rest); w != NULL; w = strtok_r(NULL, " ", &rest))
        words[n++] = w;
    *sentence = NULL;
    int r = options_parse(n, words, is_root, o, sentence);
    free(copy);
    return r;
}

static void test_defaults(void **state)
{
    struct options o;
    char *sentence;
    (void)state;
    assert_int_equal(parse("local /locks", true, &o, &sentence), 0);
    assert_string_equal(o.source, "local");
    assert_string_equal(o.dir, "/locks");
    assert_true(o.is_local && o.allow_other && !o.foreground && !o.release_async);
    assert_true(o.ttl_ms == 30000 && o.session_ttl_ms == 10000 && o.timeout_ms == 10000);
    options_deinit(&o);
    assert_int_equal(parse("a:1,b:2 x", false, &o, &sentence), 0);
    assert_true(!o.is_local && !o.allow_other);
    options_deinit(&o);
}

static void test_as_mount_passes_them(void **state)
{
    struct options o;
    char *sentence;
    (void)state;
    assert_int_equal(
        parse("a:1 /m -v -n -o rw,nosuid,nodev,_netdev,nofail,x-systemd.automount,ttl=5s,ro", true,
              &o, &sentence),
        0);
    assert_true(o.ttl_ms == 5000);
    assert_true(o.log_level == LOG_LEVEL_DEBUG);
    assert_true(o.fuse.size == 2 && memcmp(o.fuse.data, "ro", 2) == 0);
    options_deinit(&o);
    assert_int_equal(
        parse(
            "-f -ottl=1500ms,timeout=2,session_ttl=1m,dircache=0,dirwatch -o release=async,host=h1 "
            "local m -o data=/d,noallow_other,log=/l,log_level=warn -t fuse.holdfast",
            true, &o, &sentence),
        0);
    assert_true(o.foreground && o.release_async && !o.allow_other);
    assert_true(o.ttl_ms == 1500 && o.timeout_ms == 2000 && o.session_ttl_ms == 60000);
    assert_true(o.dirwatch && o.dircache_ms == 0 && o.log_level == LOG_LEVEL_WARN);
    assert_string_equal(o.host, "h1");
    assert_string_equal(o.data, "/d");
    assert_string_equal(o.log, "/l");
    options_deinit(&o);
    assert_int_equal(parse("local /m -s -o unheard_of,other=1", true, &o, &sentence), 0);
    options_deinit(&o);
    assert_int_equal(parse("local /m -o lost=SIGTERM", true, &o, &sentence), 0);
    assert_true(o.lost_signal == SIGTERM && !o.lost_freeze);
    options_deinit(&o);
    assert_int_equal(parse("local /m -o lost=USR1,lost=freeze", true, &o, &sentence), 0);
    assert_true(o.lost_signal == 0 && o.lost_freeze);
    options_deinit(&o);
    assert_int_equal(parse("--help", true, &o, &sentence), 0);
    assert_true(o.help);
    options_deinit(&o);
}

/* What else a command line may say. */
static void test_forms(void **state)
{
    struct options o;
    char *sentence;
    (void)state;
    assert_int_equal(
        parse("-o ro,noexec -o sync,http_insecure --foreground -- -odd /m", true, &o, &sentence),
        0);
    assert_string_equal(o.source, "-odd");
    assert_true(o.foreground && o.http_insecure);
    assert_true(o.fuse.size == 14 && memcmp(o.fuse.data, "ro,noexec,sync", 14) == 0);
    options_deinit(&o);
    assert_int_equal(parse("-V", true, &o, &sentence), 0);
    assert_true(o.version);
    options_deinit(&o);
    assert_true(parse("local /m -o tls=/etc/holdfast", true, &o, &sentence) < 0);
    assert_non_null(strstr(sentence, "SOURCE local has none"));
    free(sentence);
}

static void test_refused(void **state)
{
    static const struct {
        const char *line;
        const char *names; /* What the sentence must name. */
    } rows[] = {
        {"", "SOURCE"},
        {"local", "DIR"},
        {"local /m extra", "extra"},
        {"local /m -o unheard_of", "unheard_of"},
        {"local /m -o other=1", "other"},
        {"local /m -o ttl=", "ttl"},
        {"local /m -o ttl=fast", "fast"},
        {"local /m -o ttl=9ms", "9ms"},
        {"local /m -o ttl=31d", "31d"},
        {"local /m -o session_ttl=99ms", "session_ttl"},
        {"local /m -o timeout=0", "timeout"},
        {"local /m -o release=later", "release"},
        {"local /m -o log_level=loud", "log_level"},
        {"local /m -o lost=", "lost"},
        {"local /m -o lost=NOSUCH", "lost"},
        {"local /m -o host=a/b", "host"},
        {"local /m -o data=", "data"},
        {"local /m -o otlp=", "otlp"},
        {"local /m -o otlp=http://localhost:4318,trace_ratio=2", "trace_ratio"},
        {"local /m -o trace_ratio=0.5", "otlp"},
        {"a:1 /m -o data=/d", "data"},
        {"local /m -o", "-o"},
        {"local /m -x", "-x"},
        {"local /m -N 3", "-N"},
        {"local /m --loud", "--loud"},
        {"local /m -t ext4", "-t"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct options o;
        char *sentence;
        assert_int_equal(parse(rows[i].line, true, &o, &sentence), -EINVAL);
        assert_non_null(sentence);
        print_message("%s: %s\n", rows[i].line, sentence);
        assert_non_null(strstr(sentence, rows[i].names));
        free(sentence);
    }
}

static void assert_data(char *path, const char *expected)
{
    if (expected == NULL)
        assert_null(path);
    else
        assert_string_equal(path, expected);
    free(path);
}

static void test_data_default(void **state)
{
    (void)state;
    assert_data(options_data_default(true, "/x", "/home/u"), "/var/lib/holdfast/local");
    assert_data(options_data_default(false, "/x", "/home/u"), "/x/holdfast");
    assert_data(options_data_default(false, "x", "/home/u"), "/home/u/.local/state/holdfast");
    assert_data(options_data_default(false, NULL, "/home/u"), "/home/u/.local/state/holdfast");
    assert_data(options_data_default(false, NULL, NULL), NULL);
}

static void assert_join(const char *parent, const char *name, int result, const char *expected)
{
    char *path = NULL;
    assert_int_equal(path_join(parent, name, &path), result);
    if (result == 0) {
        assert_string_equal(path, expected);
        assert_string_equal(path_name(path), name);
    }
    free(path);
}

static void test_paths(void **state)
{
    const char *deep = "1/1/1/1/1/1/1/1/1/1/1/1/1/1/1"; /* 15 components. */
    char name[257], long_path[1024];
    (void)state;
    assert_join("", "a", 0, "a");
    assert_join("a", "b", 0, "a/b");
    assert_join("a", ".x", 0, "a/.x");
    assert_join("a", "", -EINVAL, NULL);
    assert_join("a", ".", -EINVAL, NULL);
    assert_join("a", "..", -EINVAL, NULL);
    assert_join("a", "b/c", -EINVAL, NULL);
    assert_join("", ".holdfast", -EPERM, NULL);
    assert_join("a", ".holdfast", -EPERM, NULL);
    memset(name, 'n', 256);
    name[256] = '\0';
    assert_join("", name, -ENAMETOOLONG, NULL);
    assert_join("", name + 1, 0, name + 1);
    assert_join(deep, "x", 0, "1/1/1/1/1/1/1/1/1/1/1/1/1/1/1/x");
    assert_join("1/1/1/1/1/1/1/1/1/1/1/1/1/1/1/1", "x", -ENAMETOOLONG, NULL);
    memset(long_path, 'p', sizeof long_path);
    long_path[1021] = '\0';
    char *path = NULL;
    assert_int_equal(path_join(long_path, "x", &path), 0);
    assert_true(strlen(path) == 1023);
    free(path);
    assert_join(long_path, "xy", -ENAMETOOLONG, NULL);
}

static void test_rate(void **state)
{
    static const char *const bad[] = {"rate=", "rate=0", "rate=x", "rate=5/d", "rate=5:0"};
    struct options o;
    char *sentence;
    (void)state;
    assert_int_equal(parse("local /locks", true, &o, &sentence), 0);
    assert_true(o.rate.number == 0);
    options_deinit(&o);
    assert_int_equal(parse("local /locks -o rate=600/m:50,ttl=1s", true, &o, &sentence), 0);
    assert_true(o.rate.number == 600 && o.rate.burst == 50 && o.ttl_ms == 1000);
    options_deinit(&o);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char line[64] = "local /locks -o ";
        strncat(line, bad[i], 32);
        assert_int_equal(parse(line, true, &o, &sentence), -EINVAL);
        assert_non_null(strstr(sentence, "rate="));
        free(sentence);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),     cmocka_unit_test(test_as_mount_passes_them),
        cmocka_unit_test(test_forms),        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_data_default), cmocka_unit_test(test_paths),
        cmocka_unit_test(test_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
