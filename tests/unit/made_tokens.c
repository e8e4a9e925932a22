#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/made_tokens.h"

#include <jansson.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static json_t *made;

int made_tokens_load(void **state)
{
    char path[] = "/tmp/holdfast-tokens-XXXXXX";
    int fd = mkstemp(path);
    (void)state;
    assert_true(fd >= 0);
    pid_t child = fork();
    if (child == 0) {
        execlp("python3", "python3", getenv("MAKE_TOKENS"), path, (char *)NULL);
        _exit(127);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    made = json_load_file(path, 0, NULL);
    assert_non_null(made);
    close(fd);
    unlink(path);
    return 0;
}

int made_tokens_free(void **state)
{
    (void)state;
    json_decref(made);
    return 0;
}

struct bytes made_token(const char *name)
{
    const char *text = json_string_value(json_object_get(json_object_get(made, "tokens"), name));
    if (text == NULL)
        fail_msg("no token %s was made", name);
    return bytes_str(text);
}

char *made_keys(const char *name)
{
    return json_dumps(json_object_get(made, name), 0);
}

size_t made_n_tokens(void)
{
    return json_object_size(json_object_get(made, "tokens"));
}
