#include "fs/ask.h"

#include "fs/errno_table.h"
#include "raftstore/base/buf.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

struct ask {
    struct fs *fs;
    struct buf packed;      /* The command, to be sent again. */
    uint64_t until_mono_ns; /* End of the time-out; UINT64_MAX = none. */
    unsigned n_tries;
    bool canceled;
    uint64_t handle; /* client_cancel(). */
    client_result_cb cb;
    void *arg;
};

static void on_answer(void *arg, const struct client_result *r);

static uint64_t rest_ms(const struct ask *a)
{
    if (a->until_mono_ns == UINT64_MAX)
        return CLIENT_NO_TIMEOUT;
    uint64_t now = clock_mono_ns(clock_system());
    return now < a->until_mono_ns ? (a->until_mono_ns - now) / NS_PER_MS + 1 : 1;
}

static int ask_send(struct ask *a, const Hf__Command *command)
{
    a->n_tries++;
    return client_command(a->fs->client, command, rest_ms(a), on_answer, a, &a->handle);
}

/* Return: true when it was sent again. */
static bool ask_again(struct ask *a)
{
    if (a->canceled || a->n_tries >= ASK_TRIES)
        return false;
    Hf__Command *command = hf__command__unpack(NULL, a->packed.size, a->packed.data);
    if (command == NULL)
        return false;
    int r = ask_send(a, command);
    hf__command__free_unpacked(command, NULL);
    return r == 0;
}

static void on_answer(void *arg, const struct client_result *r)
{
    struct ask *a = arg;
    bool no_session = r->status == 0 && (r->result->code == WIRE_CODE_NO_SESSION ||
                                         r->result->code == WIRE_CODE_SESSION_ENDED);
    if (no_session && ask_again(a))
        return;
    client_result_cb cb = a->cb;
    void *cb_arg = a->arg;
    buf_deinit(&a->packed);
    free(a);
    cb(cb_arg, r);
}

int ask_cluster(struct fs *fs,
                const Hf__Command *command,
                uint64_t timeout_ms,
                client_result_cb cb,
                void *arg,
                struct ask **ret_ask)
{
    if (fs->failed)
        return EIO;
    struct ask *a = xcalloc(1, sizeof *a);
    a->fs = fs;
    a->cb = cb;
    a->arg = arg;
    a->until_mono_ns = timeout_ms == CLIENT_NO_TIMEOUT
                           ? UINT64_MAX
                           : clock_mono_ns(clock_system()) + timeout_ms * NS_PER_MS;
    pack_add(&a->packed, &command->base);
    int r = ask_send(a, command);
    if (r < 0) {
        buf_deinit(&a->packed);
        free(a);
        return errno_of_status(r);
    }
    if (ret_ask != NULL)
        *ret_ask = a;
    return 0;
}

void ask_cancel(struct ask *a)
{
    a->canceled = true;
    client_cancel(a->fs->client, a->handle);
}

struct release {
    struct fs *fs;
    char *path;
    uint64_t token;
};

static void on_released(void *arg, const struct client_result *r)
{
    struct release *release = arg;
    struct hold *h = holds_find(&release->fs->holds, release->token);
    bool gone = r->status == 0 &&
                (r->result->code == WIRE_CODE_OK || r->result->code == WIRE_CODE_NOT_HELD ||
                 r->result->code == WIRE_CODE_NOT_OWNER);
    if (!gone)
        LOG_WARN("release not confirmed", "path=%s token=%" PRIu64 " status=%d code=%s",
                 log_quote(bytes_str(release->path)), release->token, r->status,
                 r->result != NULL ? wire_code_name(r->result->code) : "none");
    if (h != NULL)
        holds_ended(h, false);
    free(release->path);
    free(release);
}

void ask_release(struct fs *fs, const char *path, uint64_t token)
{
    Hf__Command command = HF__COMMAND__INIT;
    ProtobufCBinaryData target = pack_binary(bytes_str(path));
    struct hold *h = holds_find(&fs->holds, token);
    struct release *release = xcalloc(1, sizeof *release);
    release->fs = fs;
    release->path = xstrdup(path);
    release->token = token;
    command.op = WIRE_OP_RELEASE;
    command.paths = &target;
    command.n_paths = 1;
    command.token = token;
    command.flags = WIRE_F_ANYWHERE; /* It may be renamed just now. */
    int error = ask_cluster(fs, &command, CLIENT_NO_TIMEOUT, on_released, release, NULL);
    if (error != 0) {
        LOG_WARN("release not sent", "path=%s error=%d", log_quote(bytes_str(path)), error);
        free(release->path);
        free(release);
        return; /* It ends at its deadline. */
    }
    if (h != NULL)
        holds_releasing(h);
}
