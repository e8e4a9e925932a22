#include "gateway/expiry.h"

#include "gateway/certificate.h"
#include "raftstore/base/log.h"

#define WARN_S  (14 * 86400)
#define TELL_S  86400
#define LOOK_NS NS_PER_S

static void look(const char *which, int64_t expires_s, struct expiry *e)
{
    int64_t now_s = (int64_t)(clock_wall_ns(clock_system()) / NS_PER_S);
    int64_t left_s = expires_s - now_s;
    if (expires_s == 0 || left_s > WARN_S)
        return;
    bool ended = left_s < 0;
    if (e->told_s != 0 && ended == e->ended && now_s >= e->told_s && now_s - e->told_s < TELL_S)
        return;
    e->told_s = now_s;
    e->ended = ended;
    if (ended)
        LOG_ERROR("a certificate has expired: new connections with it are refused",
                  "certificate=%s remedy=\"put a new one there and send SIGHUP\"", which);
    else
        LOG_WARN("a certificate ends soon",
                 "certificate=%s days=%lld remedy=\"put a new one there and send SIGHUP\"", which,
                 (long long)(left_s / 86400));
}

static void on_look(struct boot_timer *timer)
{
    struct gateway *gw = timer->arg;
    look("https", certificate_expires_s(), &gw->https_expiry);
    look("cluster", gw->tls != NULL ? tls_context_expires_s(gw->tls) : 0, &gw->cluster_expiry);
    boot_timer_set(&gw->timers, timer, clock_boot_ns(clock_system()) + LOOK_NS);
}

void expiry_start(struct gateway *gw)
{
    gw->expiry = (struct boot_timer){.cb = on_look, .arg = gw};
    on_look(&gw->expiry);
}

void expiry_stop(struct gateway *gw)
{
    if (gw->expiry.cb != NULL)
        boot_timer_stop(&gw->timers, &gw->expiry);
}

void expiry_renewed(struct gateway *gw)
{
    gw->https_expiry.told_s = gw->cluster_expiry.told_s = 0;
}
