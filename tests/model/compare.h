/* The real table against the model: answers, effects, state. */
#ifndef HOLDFAST_TESTS_MODEL_COMPARE_H
#define HOLDFAST_TESTS_MODEL_COMPARE_H

#include "tests/model/model.h"

/* Each prints what differs on stdout and returns false. */
bool compare_step(const struct model *m,
                  const struct lock_result *want,
                  const struct lock_effects *got);
bool compare_state(struct model *m, const struct lock_table *t);

void print_command(const struct lock_command *c);

#endif
