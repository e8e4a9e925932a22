/* The policy of a node: read at the start, and again when asked, on the worker pool: a large one
 * takes longer to parse than the loop may be kept. */
#include "raftstore/node/node_internal.h"

#include "raftstore/base/log.h"

#include <stdlib.h>

int node_load_policy(struct node *n, char **ret_sentence)
{
    struct policy *policy = NULL;
    char *why = NULL;
    if (n->config.policy == NULL)
        return 0;
    int rv = policy_load(n->config.policy, &policy, &why);
    if (rv < 0) {
        struct buf text = BUF_INIT;
        buf_printf(&text, "policy %s: %s", n->config.policy, why);
        buf_add(&text, "", 1);
        free(why);
        *ret_sentence = (char *)text.data;
        return rv;
    }
    n->policy = access_policy_new(policy);
    listener_set_policy(n->listener, n->policy);
    return 0;
}

static void read_job(uv_work_t *job)
{
    struct node *n = job->data;
    (void)policy_load(n->config.policy, &n->policy_read,
                      &n->policy_sentence); /* The first tells. */
}

static void take_over(struct node *n)
{
    const char *file = log_quote(bytes_str(n->config.policy));
    if (n->policy_read == NULL) {
        LOG_ERROR("policy not reloaded, the old one stays", "file=%s why=%s", file,
                  log_quote(bytes_str(n->policy_sentence)));
        node_audit_policy(&n->audit, "refused", n->config.policy, n->policy_sentence);
        return;
    }
    access_policy_unref(n->policy);
    n->policy = access_policy_new(n->policy_read);
    n->policy_read = NULL;
    listener_set_policy(n->listener, n->policy);
    LOG_INFO("policy reloaded", "file=%s", file);
    node_audit_policy(&n->audit, "reloaded", n->config.policy, NULL);
}

static void read_done(uv_work_t *job, int status)
{
    struct node *n = job->data;
    (void)status; /* Never cancelled. */
    n->policy_reading = false;
    if (node_is_alive(n))
        take_over(n);
    policy_free(n->policy_read);
    free(n->policy_sentence);
    n->policy_read = NULL;
    n->policy_sentence = NULL;
    if (n->policy_again && node_is_alive(n)) /* It may have changed while it was being read. */
        node_reload_policy(n);
    node_unref(n);
}

void node_reload_policy(struct node *n)
{
    if (n->config.policy == NULL)
        return;
    n->policy_again = n->policy_reading;
    if (n->policy_reading)
        return;
    n->policy_work.data = n;
    int rv = uv_queue_work(n->config.loop, &n->policy_work, read_job, read_done);
    if (rv < 0) {
        LOG_ERROR("policy not reloaded, the old one stays", "file=%s why=%s",
                  log_quote(bytes_str(n->config.policy)), log_quote(bytes_str(uv_strerror(rv))));
        return;
    }
    n->policy_reading = true;
    n->n_open++;
}

void node_policy_deinit(struct node *n)
{
    access_policy_unref(n->policy);
}
