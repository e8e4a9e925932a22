/* Telling systemd (Type=notify) how a daemon is. */
#ifndef HOLDFAST_BASE_NOTIFY_H
#define HOLDFAST_BASE_NOTIFY_H

/* Send a state such as "READY=1"; does nothing when nobody asked ($NOTIFY_SOCKET is not set). */
void notify_systemd(const char *state);

#endif
