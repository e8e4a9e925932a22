#include "raftstore/base/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int parse_port(const char *text, uint16_t *ret_port)
{
    unsigned long value = 0;
    size_t n = strspn(text, "0123456789");
    if (n == 0 || n > 5 || text[n] != '\0')
        return -EINVAL;
    for (size_t i = 0; i < n; i++)
        value = value * 10 + (unsigned long)(text[i] - '0');
    if (value > UINT16_MAX)
        return -EINVAL;
    *ret_port = (uint16_t)value;
    return 0;
}

int address_parse(const char *text, struct address *ret_address)
{
    struct address a = {0};
    const char *host = text, *host_end, *port;
    if (strncmp(text, "unix:", 5) == 0) {
        size_t n = strlen(text + 5);
        if (n == 0 || n > 107) /* sockaddr_un.sun_path */
            return -EINVAL;
        a.is_unix = true;
        memcpy(a.host, text + 5, n + 1);
        *ret_address = a;
        return 0;
    }
    if (text[0] == '[') {
        host = text + 1;
        host_end = strchr(host, ']');
        if (host_end == NULL || host_end[1] != ':')
            return -EINVAL;
        port = host_end + 2;
    } else {
        host_end = strrchr(text, ':');
        if (host_end == NULL || memchr(text, ':', (size_t)(host_end - text)) != NULL)
            return -EINVAL; /* IPv6 needs its brackets. */
        port = host_end + 1;
    }
    size_t n = (size_t)(host_end - host);
    if (n == 0 || n > ADDRESS_HOST_BYTES_MAX || parse_port(port, &a.port) < 0)
        return -EINVAL;
    memcpy(a.host, host, n);
    if (strpbrk(a.host, " ,\t\n") != NULL)
        return -EINVAL;
    *ret_address = a;
    return 0;
}

char *address_format(const struct address *a, char *out, unsigned size)
{
    if (a->is_unix)
        (void)snprintf(out, size, "unix:%s", a->host);
    else if (strchr(a->host, ':') != NULL)
        (void)snprintf(out, size, "[%s]:%u", a->host, a->port);
    else
        (void)snprintf(out, size, "%s:%u", a->host, a->port);
    return out;
}

bool address_is_loopback(const struct address *a)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (a->is_unix || strcmp(a->host, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, a->host, &v4) == 1)
        return (ntohl(v4.s_addr) >> 24) == 127;
    return inet_pton(AF_INET6, a->host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

bool address_host_is_loopback(const char *host)
{
    struct address a = {.port = 1};
    const char *start = host + (host[0] == '[');
    size_t size = strcspn(start, "]");
    if (size > ADDRESS_HOST_BYTES_MAX)
        return false;
    memcpy(a.host, start, size);
    return address_is_loopback(&a);
}
