/* What the calls do: one handler for each kind (call.h tells the rules). */
#ifndef HOLDFAST_GATEWAY_HANDLERS_H
#define HOLDFAST_GATEWAY_HANDLERS_H

#include "gateway/call.h"

void handle_acquire(struct call *call);
void handle_release(struct call *call);
void handle_renew(struct call *call);
void handle_show(struct call *call);
void handle_list(struct call *call);
void handle_events(struct call *call);
void handle_health(struct call *call);
void handle_ready(struct call *call);
void handle_metrics(struct call *call);
void handle_openapi(struct call *call);

#endif
