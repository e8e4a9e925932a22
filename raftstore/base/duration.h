/* Numbers and durations as people write them: "90s", "1500ms", "2m", "1h30m", "7d". */
#ifndef HOLDFAST_BASE_DURATION_H
#define HOLDFAST_BASE_DURATION_H

#include "raftstore/base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

/* Parse a duration: numbers with units, great ones first and each once.
 *
 * @bare_is_seconds: a number without a unit is taken as seconds; else it is no duration.
 *
 * Return: 0; -EINVAL for anything else, a sign, or more than 2^53 ms. */
int duration_parse(struct bytes text, bool bare_is_seconds, uint64_t *ret_ms);

/* Parse a whole decimal number (at most 20 digits).
 *
 * Return: 0; -EINVAL for anything else, and for what does not fit 64 bits. */
int number_parse(struct bytes text, uint64_t *ret_number);

#endif
