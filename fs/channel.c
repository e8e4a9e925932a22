#include "fs/channel.h"

#include "fs/control.h"
#include "fs/rated.h"
#include "raftstore/base/buf.h"
#include "raftstore/base/clock.h"
#include "raftstore/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/uio.h>
#include <unistd.h>

#define MESSAGES_MAX 64u /* In a row, before the loop gets to see anything else. */

/* What libfuse said last, for the sentence of a failed mount. */
static char last_message[256];

static void on_fuse_log(enum fuse_log_level level, const char *format, va_list args)
{
    struct buf text = BUF_INIT;
    buf_vprintf(&text, format, args);
    while (text.size > 0 && text.data[text.size - 1] == '\n')
        text.size--;
    size_t n = text.size < sizeof last_message - 1 ? text.size : sizeof last_message - 1;
    if (n > 0)
        memcpy(last_message, text.data, n);
    last_message[n] = '\0';
    enum log_level ours = level <= FUSE_LOG_ERR       ? LOG_LEVEL_ERROR
                          : level <= FUSE_LOG_WARNING ? LOG_LEVEL_WARN
                                                      : LOG_LEVEL_DEBUG;
    log_line(ours, "libfuse", "text=%s", log_quote(bytes_of(text.data, text.size)));
    buf_deinit(&text);
}

static uint64_t now(void)
{
    return clock_mono_ns(clock_system());
}

/* libfuse's reads and writes go through here: what is answered is counted. */
static ssize_t io_read(int fd, void *data, size_t size, void *userdata)
{
    (void)userdata;
    return read(fd, data, size);
}

static ssize_t io_writev(int fd, struct iovec *parts, int n, void *userdata)
{
    struct fs *fs = userdata;
    const struct fuse_out_header *head = parts[0].iov_base;
    if (head->unique != 0) /* Else a notification, perhaps of another thread. */
        tally_answer(&fs->tally, head->unique, (uint32_t)-head->error, now());
    return writev(fd, parts, n);
}

static const struct fuse_custom_io io = {.read = io_read, .writev = io_writev};

static void process(struct channel *c)
{
    const struct fuse_in_header *head = c->buf.mem;
    tally_begin(c->tally, head->opcode, head->unique, now()); /* The kernel sends whole messages. */
    fuse_session_process_buf(c->session, &c->buf);
    tally_end(c->tally);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct channel *c = poll->data;
    (void)status; /* An error shows at the read. */
    (void)events;
    for (unsigned i = 0; i < MESSAGES_MAX; i++) {
        int n = fuse_session_receive_buf(c->session, &c->buf);
        if (n == -EINTR)
            continue;
        if (n == -EAGAIN)
            return;
        if (n <= 0 || fuse_session_exited(c->session)) {
            if (n < 0)
                LOG_ERROR("reading /dev/fuse failed", "error=%d", -n);
            (void)uv_poll_stop(poll); /* Never fails. */
            c->on_gone(c->arg);
            return;
        }
        process(c);
    }
}

/* libfuse's own option syntax: commas and backslashes inside a value are escaped. */
static void add_escaped(struct buf *out, const char *value)
{
    for (; *value != '\0'; value++) {
        if (*value == ',' || *value == '\\')
            buf_add(out, "\\", 1);
        buf_add(out, value, 1);
    }
}

static char *mount_options(const struct options *o)
{
    struct buf text = BUF_INIT;
    buf_printf(&text, "default_permissions,subtype=holdfast,fsname=");
    add_escaped(&text, o->source);
    if (o->allow_other)
        buf_printf(&text, ",allow_other");
    if (o->fuse.size > 0) {
        buf_add(&text, ",", 1);
        buf_add(&text, o->fuse.data, o->fuse.size);
    }
    buf_add(&text, "", 1);
    return (char *)text.data;
}

static int fail(const char *what, char **ret_sentence)
{
    struct buf text = BUF_INIT;
    buf_printf(&text, "%s%s%s", what, last_message[0] != '\0' ? ": " : "", last_message);
    buf_add(&text, "", 1);
    *ret_sentence = (char *)text.data;
    return -EIO;
}

static int channel_watch(struct channel *c)
{
    int fd = fuse_session_fd(c->session);
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    int r = uv_poll_init(c->loop, &c->poll, fd);
    if (r < 0)
        return r;
    c->poll.data = c;
    return uv_poll_start(&c->poll, UV_READABLE, on_readable);
}

int channel_open(struct channel *c,
                 struct fs *fs,
                 const char *dir,
                 void (*on_gone)(void *arg),
                 void *arg,
                 char **ret_sentence)
{
    *c = (struct channel){.loop = fs->loop, .tally = &fs->tally, .on_gone = on_gone, .arg = arg};
    fuse_set_log_func(on_fuse_log);
    char *options = mount_options(fs->options);
    char *argv[] = {"mount.holdfast", "-o", options, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);
    struct fuse_lowlevel_ops operations;
    control_operations(&operations);
    rated_install(fs, &operations);
    c->session = fuse_session_new(&args, &operations, sizeof operations, fs);
    fuse_opt_free_args(&args);
    free(options);
    if (c->session == NULL)
        return fail("libfuse refuses the options", ret_sentence);
    fs->session = c->session;
    if (fuse_session_mount(c->session, dir) != 0) {
        (void)fail("mount failed", ret_sentence);
        fuse_session_destroy(c->session);
        c->session = NULL;
        return -EIO;
    }
    c->mounted = true;
    int r = fuse_session_custom_io(c->session, &io, fuse_session_fd(c->session));
    if (r == 0)
        r = channel_watch(c);
    if (r < 0) {
        (void)fail("can't watch /dev/fuse", ret_sentence);
        fuse_session_unmount(c->session);
        fuse_session_destroy(c->session);
        c->session = NULL;
        return -EIO;
    }
    return 0;
}

void channel_close(struct channel *c)
{
    if (!c->mounted)
        return;
    c->mounted = false;
    fuse_session_exit(c->session); /* Answers that come too late are no errors. */
    uv_close((uv_handle_t *)&c->poll, NULL);
    fuse_session_unmount(c->session);
}

void channel_deinit(struct channel *c)
{
    if (c->session != NULL)
        fuse_session_destroy(c->session);
    free(c->buf.mem);
    c->session = NULL;
    c->buf.mem = NULL;
}
