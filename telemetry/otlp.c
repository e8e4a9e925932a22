#include "telemetry/otlp.h"

#include "raftstore/base/address.h"
#include "raftstore/base/clock.h"
#include "raftstore/base/log.h"

#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define BATCH_MAX          512u
#define BATCH_ENOUGH       256u
#define INTERVAL_NS        NS_PER_S
#define REQUEST_MS         10000L
#define CONNECT_MS         3000L
#define TRIES_NS           (60 * NS_PER_S) /* Then a batch is given up. */
#define BACKOFF_NS         (500 * NS_PER_MS)
#define BACKOFF_MAX_NS     (10 * NS_PER_S)
#define RETRY_AFTER_MAX_NS (30 * NS_PER_S)
#define STOP_NS            (2 * NS_PER_S)
#define JOIN_NS            (4 * NS_PER_S) /* libcurl looks at the clock once a second. */
#define ANSWER_BYTES_MAX   ((size_t)65536)

struct otlp {
    struct otlp_config config; /* Its texts are owned. */
    pthread_t thread;
    pthread_mutex_t mutex;         /* Guards `ending` for `cond`. */
    pthread_cond_t cond;           /* Ends a pause. */
    _Atomic uint64_t stop_mono_ns; /* 0 = goes on; else it must be over then. */
    bool ending;
    /* The thread's alone. */
    CURL *curl;
    struct curl_slist *headers;
    struct buf answer;
    uint64_t retry_after_ns; /* Of the last answer; 0 = it said nothing. */
    bool bad;                /* It failed last, and that was logged. */
    struct random random;
};

static uint64_t now_ns(void)
{
    return clock_mono_ns(clock_system());
}

/* ---- URLs ------------------------------------------------------------------------------ */

static bool host_is_loopback(CURLU *url)
{
    char *host = NULL;
    if (curl_url_get(url, CURLUPART_HOST, &host, 0) != CURLUE_OK)
        return false;
    bool loopback = address_host_is_loopback(host);
    curl_free(host);
    return loopback;
}

/* Return: owned; NULL: *ret_sentence says what is wrong. */
static char *whole_url(const char *text, bool insecure, const char **ret_sentence)
{
    CURLU *url = curl_url();
    char *scheme = NULL, *path = NULL, *whole = NULL, *copy = NULL;
    if (url == NULL)
        abort(); /* Out of memory. */
    if (curl_url_set(url, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK ||
        curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK) {
        *ret_sentence = "not a URL such as http://localhost:4318";
    } else if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0) {
        *ret_sentence = "neither http nor https";
    } else if (strcmp(scheme, "http") == 0 && !insecure && !host_is_loopback(url)) {
        *ret_sentence = "spans name locks: beyond this machine they must go by https";
    } else {
        if (curl_url_get(url, CURLUPART_PATH, &path, 0) == CURLUE_OK && strcmp(path, "/") == 0)
            (void)curl_url_set(url, CURLUPART_PATH, "/v1/traces", 0);
        if (curl_url_get(url, CURLUPART_URL, &whole, 0) != CURLUE_OK)
            abort(); /* Out of memory. */
        copy = xstrdup(whole);
    }
    curl_free(scheme);
    curl_free(path);
    curl_free(whole);
    curl_url_cleanup(url);
    return copy;
}

int otlp_check_url(const char *url, bool insecure, const char **ret_sentence)
{
    char *whole = whole_url(url, insecure, ret_sentence);
    free(whole);
    return whole != NULL ? 0 : -EINVAL;
}

/* ---- One request ----------------------------------------------------------------------- */

static size_t on_data(char *data, size_t size, size_t count, void *arg)
{
    struct otlp *o = arg;
    if (size * count > ANSWER_BYTES_MAX - o->answer.size)
        return 0;
    buf_add(&o->answer, data, size * count);
    return size * count;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    struct otlp *o = arg;
    (void)a, (void)b, (void)c, (void)d; /* Nobody watches it. */
    uint64_t stop_ns = atomic_load(&o->stop_mono_ns);
    return stop_ns != 0 && now_ns() >= stop_ns;
}

static void set_up(struct otlp *o)
{
    CURL *curl = curl_easy_init();
    if (curl == NULL)
        abort(); /* Out of memory. */
    o->curl = curl;
    o->headers = curl_slist_append(NULL, "Content-Type: application/json");
    o->headers = curl_slist_append(o->headers, "Expect:"); /* No round trip before the body. */
    curl_easy_setopt(curl, CURLOPT_URL, o->config.url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, o->headers);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
    if (o->config.ca_file != NULL) {
        curl_easy_setopt(curl, CURLOPT_CAINFO, o->config.ca_file);
        curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
    }
    if (strncmp(o->config.url, "https:", 6) != 0)
        curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* What is near needs none. */
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "holdfast/" HOLDFAST_VERSION);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, REQUEST_MS);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, o);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, o);
}

static void tell(struct otlp *o, CURLcode code, long status)
{
    if (o->bad)
        return;
    o->bad = true;
    char why[64] = "";
    if (code == CURLE_OK)
        (void)snprintf(why, sizeof why, "the collector answered with status %ld", status);
    LOG_WARN("spans can't be exported", "url=%s why=%s", log_quote(bytes_str(o->config.url)),
             log_quote(bytes_str(code == CURLE_OK ? why : curl_easy_strerror(code))));
}

/* How many of a batch that was taken were refused all the same. */
static uint64_t n_rejected(const struct otlp *o)
{
    json_t *root = json_loadb((const char *)o->answer.data, o->answer.size, 0, NULL);
    const json_t *v = json_object_get(json_object_get(root, "partialSuccess"), "rejectedSpans");
    long long n = json_is_string(v) ? strtoll(json_string_value(v), NULL, 10)
                                    : json_integer_value(v); /* 0 for all else. */
    json_decref(root);
    return n > 0 ? (uint64_t)n : 0;
}

enum outcome { TAKEN, LATER, REFUSED };

static enum outcome post(struct otlp *o, const char *body)
{
    long status = 0;
    curl_off_t after_s = 0;
    o->answer.size = 0;
    curl_easy_setopt(o->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
    curl_easy_setopt(o->curl, CURLOPT_POSTFIELDS, body);
    CURLcode code = curl_easy_perform(o->curl);
    (void)curl_easy_getinfo(o->curl, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(o->curl, CURLINFO_RETRY_AFTER, &after_s);
    o->retry_after_ns = after_s > 0 ? (uint64_t)after_s * NS_PER_S : 0;
    if (code == CURLE_OK && status >= 200 && status < 300) {
        if (o->bad)
            LOG_INFO("spans are exported again", "url=%s", log_quote(bytes_str(o->config.url)));
        o->bad = false;
        return TAKEN;
    }
    tell(o, code, status);
    if (code != CURLE_OK)
        return LATER;
    return status == 429 || status == 502 || status == 503 || status == 504 ? LATER : REFUSED;
}

/* ---- The thread ------------------------------------------------------------------------ */

/* Return: false: the end has come. */
static bool pause_for(struct otlp *o, uint64_t ns)
{
    uint64_t end_ns = now_ns() + ns;
    struct timespec end = {(time_t)(end_ns / NS_PER_S), (long)(end_ns % NS_PER_S)};
    (void)pthread_mutex_lock(&o->mutex);
    while (!o->ending && pthread_cond_timedwait(&o->cond, &o->mutex, &end) != ETIMEDOUT)
        ;
    bool go_on = !o->ending;
    (void)pthread_mutex_unlock(&o->mutex);
    return go_on;
}

static uint64_t backoff_ns(struct otlp *o, unsigned tries)
{
    uint64_t ns = BACKOFF_NS << (tries < 8 ? tries : 8);
    if (ns > BACKOFF_MAX_NS)
        ns = BACKOFF_MAX_NS;
    ns = ns / 2 + random_below(&o->random, ns / 2 + 1);
    uint64_t told = o->retry_after_ns < RETRY_AFTER_MAX_NS ? o->retry_after_ns : RETRY_AFTER_MAX_NS;
    return told > ns ? told : ns;
}

static bool post_with_patience(struct otlp *o, const char *body)
{
    uint64_t give_up_ns = now_ns() + TRIES_NS;
    for (unsigned tries = 0;; tries++) {
        enum outcome outcome = post(o, body);
        if (outcome != LATER)
            return outcome == TAKEN;
        if (now_ns() >= give_up_ns || !pause_for(o, backoff_ns(o, tries)))
            return false;
    }
}

static void send_batch(struct otlp *o, struct span_list *batch, unsigned n)
{
    char *body = otlp_encode(&o->config, batch);
    bool taken = post_with_patience(o, body);
    uint64_t rejected = taken ? n_rejected(o) : n;
    if (rejected > n)
        rejected = n;
    spans_count(o->config.spans, n - rejected, rejected);
    free(body);
    struct span *span;
    while ((span = TAILQ_FIRST(batch)) != NULL) {
        TAILQ_REMOVE(batch, span, link);
        span_free(span);
    }
}

static bool must_end(const struct otlp *o)
{
    uint64_t stop_ns = atomic_load(&o->stop_mono_ns);
    return stop_ns != 0 && now_ns() >= stop_ns;
}

static void *run(void *arg)
{
    struct otlp *o = arg;
    set_up(o);
    for (;;) {
        struct span_list batch;
        /* Read before the queue is looked at: what ended before the stop is sent. */
        bool last = atomic_load(&o->stop_mono_ns) != 0;
        unsigned n = spans_take(o->config.spans, &batch, BATCH_MAX, last ? 1 : BATCH_ENOUGH,
                                last ? 0 : now_ns() + INTERVAL_NS);
        if (n > 0)
            send_batch(o, &batch, n);
        if ((last && n == 0) || must_end(o))
            break;
    }
    curl_easy_cleanup(o->curl);
    curl_slist_free_all(o->headers);
    return NULL;
}

/* ---- Life ------------------------------------------------------------------------------ */

static char *copy(const char *text)
{
    return text != NULL ? xstrdup(text) : NULL;
}

static void otlp_free(struct otlp *o)
{
    free((char *)(uintptr_t)o->config.url);
    free((char *)(uintptr_t)o->config.ca_file);
    free((char *)(uintptr_t)o->config.service);
    free((char *)(uintptr_t)o->config.instance);
    buf_deinit(&o->answer);
    (void)pthread_cond_destroy(&o->cond);
    (void)pthread_mutex_destroy(&o->mutex);
    free(o);
}

int otlp_start(const struct otlp_config *config, struct otlp **ret, char **ret_sentence)
{
    const char *wrong = NULL;
    pthread_condattr_t attributes;
    sigset_t all, old;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        abort(); /* Out of memory. */
    char *url = whole_url(config->url, config->insecure, &wrong);
    if (url == NULL) {
        *ret_sentence = xasprintf("%s: %s", config->url, wrong);
        return -EINVAL;
    }
    struct otlp *o = xcalloc(1, sizeof *o);
    o->config = *config;
    o->config.url = url;
    o->config.ca_file = copy(config->ca_file);
    o->config.service = copy(config->service);
    o->config.instance = copy(config->instance);
    o->random.state = random_system();
    (void)pthread_mutex_init(&o->mutex, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&o->cond, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    (void)sigfillset(&all); /* Signals are for the caller's thread. */
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int rv = -pthread_create(&o->thread, NULL, run, o);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rv < 0) {
        *ret_sentence = xasprintf("no thread for %s: %s", config->url, strerror(-rv));
        otlp_free(o);
        return rv;
    }
    *ret = o;
    return 0;
}

void otlp_stop(struct otlp *o)
{
    if (o == NULL)
        return;
    atomic_store(&o->stop_mono_ns, now_ns() + STOP_NS);
    (void)pthread_mutex_lock(&o->mutex);
    o->ending = true;
    (void)pthread_cond_signal(&o->cond);
    (void)pthread_mutex_unlock(&o->mutex);
    spans_wake(o->config.spans);
    uint64_t end_ns = clock_wall_ns(clock_system()) + JOIN_NS;
    struct timespec end = {(time_t)(end_ns / NS_PER_S), (long)(end_ns % NS_PER_S)};
    if (pthread_timedjoin_np(o->thread, NULL, &end) != 0) {
        (void)pthread_detach(o->thread); /* A name server does not answer: the process ends. */
        return;
    }
    spans_free(o->config.spans);
    otlp_free(o);
}
