/* holdfast policy check: what a policy file says, and why.  Asks no cluster. */
#include "cli.h"

#include "auth/policy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Words in quotes come from the file or the command line: bytes that are no UTF-8 can't be. */
static json_t *json_of(const struct cli *cli, char **words, bool allowed, struct bytes why)
{
    json_t *roles = json_array();
    for (unsigned i = 0; i < cli->n_roles; i++)
        json_array_append_new(roles, text_json(bytes_str(cli->roles[i])));
    return json_pack("{s:b, s:o, s:o, s:o, s:s, s:o, s:o}", "allowed", allowed, "why",
                     text_json(why), cli->certificate ? "certificate" : "subject",
                     text_json(bytes_str(words[1])), "roles", roles, "verb", words[2], "path",
                     text_json(bytes_str(words[3])), "file", text_json(bytes_str(words[0])));
}

static int check(struct cli *cli, char **words)
{
    struct policy *policy = NULL;
    char *sentence = NULL;
    enum policy_verb verb;
    if (policy_verb_parse(words[2], &verb) < 0)
        return cli_fail(EXIT_USAGE, "'%s' is no verb: read, acquire, break or admin", words[2]);
    if (cli->certificate && !policy_certificate_valid(words[1]))
        return cli_fail(EXIT_USAGE,
                        "'%s' is no certificate's name: KIND/NAME, as in mount/web1, with node, "
                        "mount, gateway or client as the kind",
                        words[1]);
    int result = policy_load(words[0], &policy, &sentence);
    if (result < 0) {
        int code = result == -EINVAL ? EXIT_BAD_DATA : EXIT_NOTHING;
        (void)cli_fail(code, "%s: %s", words[0], sentence);
        free(sentence);
        return code;
    }
    struct policy_subject subject = {
        .kind = cli->certificate ? POLICY_CERTIFICATE : POLICY_TOKEN,
        .name = words[1],
        .roles = cli->roles,
        .n_roles = cli->n_roles,
    };
    struct buf why = BUF_INIT;
    bool allowed = policy_allows(policy, &subject, verb, bytes_str(words[3]), &why);
    if (cli->json)
        (void)print_json(json_of(cli, words, allowed, bytes_of(why.data, why.size)));
    else
        (void)printf("%.*s\n", (int)why.size, (const char *)why.data);
    buf_deinit(&why);
    policy_free(policy);
    return allowed ? EXIT_DONE : EXIT_REFUSED;
}

int cli_policy(struct cli *cli, int n, char **words)
{
    if (n != 5 || strcmp(words[0], "check") != 0)
        return cli_fail(EXIT_USAGE, "holdfast policy check FILE SUBJECT VERB PATH");
    return check(cli, words + 1);
}
