/* Is a request's head one that everybody between the client and here reads alike?  Where two
 * disagree on where a request ends, one client's body is taken for another's request (request
 * smuggling; RFC 9112, 6.1, 6.3 and 11.2).  libmicrohttpd is lenient in this. */
#ifndef HOLDFAST_GATEWAY_FRAMING_H
#define HOLDFAST_GATEWAY_FRAMING_H

#include <microhttpd.h>
#include <stdbool.h>

/* @version: "HTTP/1.1".
 *
 * Return: NULL: it is; else what is wrong, in words that live for ever. */
const char *framing_problem(struct MHD_Connection *mhd, const char *target, const char *version);

#endif
