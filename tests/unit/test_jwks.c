/* Unit tests of auth/jwks.c, auth/base64url.c and, with the examples of RFC 7515 and RFC 8037, of
 * auth/jws.c; and of auth/jwks_fetch.c and auth/jwks_source.c with files and a real socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auth/base64url.h"
#include "auth/jwks_fetch.h"
#include "auth/jwks_source.h"
#include "auth/jws.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* RFC 7515, A.2; A.3; RFC 8037, A.2. */
#define N                                                                                          \
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm"  \
    "4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5"  \
    "rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGh"  \
    "yxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
#define RSA_KEY "\"kty\":\"RSA\",\"n\":\"" N "\",\"e\":\"AQAB\""
#define EC_X    "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
#define EC_Y    "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
#define EC_KEY  "\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\""
#define OKP_KEY                                                                                    \
    "\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\""
#define JOE                                                                                        \
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl" \
    "fQ"
#define RS256_TOKEN                                                                                \
    "eyJhbGciOiJSUzI1NiJ9." JOE "."                                                                \
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp"  \
    "5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMH"  \
    "lb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w"  \
    "9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
#define ES256_TOKEN                                                                                \
    "eyJhbGciOiJFUzI1NiJ9." JOE "."                                                                \
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
#define EDDSA_TOKEN                                                                                \
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."                                    \
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
#define HS256_TOKEN                                                                                \
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." JOE "."                                            \
    "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
#define NONE_TOKEN "eyJhbGciOiJub25lIn0." JOE "."

static struct jwks *parse(const char *text)
{
    struct jwks *keys = NULL;
    const char *sentence = NULL;
    if (jwks_parse(bytes_str(text), &keys, &sentence) < 0)
        fail_msg("%s: %s", text, sentence);
    return keys;
}

static void check_usable(const char *text, size_t n_usable, size_t n_skipped)
{
    struct jwks *keys = parse(text);
    if (jwks_n_usable(keys) != n_usable || jwks_n_skipped(keys) != n_skipped)
        fail_msg("%s: %zu usable, %zu skipped", text, jwks_n_usable(keys), jwks_n_skipped(keys));
    jwks_free(keys);
}

static void test_base64url(void **state)
{
    /* RFC 4648, section 10, without padding; RFC 7515, appendix C. */
    static const char *const pairs[][2] = {
        {"", ""},
        {"f", "Zg"},
        {"fo", "Zm8"},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg"},
        {"fooba", "Zm9vYmE"},
        {"foobar", "Zm9vYmFy"},
        {"\x03\xec\xff\xe0\xc1", "A-z_4ME"},
    };
    static const char *const wrong[] = {"A",    "Zg==",  "Zg=",  "Zh",   "Zm9=",  "Zm9",
                                        "Z m8", "Zm8\n", "A+z_", "A/z_", "AAAAA", "Zm\xc3\xb6"};
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct buf out = BUF_INIT;
        buf_add(&out, "x", 1);
        assert_int_equal(base64url_decode(bytes_str(pairs[i][1]), &out), 0);
        assert_int_equal(out.size, 1 + strlen(pairs[i][0]));
        assert_memory_equal(out.data + 1, pairs[i][0], out.size - 1);
        out.size = 0;
        base64url_encode(bytes_str(pairs[i][0]), &out);
        assert_true(bytes_equal(bytes_of(out.data, out.size), bytes_str(pairs[i][1])));
        buf_deinit(&out);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct buf out = BUF_INIT;
        if (base64url_decode(bytes_str(wrong[i]), &out) != -EINVAL || out.size != 0)
            fail_msg("%s is taken", wrong[i]);
        buf_deinit(&out);
    }
}

static int verify(const struct jwks *keys, const char *text, const char *want_payload)
{
    struct buf payload = BUF_INIT;
    char *typ = NULL;
    const char *reason = NULL;
    int result = jws_verify(keys, bytes_str(text), &payload, &typ, &reason);
    if (result == 0 && want_payload != NULL)
        assert_true(bytes_equal(bytes_of(payload.data, payload.size), bytes_str(want_payload)));
    if (result != 0)
        assert_true(payload.size == 0 && typ == NULL && reason != NULL);
    buf_deinit(&payload);
    free(typ);
    return result;
}

static void test_rfc_examples(void **state)
{
    static const char joe[] =
        "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";
    struct jwks *keys = parse("{\"keys\":[{" RSA_KEY "},{" EC_KEY "},{" OKP_KEY "}]}");
    struct jwks *rsa = parse("{\"keys\":[{" RSA_KEY "}]}");
    (void)state;
    assert_int_equal(verify(keys, RS256_TOKEN, joe), 0);
    assert_int_equal(verify(keys, ES256_TOKEN, joe), 0);
    assert_int_equal(verify(keys, EDDSA_TOKEN, "Example of Ed25519 signing"), 0);
    assert_int_equal(verify(keys, HS256_TOKEN, NULL), JWS_INVALID);
    assert_int_equal(verify(keys, NONE_TOKEN, NULL), JWS_INVALID);
    assert_int_equal(verify(rsa, ES256_TOKEN, NULL), JWS_NO_KEY);
    jwks_free(keys);
    jwks_free(rsa);
}

#define ONE(members) "{\"keys\":[{" members "}]}"

static void test_which_keys(void **state)
{
    (void)state;
    check_usable("{\"keys\":[]}", 0, 0);
    check_usable("{\"keys\":[], \"other\": 1}", 0, 0);
    check_usable(ONE(RSA_KEY), 1, 0);
    check_usable(ONE(RSA_KEY ",\"alg\":\"RS256\",\"use\":\"sig\",\"x5t\":\"xx\""), 1, 0);
    check_usable(ONE(RSA_KEY ",\"key_ops\":[\"sign\",\"verify\"]"), 1, 0);
    check_usable(ONE(RSA_KEY ",\"key_ops\":[\"encrypt\"]"), 0, 1);
    check_usable(ONE(RSA_KEY ",\"key_ops\":\"verify\""), 0, 1);
    check_usable(ONE(RSA_KEY ",\"use\":\"enc\""), 0, 1);
    check_usable(ONE(RSA_KEY ",\"use\":1"), 0, 1);
    check_usable(ONE(RSA_KEY ",\"alg\":\"PS256\""), 0, 1);
    check_usable(ONE(RSA_KEY ",\"alg\":\"HS256\""), 0, 1);
    check_usable(ONE(RSA_KEY ",\"kid\":5"), 0, 1);
    check_usable(ONE(EC_KEY ",\"alg\":\"RS256\""), 0, 1);
    check_usable(ONE(EC_KEY ",\"alg\":\"ES256\""), 1, 0);
    check_usable(ONE(OKP_KEY ",\"alg\":\"EdDSA\""), 1, 0);
    check_usable(ONE("\"kty\":\"oct\",\"k\":\"c2VjcmV0\""), 0, 1);
    check_usable(ONE("\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"c2VjcmV0\""), 0, 1);
    check_usable(ONE("\"kty\":\"AKP\",\"alg\":\"ML-DSA-44\""), 0, 1);
    check_usable(ONE("\"kid\":\"a\""), 0, 1);
    /* Damaged and weak ones. */
    check_usable(ONE("\"kty\":\"RSA\",\"n\":\"" N "\",\"e\":\"AQ\""), 0, 1);   /* e = 1 */
    check_usable(ONE("\"kty\":\"RSA\",\"n\":\"" N "\",\"e\":\"AQAA\""), 0, 1); /* Even. */
    check_usable(ONE("\"kty\":\"RSA\",\"n\":\"" N "\",\"e\":\"AAAB\""), 0, 1); /* Leading 0. */
    check_usable(ONE("\"kty\":\"RSA\",\"n\":\"" N "\""), 0, 1);
    check_usable(ONE("\"kty\":\"RSA\",\"n\":\"ofgW\",\"e\":\"AQAB\""), 0, 1); /* 24 bits. */
    check_usable(ONE("\"kty\":\"RSA\",\"n\":\"" N "=\",\"e\":\"AQAB\""), 0, 1);
    check_usable(ONE("\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"" EC_X "\""), 0,
                 1); /* Off the curve. */
    check_usable(ONE("\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" EC_X "\",\"y\":\"AAAA\""), 0, 1);
    check_usable(ONE("\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"" EC_X "\",\"y\":\"" EC_Y "\""), 0,
                 1);
    check_usable(ONE("\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"" EC_X "\""), 0, 1);
    check_usable(ONE("\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\""), 0, 1);
}

static void check_refused(const char *text, size_t size, const char *want)
{
    struct jwks *keys = NULL;
    const char *sentence = NULL;
    assert_int_equal(jwks_parse(bytes_of(text, size), &keys, &sentence), -EINVAL);
    assert_null(keys);
    if (strstr(sentence, want) == NULL)
        fail_msg("'%s' is not about '%s'", sentence, want);
}

static void test_refused_sets(void **state)
{
    static const char *const wrong[][2] = {
        {"", "JSON"},
        {"[]", "JSON"},
        {"{\"keys\":[]} x", "JSON"},
        {"{\"keys\":[],\"keys\":[]}", "JSON"},
        {"{}", "keys"},
        {"{\"keys\":{}}", "keys"},
        {"{\"keys\":[5]}", "object"},
        {ONE(RSA_KEY ",\"n\":\"AQAB\""), "JSON"}, /* Twice. */
        {ONE(RSA_KEY ",\"d\":\"Eq5x\""), "private"},
        {ONE(EC_KEY ",\"d\":\"jpsQ\""), "private"},
        {"{\"keys\":[{" OKP_KEY "},{\"kty\":\"RSA\",\"qi\":\"AA\"}]}", "private"},
    };
    struct buf many = BUF_INIT;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        check_refused(wrong[i][0], strlen(wrong[i][0]), wrong[i][1]);
    buf_printf(&many, "{\"keys\":[{}");
    for (int i = 0; i < JWKS_KEYS_MAX; i++)
        buf_printf(&many, ",{}");
    buf_printf(&many, "]}");
    check_refused((const char *)many.data, many.size, "64");
    many.size = 0;
    buf_printf(&many, "{\"keys\":[],\"a\":\"%*s\"}", JWKS_BYTES_MAX, "");
    check_refused((const char *)many.data, many.size, "256 KiB");
    buf_deinit(&many);
}

static void test_equal(void **state)
{
    struct jwks *a = parse("{\"keys\":[{" RSA_KEY "},{" EC_KEY ",\"kid\":\"e\"}]}");
    struct jwks *b = parse("{\"keys\":[{" EC_KEY ",\"kid\":\"e\"},{" RSA_KEY "}]}");
    struct jwks *c = parse("{\"keys\":[{" RSA_KEY "},{" EC_KEY ",\"kid\":\"f\"}]}");
    struct jwks *d = parse("{\"x\":1,\"keys\":[{" RSA_KEY "},{},{" EC_KEY ",\"kid\":\"e\"}]}");
    struct jwks *e = parse("{\"keys\":[{" RSA_KEY "}]}");
    (void)state;
    assert_true(jwks_equal(a, a) && jwks_equal(a, d));
    assert_false(jwks_equal(a, b) || jwks_equal(a, c) || jwks_equal(a, e) || jwks_equal(e, a));
    assert_null(jwks_find(a, JWKS_RS256, "e", NULL));
    assert_null(jwks_find(a, JWKS_EDDSA, NULL, NULL));
    const struct jwks_key *key = jwks_find(a, JWKS_ES256, "e", NULL);
    assert_non_null(key);
    assert_null(jwks_find(a, JWKS_ES256, "e", key));
    jwks_free(a);
    jwks_free(b);
    jwks_free(c);
    jwks_free(d);
    jwks_free(e);
}

static void test_locations(void **state)
{
    static const struct {
        const char *location;
        bool fine;
    } cases[] = {
        {"/etc/keys.json", true},
        {"keys.json", true},
        {"", false},
        {"https://issuer.example/jwks", true},
        {"HTTPS://issuer.example/jwks", true},
        {"http://127.0.0.1:8080/jwks", true},
        {"http://127.1.2.3/jwks", true},
        {"http://[::1]:80/jwks", true},
        {"http://localhost/jwks", true},
        {"http://issuer.example/jwks", false},
        {"http://127.0.0.1.evil.example/", false},
        {"http://127.0.0.1@evil.example/", false},
        {"http://localhost.evil.example/", false},
        {"ftp://127.0.0.1/jwks", false},
        {"file:///etc/keys.json", false},
        {"https://", false},
        {"://x", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *sentence = NULL;
        int result = jwks_location_check(cases[i].location, &sentence);
        if ((result == 0) != cases[i].fine)
            fail_msg("%s: %d %s", cases[i].location, result, sentence);
    }
}

/* ---- A source: a file, and a server of this test on the same loop -----------------------------
 */

struct rig {
    uv_loop_t loop;
    struct jwks_source *source;
    struct jwks_waiter waiter;
    int n_woken;
    bool closed;
    char file[64];
    /* The server. */
    uv_tcp_t listener;
    char url[64];
    int n_requests;
    const char *head; /* Status line's rest, and more header lines. */
    const char *body; /* NULL: nothing is ever answered. */
};

static uint64_t fake_ns;
static uint64_t fake_mono_ns(const struct clock *c)
{
    (void)c;
    return fake_ns;
}
static const struct clock fake_clock = {.mono_ns = fake_mono_ns};

static void write_file(const char *path, const char *text)
{
    char new[80];
    (void)snprintf(new, sizeof new, "%s.new", path);
    FILE *f = fopen(new, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rename(new, path), 0);
}

static void on_woken(struct jwks_waiter *waiter)
{
    struct rig *rig = (struct rig *)((char *)waiter - offsetof(struct rig, waiter));
    rig->n_woken++;
}

static void on_closed(void *arg)
{
    ((struct rig *)arg)->closed = true;
}

static void rig_open(struct rig *rig)
{
    fake_ns = 1000 * NS_PER_S;
    assert_int_equal(uv_loop_init(&rig->loop), 0);
    rig->waiter.fn = on_woken;
    (void)snprintf(rig->file, sizeof rig->file, "/tmp/holdfast-keys-%d", (int)getpid());
}

static void rig_close(struct rig *rig)
{
    if (rig->source != NULL) {
        jwks_source_close(rig->source, on_closed, rig);
        while (!rig->closed)
            (void)uv_run(&rig->loop, UV_RUN_ONCE);
    }
    (void)uv_run(&rig->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
    unlink(rig->file);
}

/* Ask for a fetch and wait for it.  Return: false: it was not time. */
static bool refetch(struct rig *rig)
{
    int n_woken = rig->n_woken;
    if (!jwks_source_refetch(rig->source, &rig->waiter))
        return false;
    while (rig->n_woken == n_woken)
        (void)uv_run(&rig->loop, UV_RUN_ONCE);
    return true;
}

static size_t n_keys(const struct rig *rig)
{
    const struct jwks *keys = jwks_source_keys(rig->source);
    return keys != NULL ? jwks_n_usable(keys) : 99;
}

static void test_source_file(void **state)
{
    struct rig rig = {0};
    char *sentence = NULL;
    (void)state;
    rig_open(&rig);
    struct jwks_source_config config = {.location = rig.file,
                                        .refresh_ms = 3600000,
                                        .refetch_min_ms = 5000,
                                        .stale_max_ms = 60000,
                                        .clock = &fake_clock};
    assert_int_equal(jwks_source_open(&rig.loop, &config, &rig.source, &sentence), -EINVAL);
    assert_non_null(strstr(sentence, "No such file"));
    free(sentence);
    write_file(rig.file, "{\"keys\":");
    assert_int_equal(jwks_source_open(&rig.loop, &config, &rig.source, &sentence), -EINVAL);
    assert_non_null(strstr(sentence, "JSON"));
    free(sentence);
    write_file(rig.file, ONE(RSA_KEY));
    assert_int_equal(jwks_source_open(&rig.loop, &config, &rig.source, &sentence), 0);
    assert_int_equal(n_keys(&rig), 1);
    uint64_t generation = jwks_source_generation(rig.source);

    /* At once, but not twice within the interval. */
    assert_true(refetch(&rig));
    assert_false(refetch(&rig));
    write_file(rig.file, "{\"keys\":[{" RSA_KEY "},{" EC_KEY "}]}");
    fake_ns += 4999 * NS_PER_MS;
    assert_false(refetch(&rig));
    fake_ns += NS_PER_MS;
    assert_true(refetch(&rig));
    assert_int_equal(n_keys(&rig), 2);
    assert_int_equal(jwks_source_generation(rig.source), generation + 1);
    assert_false(refetch(&rig));

    /* The same keys are no change. */
    fake_ns += 5000 * NS_PER_MS;
    assert_true(refetch(&rig));
    assert_int_equal(jwks_source_generation(rig.source), generation + 1);

    /* A damaged document changes nothing, until the last good one is too old. */
    write_file(rig.file, ONE(RSA_KEY ",\"d\":\"AA\""));
    fake_ns += 60000 * NS_PER_MS;
    assert_true(refetch(&rig));
    assert_int_equal(n_keys(&rig), 2);
    fake_ns += NS_PER_MS;
    assert_null(jwks_source_keys(rig.source));
    assert_false(refetch(&rig));

    /* A reload asks no interval; a set with nothing usable lets nobody in. */
    write_file(rig.file, "{\"keys\":[]}");
    jwks_source_reload(rig.source);
    assert_true(refetch(&rig)); /* Waits for the one under way. */
    assert_int_equal(n_keys(&rig), 0);

    /* One who stops waiting is not called; one who waits at the end is. */
    fake_ns += 5000 * NS_PER_MS;
    assert_true(jwks_source_refetch(rig.source, &rig.waiter));
    jwks_waiter_cancel(&rig.waiter);
    jwks_waiter_cancel(&rig.waiter);
    int n_woken = rig.n_woken;
    fake_ns += 5000 * NS_PER_MS;
    assert_true(jwks_source_refetch(rig.source, &rig.waiter));
    rig_close(&rig);
    assert_int_equal(rig.n_woken, n_woken + 1);
}

static void test_source_refreshes(void **state)
{
    struct rig rig = {0};
    char *sentence = NULL;
    (void)state;
    rig_open(&rig);
    struct jwks_source_config config = {
        .location = rig.file, .refresh_ms = 10, .clock = clock_system()};
    write_file(rig.file, ONE(RSA_KEY));
    assert_int_equal(jwks_source_open(&rig.loop, &config, &rig.source, &sentence), 0);
    write_file(rig.file, "{\"keys\":[{" RSA_KEY "},{" EC_KEY "}]}");
    while (n_keys(&rig) != 2)
        (void)uv_run(&rig.loop, UV_RUN_ONCE);
    rig_close(&rig);
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *ret)
{
    (void)handle;
    *ret = uv_buf_init(malloc(size), (unsigned)size);
}

static void on_stream_closed(uv_handle_t *handle)
{
    free(handle);
}

static void on_written(uv_write_t *write, int status)
{
    (void)status;
    if (!uv_is_closing((uv_handle_t *)write->handle))
        uv_close((uv_handle_t *)write->handle, on_stream_closed);
    free(write->data);
    free(write);
}

/* One answer to whatever is asked. */
static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct rig *rig = stream->data;
    free(buf->base);
    if (n < 0) {
        if (!uv_is_closing((uv_handle_t *)stream))
            uv_close((uv_handle_t *)stream, on_stream_closed);
        return;
    }
    rig->n_requests++;
    if (rig->body == NULL)
        return;
    struct buf answer = BUF_INIT;
    buf_printf(&answer, "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
               rig->head, strlen(rig->body), rig->body);
    uv_buf_t out = uv_buf_init((char *)answer.data, (unsigned)answer.size);
    uv_write_t *write = xcalloc(1, sizeof *write);
    write->data = answer.data;
    assert_int_equal(uv_write(write, stream, &out, 1, on_written), 0);
}

static void on_connection(uv_stream_t *listener, int status)
{
    uv_tcp_t *stream = xcalloc(1, sizeof *stream);
    assert_int_equal(status, 0);
    stream->data = listener->data;
    assert_int_equal(uv_tcp_init(listener->loop, stream), 0);
    assert_int_equal(uv_accept(listener, (uv_stream_t *)stream), 0);
    assert_int_equal(uv_read_start((uv_stream_t *)stream, on_alloc, on_read), 0);
}

static void serve(struct rig *rig)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int size = sizeof a;
    assert_int_equal(uv_tcp_init(&rig->loop, &rig->listener), 0);
    rig->listener.data = rig;
    assert_int_equal(uv_tcp_bind(&rig->listener, (const struct sockaddr *)&a, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&rig->listener, 16, on_connection), 0);
    assert_int_equal(uv_tcp_getsockname(&rig->listener, (struct sockaddr *)&a, &size), 0);
    (void)snprintf(rig->url, sizeof rig->url, "http://127.0.0.1:%d/jwks", ntohs(a.sin_port));
}

static void test_source_url(void **state)
{
    struct rig rig = {.head = "200 OK", .body = ONE(RSA_KEY)};
    char *sentence = NULL;
    (void)state;
    rig_open(&rig);
    serve(&rig);
    /* The server is on the same loop, which does not run yet: the first fetch fails, but a server
     * that comes later is found. */
    struct jwks_source_config config = {.location = rig.url,
                                        .refresh_ms = 3600000,
                                        .refetch_min_ms = 5000,
                                        .timeout_ms = 200,
                                        .clock = &fake_clock};
    assert_int_equal(jwks_source_open(&rig.loop, &config, &rig.source, &sentence), 0);
    assert_null(jwks_source_keys(rig.source));
    fake_ns += 5000 * NS_PER_MS;
    assert_true(refetch(&rig));
    /* On a slow machine 200 ms may be too short for one of the tries; then there is another. */
    while (jwks_source_keys(rig.source) == NULL)
        (void)uv_run(&rig.loop, UV_RUN_ONCE);
    assert_int_equal(n_keys(&rig), 1);

    static const char *const bad[] = {"500 Oops", "404 No", "204 No Content",
                                      "302 Found\r\nLocation: http://127.0.0.1:1/x"};
    rig.body = "{\"keys\":[]}";
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        rig.head = bad[i];
        fake_ns += 5000 * NS_PER_MS;
        assert_true(refetch(&rig));
        assert_int_equal(n_keys(&rig), 1);
    }
    /* A document without end is given up. */
    char *huge = xcalloc(1, JWKS_BYTES_MAX + 100);
    memset(huge, ' ', JWKS_BYTES_MAX + 99);
    rig.head = "200 OK";
    rig.body = huge;
    fake_ns += 5000 * NS_PER_MS;
    assert_true(refetch(&rig));
    assert_int_equal(n_keys(&rig), 1);
    /* So is a server that never answers; also by the end of the source. */
    rig.body = NULL;
    fake_ns += 5000 * NS_PER_MS;
    assert_true(refetch(&rig));
    assert_int_equal(n_keys(&rig), 1);
    uv_close((uv_handle_t *)&rig.listener, NULL);
    fake_ns += 5000 * NS_PER_MS;
    assert_true(jwks_source_refetch(rig.source, &rig.waiter));
    rig_close(&rig);
    free(huge);
}

static int init(void **state)
{
    (void)state;
    jwks_fetch_init();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base64url),   cmocka_unit_test(test_rfc_examples),
        cmocka_unit_test(test_which_keys),  cmocka_unit_test(test_refused_sets),
        cmocka_unit_test(test_equal),       cmocka_unit_test(test_locations),
        cmocka_unit_test(test_source_file), cmocka_unit_test(test_source_refreshes),
        cmocka_unit_test(test_source_url),
    };
    return cmocka_run_group_tests(tests, init, NULL);
}
