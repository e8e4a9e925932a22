/* Which bytes may be shown to people as they are. */
#ifndef HOLDFAST_BASE_UTF8_H
#define HOLDFAST_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length of the UTF-8 character that begins at `p`.
 *
 * @left: bytes there, at least 1.
 * Return: 0 when it is none (too long, cut off, a surrogate), or a control character, C1 and DEL
 *         included: terminals obey them. */
size_t utf8_char(const uint8_t *p, size_t left);

#endif
