/* What make_tokens.py made, for the tests of auth/. */
#ifndef HOLDFAST_TESTS_UNIT_MADE_TOKENS_H
#define HOLDFAST_TESTS_UNIT_MADE_TOKENS_H

#include "raftstore/base/bytes.h"

#define MADE_NOW_S INT64_C(1800000000) /* The tokens' times are around it. */

/* As setup and teardown of a group.  Runs the script that $MAKE_TOKENS names. */
int made_tokens_load(void **state);
int made_tokens_free(void **state);

struct bytes made_token(const char *name); /* Terminated; fails the test if there is none. */
char *made_keys(const char *name);         /* "jwks" or "rotated": the document; to free(). */
size_t made_n_tokens(void);

#endif
