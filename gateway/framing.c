#include "gateway/framing.h"

#include <string.h>
#include <strings.h>

/* Headers that may stand once only. */
enum { SIZE, CODING, HOST, TOKEN, ONCE };
static const char *const names[ONCE] = {
    [SIZE] = MHD_HTTP_HEADER_CONTENT_LENGTH,
    [CODING] = MHD_HTTP_HEADER_TRANSFER_ENCODING,
    [HOST] = MHD_HTTP_HEADER_HOST,
    [TOKEN] = MHD_HTTP_HEADER_AUTHORIZATION,
};

struct look {
    unsigned n[ONCE];
    const char *coding;
    const char *wrong;
};

/* RFC 9110, 5.6.2. */
static bool is_token(const char *name)
{
    static const char signs[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    return name[0] != '\0' && name[strspn(name, signs)] == '\0';
}

static enum MHD_Result
on_header(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct look *l = cls;
    (void)kind;
    if (!is_token(name))
        l->wrong =
            "a header's name has a sign in it that none may have (a space before the colon?)";
    for (unsigned i = 0; i < ONCE; i++) {
        if (strcasecmp(name, names[i]) != 0)
            continue;
        if (l->n[i]++ > 0)
            l->wrong = "Content-Length, Transfer-Encoding, Host and Authorization may stand once";
        if (i == CODING)
            l->coding = value != NULL ? value : "";
    }
    return l->wrong == NULL ? MHD_YES : MHD_NO;
}

static bool has_space(const char *target)
{
    for (const char *c = target; *c != '\0'; c++)
        if ((unsigned char)*c <= ' ' || *c == 0x7F)
            return true;
    return false;
}

const char *framing_problem(struct MHD_Connection *mhd, const char *target, const char *version)
{
    struct look l = {0};
    bool old = strcmp(version, MHD_HTTP_VERSION_1_1) != 0;
    (void)MHD_get_connection_values(mhd, MHD_HEADER_KIND, on_header, &l);
    if (l.wrong != NULL)
        return l.wrong;
    if (has_space(target))
        return "there is a space or control character in the request's target: write it %20";
    if (l.n[HOST] == 0 && !old)
        return "there is no Host header";
    if (l.coding == NULL)
        return NULL;
    if (old)
        return "Transfer-Encoding is not of this version of HTTP";
    if (l.n[SIZE] > 0)
        return "Content-Length and Transfer-Encoding exclude each other";
    return strcasecmp(l.coding, "chunked") == 0 ? NULL : "the only Transfer-Encoding is chunked";
}
