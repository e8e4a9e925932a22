/* Where something stands in a JSON text: libjansson forgets it once it has parsed. */
#ifndef HOLDFAST_AUTH_JSON_LINE_H
#define HOLDFAST_AUTH_JSON_LINE_H

#include "raftstore/base/bytes.h"

/* One step down: into an object's member, or (key NULL) to an array's item. */
struct json_step {
    const char *key;
    size_t index;
};

/* The line, counting from 1, of what the steps lead to from the outermost value; of the last one
 * that is there, if they lead on (or the key is written with escapes).
 *
 * @text: valid JSON. */
unsigned json_line(struct bytes text, const struct json_step *steps, size_t n);

#endif
