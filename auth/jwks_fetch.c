#include "auth/jwks_fetch.h"

#include "auth/jwks.h"
#include "raftstore/base/address.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct transfer {
    struct buf *document;
    size_t start; /* document->size when it began. */
    bool too_long;
    const atomic_bool *cancel;
};

void jwks_fetch_init(void)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        abort(); /* Out of memory. */
}

bool jwks_location_is_url(const char *location)
{
    return strstr(location, "://") != NULL;
}

/* Is the URL's host this machine? */
static bool host_is_loopback(CURLU *url)
{
    char *host = NULL;
    if (curl_url_get(url, CURLUPART_HOST, &host, 0) != CURLUE_OK)
        return false;
    bool loopback = address_host_is_loopback(host);
    curl_free(host);
    return loopback;
}

int jwks_location_check(const char *location, const char **ret_sentence)
{
    if (!jwks_location_is_url(location)) {
        *ret_sentence = "no file is named";
        return location[0] != '\0' ? 0 : -EINVAL;
    }
    CURLU *url = curl_url();
    char *scheme = NULL;
    const char *wrong = NULL;
    if (url == NULL)
        abort(); /* Out of memory. */
    if (curl_url_set(url, CURLUPART_URL, location, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK ||
        curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK)
        wrong = "not a URL";
    else if (strcmp(scheme, "http") == 0 && !host_is_loopback(url))
        wrong = "keys must come by https (http only from this machine): who can change them on "
                "their way lets himself in";
    else if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)
        wrong = "neither an https URL nor a file";
    curl_free(scheme);
    curl_url_cleanup(url);
    if (wrong == NULL)
        return 0;
    *ret_sentence = wrong;
    return -EINVAL;
}

/* Append, up to JWKS_BYTES_MAX.  Return: false: it does not fit. */
static bool append(struct transfer *t, const void *data, size_t size)
{
    t->too_long = size > JWKS_BYTES_MAX - (t->document->size - t->start);
    if (!t->too_long)
        buf_add(t->document, data, size);
    return !t->too_long;
}

static size_t on_data(char *data, size_t size, size_t count, void *arg)
{
    return append(arg, data, size * count) ? size * count : 0;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const struct transfer *t = arg;
    (void)a, (void)b, (void)c, (void)d; /* Nobody watches it. */
    return t->cancel != NULL && atomic_load(t->cancel) ? 1 : 0;
}

static void
set_up(CURL *curl, struct transfer *t, const char *location, const char *ca_file, long ms)
{
    curl_easy_setopt(curl, CURLOPT_URL, location);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
    if (ca_file != NULL) {
        curl_easy_setopt(curl, CURLOPT_CAINFO, ca_file);
        curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
    }
    if (strncmp(location, "https:", 6) != 0)
        curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* This machine needs none. */
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "holdfast/" HOLDFAST_VERSION);
    curl_easy_setopt(curl, CURLOPT_ACCEPT_ENCODING, NULL);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, ms);
    curl_easy_setopt(curl, CURLOPT_MAXFILESIZE, (long)JWKS_BYTES_MAX);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, t);
}

static int fetch_url(struct transfer *t,
                     const char *location,
                     const char *ca_file,
                     uint64_t timeout_ms,
                     struct buf *sentence)
{
    char words[CURL_ERROR_SIZE] = "";
    long status = 0;
    CURL *curl = curl_easy_init();
    if (curl == NULL)
        abort(); /* Out of memory. */
    set_up(curl, t, location, ca_file, timeout_ms < INT32_MAX ? (long)timeout_ms : INT32_MAX);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, words);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(curl);
    if (t->too_long || code == CURLE_FILESIZE_EXCEEDED) {
        buf_printf(sentence, "the document is longer than 256 KiB");
        return -EFBIG;
    }
    if (code != CURLE_OK) {
        buf_printf(sentence, "%s", words[0] != '\0' ? words : curl_easy_strerror(code));
        return -EIO;
    }
    if (status != 200) {
        buf_printf(sentence, "the server answered with status %ld", status);
        return -EIO;
    }
    return 0;
}

static int fetch_file(struct transfer *t, const char *path, struct buf *sentence)
{
    uint8_t piece[16384];
    ssize_t n = 0;
    /* Not to hang on a pipe. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0) {
        do
            n = read(fd, piece, sizeof piece);
        while ((n < 0 && errno == EINTR) || (n > 0 && append(t, piece, (size_t)n)));
    }
    int result = 0;
    if (t->too_long) {
        buf_printf(sentence, "the document is longer than 256 KiB");
        result = -EFBIG;
    } else if (fd < 0 || n < 0) {
        buf_printf(sentence, "%s", strerror(errno));
        result = -EIO;
    }
    if (fd >= 0)
        (void)close(fd); /* Only read. */
    return result;
}

int jwks_fetch(const char *location,
               const char *ca_file,
               uint64_t timeout_ms,
               const atomic_bool *cancel,
               struct buf *ret_document,
               char **ret_sentence)
{
    struct transfer t = {ret_document, ret_document->size, false, cancel};
    struct buf sentence = BUF_INIT;
    const char *wrong = NULL;
    int result = jwks_location_check(location, &wrong);
    if (result < 0)
        buf_printf(&sentence, "%s", wrong);
    else if (jwks_location_is_url(location))
        result = fetch_url(&t, location, ca_file, timeout_ms, &sentence);
    else
        result = fetch_file(&t, location, &sentence);
    if (result < 0) {
        ret_document->size = t.start;
        buf_add(&sentence, "", 1);
        *ret_sentence = (char *)sentence.data;
    }
    return result;
}
