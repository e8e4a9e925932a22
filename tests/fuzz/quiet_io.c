#include "tests/fuzz/quiet_io.h"

static void on_persist(void *arg, const struct replica_write *w)
{
    (void)arg;
    (void)w;
}

static void on_send(void *arg, uint64_t to, const Hf__PeerFrame *frame)
{
    (void)arg;
    (void)to;
    (void)frame;
}

static void on_send_image(void *arg, uint64_t to, uint64_t term)
{
    (void)arg;
    (void)to;
    (void)term;
}

static void on_image(void *arg, const struct replica_image *image)
{
    (void)arg;
    (void)image;
}

static void on_command_done(void *arg,
                            uint64_t request_id,
                            enum replica_status status,
                            const struct lock_result *result,
                            uint64_t index)
{
    (void)arg;
    (void)request_id;
    (void)status;
    (void)result;
    (void)index;
}

static void on_read_done(void *arg, uint64_t read_id, enum replica_status status)
{
    (void)arg;
    (void)read_id;
    (void)status;
}

static void
on_admin_done(void *arg, uint64_t request_id, enum replica_status status, const char *text)
{
    (void)arg;
    (void)request_id;
    (void)status;
    (void)text;
}

static void on_entry_applied(void *arg, uint64_t index, uint64_t term, struct bytes data)
{
    (void)arg;
    (void)index;
    (void)term;
    (void)data;
}

static void on_effects(void *arg,
                       uint64_t index,
                       const struct lock_command *command,
                       const struct lock_effects *effects)
{
    (void)arg;
    (void)index;
    (void)command;
    (void)effects;
}

static void on_state_changed(void *arg)
{
    (void)arg;
}

static void on_members_changed(void *arg, const struct raft_configuration *members)
{
    (void)arg;
    (void)members;
}

static void on_fatal(void *arg, const char *reason)
{
    (void)arg;
    (void)reason;
}

static void on_log(void *arg, int level, const char *msg, const char *fields)
{
    (void)arg;
    (void)level;
    (void)msg;
    (void)fields;
}

struct replica_io quiet_io(void)
{
    return (struct replica_io){
        .persist = on_persist,
        .send = on_send,
        .send_image = on_send_image,
        .take_snapshot = on_image,
        .install_image = on_image,
        .command_done = on_command_done,
        .read_done = on_read_done,
        .admin_done = on_admin_done,
        .entry_applied = on_entry_applied,
        .effects = on_effects,
        .state_changed = on_state_changed,
        .members_changed = on_members_changed,
        .fatal = on_fatal,
        .log = on_log,
    };
}
