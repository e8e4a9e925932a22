/* cert: a private authority and certificates for a cluster, in one command. */
#include "cli.h"

#include "raftstore/tls/authority.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define DAYS      825 /* The longest that common clients accept. */
#define DAYS_CA   3650
#define NAMES_MAX 16
#define SCHEME    "holdfast:"
#define EXAMPLE   "node/1, mount/HOST, gateway/NAME or client/NAME, each with =DNS-NAME-OR-IP,..."

/* KIND/NAME[=DNS,IP,...], taken apart. */
struct wish {
    struct identity identity;
    char *text; /* Owned: what the names point into. */
    const char *names[NAMES_MAX + 1];
};

static int parse(const char *word, struct wish *ret)
{
    struct buf uri = BUF_INIT;
    unsigned n = 0;
    ret->text = xstrdup(word);
    char *equals = strchr(ret->text, '='), *rest = equals, *name;
    if (equals != NULL) {
        *equals = '\0';
        rest = equals + 1;
    }
    while (rest != NULL && (name = strsep(&rest, ",")) != NULL) {
        if (name[0] == '\0')
            continue;
        if (n == NAMES_MAX) {
            free(ret->text);
            return cli_fail(EXIT_USAGE, "'%s' has more than %u names", word, NAMES_MAX);
        }
        ret->names[n++] = name;
    }
    buf_printf(&uri, SCHEME "%s", ret->text);
    int rv = identity_parse(bytes_of(uri.data, uri.size), &ret->identity);
    buf_deinit(&uri);
    if (rv == 0)
        return EXIT_DONE;
    free(ret->text);
    return cli_fail(EXIT_USAGE, "'%s' names nobody: it must be " EXAMPLE, word);
}

/* DIR/node-1 and so on.  Return: owned. */
static char *directory_of(const char *dir, const struct identity *identity)
{
    struct buf path = BUF_INIT;
    buf_printf(&path, "%s/%s-%s", dir, identity_kind_name(identity->kind), identity->name);
    buf_add(&path, "", 1);
    return (char *)path.data;
}

static int issue(const struct cli *cli, const char *dir, const char *word, json_t *made)
{
    struct wish wish = {0};
    char *sentence = NULL;
    int code = parse(word, &wish);
    if (code != EXIT_DONE)
        return code;
    char *out = directory_of(dir, &wish.identity);
    unsigned days = cli->days != 0 ? cli->days : DAYS;
    int rv = authority_issue(dir, &wish.identity, wish.names, days, out, &sentence);
    if (rv < 0)
        code = cli_fail(rv == -EEXIST ? EXIT_REFUSED : EXIT_CANT_WRITE, "%s", sentence);
    else if (cli->json)
        (void)json_array_append_new(made, json_string(out));
    else
        (void)printf("made %s (ca.crt, tls.crt, tls.key)\n", out);
    free(sentence);
    free(out);
    free(wish.text);
    return code;
}

int cli_cert(struct cli *cli, int n, char **words)
{
    char *sentence = NULL;
    int code = EXIT_DONE;
    if (n < 2)
        return cli_fail(EXIT_USAGE, "cert needs a directory and whom to make certificates for: "
                                    "holdfast cert DIR node/1 node/2 node/3 mount/HOST client/ME");
    for (int i = 1; i < n && code == EXIT_DONE; i++) { /* Before anything is written. */
        struct wish wish = {0};
        code = parse(words[i], &wish);
        if (code == EXIT_DONE)
            free(wish.text);
    }
    if (code != EXIT_DONE)
        return code;
    int rv = authority_create(words[0], DAYS_CA, &sentence);
    if (rv < 0) {
        code = cli_fail(EXIT_CANT_WRITE, "%s", sentence);
        free(sentence);
        return code;
    }
    if (rv > 0 && !cli->json)
        (void)printf("made %s/ca.crt and %s/ca.key (keep the key away from the nodes)\n", words[0],
                     words[0]);
    json_t *made = json_array();
    for (int i = 1; i < n && code == EXIT_DONE; i++)
        code = issue(cli, words[0], words[i], made);
    if (cli->json && code == EXIT_DONE)
        return print_json(made);
    json_decref(made);
    return code;
}
