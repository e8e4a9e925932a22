/* Who calls, and whether they may: the guard (auth/guard.h) before the handlers. */
#ifndef HOLDFAST_GATEWAY_ACCESS_H
#define HOLDFAST_GATEWAY_ACCESS_H

#include "gateway/call.h"

/* An audit line of a refusal that this gateway decided itself: what nodes refuse, they tell.
 *
 * @what: the verb or call; @reason: a sentence. */
void access_audit(const struct call *call,
                  const char *what,
                  struct bytes lock_id,
                  const char *reason);

/* The head came: find out who calls, as far as that can be.  Who surely may not enter is answered,
 * so that his body need not be kept. */
void access_look(struct call *call);

/* Find out who calls (if it is not known yet) and take from the subject's bucket, then call `next`
 * once: at once, or later when the keys had to be fetched again.  A call that is refused is
 * answered instead. */
void access_enter(struct call *call, void (*next)(struct call *call));

/* May the caller do that?  False: the call is answered. */
bool access_may(struct call *call, enum policy_verb verb, struct bytes lock_id);

/* The same for what changes a lock; takes from the owner_id's bucket as well. */
bool access_may_change(struct call *call, struct bytes lock_id, struct bytes owner_id);

/* May the caller see that this lock is held?  Answers nothing. */
bool access_sees(const struct call *call, struct bytes lock_id);

#endif
