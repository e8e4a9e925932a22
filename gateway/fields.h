/* The body of a POST: a JSON object with known members only, each of its type and in its bounds. */
#ifndef HOLDFAST_GATEWAY_FIELDS_H
#define HOLDFAST_GATEWAY_FIELDS_H

#include "gateway/call.h"

enum field {
    FIELD_LOCK_ID,
    FIELD_OWNER_ID,
    FIELD_TTL,
    FIELD_MODE,
    FIELD_WAIT,
    FIELD_LIMIT,
    FIELD_LOCK_DELAY,
    FIELD_NOTE,
    FIELD_TOKEN,
    FIELDS,
};
#define FIELD_BIT(field) (1u << (field))

struct fields {
    json_t *root;          /* Owns the texts. */
    unsigned present;      /* FIELD_BIT() of those that are there. */
    struct bytes lock_id;  /* A valid one. */
    struct bytes owner_id; /* 1..CALL_OWNER_BYTES_MAX bytes. */
    struct bytes note;
    uint64_t ttl_ms;
    uint64_t wait_ms;
    uint64_t lock_delay_ms;
    uint64_t token; /* Not 0 if there. */
    uint32_t limit; /* Likewise. */
    uint32_t mode;  /* enum wire_mode; exclusive if not there. */
};

/* Parse a call's body.
 *
 * @required, @optional: FIELD_BIT()s; everything else is refused.
 * Return: true: fields_deinit() frees it.  False: the call is answered. */
bool fields_parse(struct call *call, unsigned required, unsigned optional, struct fields *ret);
void fields_deinit(struct fields *f);

#endif
