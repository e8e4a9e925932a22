#include "gateway/conn.h"

#include "gateway/call.h"
#include "raftstore/base/buf.h"

#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>

static const uint64_t limit_ms[PHASES] = {
    [PHASE_FRESH] = 10000,        [PHASE_IDLE] = 75000,      [PHASE_BODY] = 20000,
    [PHASE_WORKING] = UINT64_MAX, [PHASE_ANSWERING] = 60000,
};

void conns_init(struct conns *cs, uv_loop_t *loop, struct metrics *metrics, unsigned n_max)
{
    cs->loop = loop;
    cs->metrics = metrics;
    cs->n_max = n_max;
    for (unsigned i = 0; i < PHASES; i++)
        TAILQ_INIT(&cs->by_phase[i]);
}

/* A peer that vanished without a word is found within a minute; one that takes no data, too. */
static void set_keepalive(int fd)
{
    int on = 1, idle_s = 30, interval_s = 10, count = 3;
    unsigned user_ms = 60000;
    if (setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) < 0)
        return; /* No TCP. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_ms, sizeof user_ms);
}

/* Who said nothing yet goes first, who does nothing next, then the slowest: never who waits. */
static void make_room(struct conns *cs)
{
    struct conn *c;
    if (cs->n < cs->n_max - cs->n_max / 16)
        return;
    static const enum phase order[] = {PHASE_FRESH, PHASE_IDLE, PHASE_BODY, PHASE_ANSWERING};
    for (unsigned i = 0; i < sizeof order / sizeof order[0]; i++) {
        TAILQ_FOREACH(c, &cs->by_phase[order[i]], link)
        {
            if (c->shut)
                continue;
            cs->metrics->evicted++;
            conn_shut(c);
            return;
        }
    }
}

/* Of IPv6 the first half: whoever has one address of it has all. */
static void take_peer(struct conn *c)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *a = info != NULL ? info->client_addr : NULL;
    if (a == NULL)
        return;
    if (a->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)a;
        bool mapped = IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr);
        memcpy(c->peer, &v6->sin6_addr, mapped ? 16 : 8);
    } else if (a->sa_family == AF_INET) {
        c->peer[10] = c->peer[11] = 0xFF; /* As IPv6 maps it. */
        memcpy(c->peer + 12, &((const struct sockaddr_in *)(const void *)a)->sin_addr, 4);
    }
}

struct conn *conn_open(struct conns *cs, struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info == NULL)
        return NULL;
    make_room(cs);
    struct conn *c = xcalloc(1, sizeof *c);
    c->conns = cs;
    c->mhd = mhd;
    c->fd = info->connect_fd;
    c->phase = PHASE_FRESH;
    c->since_ms = uv_now(cs->loop);
    TAILQ_INSERT_TAIL(&cs->by_phase[PHASE_FRESH], c, link);
    cs->n++;
    cs->metrics->connections = cs->n;
    set_keepalive(c->fd);
    take_peer(c);
    return c;
}

static void on_poll_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void conn_closed(struct conn *c)
{
    struct conns *cs = c->conns;
    TAILQ_REMOVE(&cs->by_phase[c->phase], c, link);
    if (cs->n-- == cs->n_max)
        cs->on_work(cs->arg); /* It accepts again only when it is run once more. */
    cs->metrics->connections = cs->n;
    if (c->has_poll)
        uv_close((uv_handle_t *)&c->poll, on_poll_closed);
    else
        free(c);
}

struct bytes conn_peer(const struct conn *c)
{
    return bytes_of(c->peer, sizeof c->peer);
}

void conn_phase(struct conn *c, enum phase phase)
{
    TAILQ_REMOVE(&c->conns->by_phase[c->phase], c, link);
    TAILQ_INSERT_TAIL(&c->conns->by_phase[phase], c, link);
    c->phase = phase;
    c->since_ms = uv_now(c->conns->loop);
    if (phase == PHASE_IDLE && c->conns->draining)
        conn_shut(c);
}

/* MHD closes it when it sees the end; one that is suspended is told of it as of a hang-up. */
void conn_shut(struct conn *c)
{
    if (c->shut)
        return;
    c->shut = true;
    (void)shutdown(c->fd, SHUT_RDWR); /* Fails when the peer was faster. */
}

void conns_shut(struct conns *cs, enum phase phase)
{
    struct conn *c;
    TAILQ_FOREACH(c, &cs->by_phase[phase], link)
    conn_shut(c);
}

void conns_sweep(struct conns *cs)
{
    struct conn *c;
    uint64_t now = uv_now(cs->loop);
    for (unsigned i = 0; i < PHASES; i++) {
        TAILQ_FOREACH(c, &cs->by_phase[i], link)
        {
            if (limit_ms[i] == UINT64_MAX || now - c->since_ms < limit_ms[i])
                break;
            cs->metrics->timed_out += !c->shut;
            conn_shut(c);
        }
    }
}

/* ---- Suspension ------------------------------------------------------------------------ */

static void hung_up(struct conn *c)
{
    struct call *call = c->call;
    assert(call != NULL); /* It is suspended for one. */
    c->conns->metrics->hang_ups++;
    c->shut = true;
    call_gone(call);
    if (c->suspended)
        conn_resume(c); /* MHD ends it. */
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct conn *c = poll->data;
    if (status == 0 && (events & UV_DISCONNECT) == 0)
        return;
    (void)uv_poll_stop(poll);
    c->polling = false;
    if (c->suspended)
        hung_up(c); /* Else MHD sees it itself. */
}

static void watch(struct conn *c)
{
    if (c->polling)
        return;
    if (!c->has_poll) {
        if (uv_poll_init(c->conns->loop, &c->poll, c->fd) < 0)
            return; /* Without descriptors: its hang-up is seen when it is answered. */
        c->has_poll = true;
        c->poll.data = c;
    }
    c->polling = uv_poll_start(&c->poll, UV_DISCONNECT, on_poll) == 0;
}

void conn_suspend(struct conn *c)
{
    assert(!c->suspended);
    c->suspended = true;
    MHD_suspend_connection(c->mhd);
    watch(c);
}

void conn_resume(struct conn *c)
{
    assert(c->suspended);
    c->suspended = false;
    MHD_resume_connection(c->mhd);
    c->conns->on_work(c->conns->arg);
}
