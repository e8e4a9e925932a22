/* Addresses as people write them: "host:port", "127.0.0.1:7000", "[::1]:7000", "unix:/path".
 *
 * A name is resolved at each connect, never here. */
#ifndef HOLDFAST_BASE_ADDRESS_H
#define HOLDFAST_BASE_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#define ADDRESS_HOST_BYTES_MAX 255

struct address {
    bool is_unix;                          /* A Unix socket; `host` is its path. */
    char host[ADDRESS_HOST_BYTES_MAX + 1]; /* Name, IPv4 or IPv6 (without brackets), or path. */
    uint16_t port;                         /* 0 for a Unix socket; else 1..65535 (0 allowed by
                                              address_parse() for "any free port" to listen on). */
};

/* Parse one address.
 *
 * Return: 0; -EINVAL for anything else than the four forms above. */
int address_parse(const char *text, struct address *ret_address);

/* Write it in the form that address_parse() reads, into `out` of `size` bytes (300 always do).
 *
 * Return: `out`. */
char *address_format(const struct address *a, char *out, unsigned size);

/* Is it sure never to leave this machine: a Unix socket, "localhost", 127.0.0.0/8 or ::1? */
bool address_is_loopback(const struct address *a);

/* The same of a URL's host: a name or an address, IPv6 with or without its brackets. */
bool address_host_is_loopback(const char *host);

#endif
