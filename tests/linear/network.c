/* A network in one process: hosts are network name spaces, each with one TUN device, and every
 * packet between them passes through here, where it can be dropped, delayed, doubled or overtaken.
 *
 * Usage: linear_network N_HOSTS SEED TUN       TUN: the device node, /dev/net/tun
 *
 * Host I (from 1) has the address 10.99.0.I.  For each a line "host I FD" is written: its name
 * space is /proc/PID/fd/FD, for nsenter(1) and setns(2), until this process and the last one in it
 * have ended; nothing has to be removed.  Then commands are read, each answered by "ok" or "error":
 *
 *     link A B drop=0|1 delay_us=N jitter_us=N loss=N double=N reorder=N
 *         What happens to packets from host A to host B (* = each); what is not named is 0.  loss,
 *         double, reorder: in a million packets.
 *     mtu A N      the largest packet of host A (a small one splits every message)
 *     count        answers "ok passed=N dropped=N lost=N doubled=N reordered=N"
 *
 * It ends with its standard input.  Exit status: 0; 1 failed; 2 wrong usage; 77 the kernel has no
 * TUN device or name spaces for us. */
#include "raftstore/base/random.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HOSTS_MAX   32u
#define PACKET_MAX  2048u
#define PACKETS_MAX 20000u /* On their way; more are lost, as in a full queue. */
#define MILLION     UINT64_C(1000000)

struct path {
    bool drop;
    uint64_t delay_us;
    uint64_t jitter_us;
    uint64_t loss, twice, reorder; /* In a million. */
    uint64_t last_due_ns;          /* Without `reorder`, nothing overtakes. */
};

struct packet {
    uint64_t due_ns;
    uint64_t order; /* Of equals the first. */
    unsigned to;
    size_t size;
    unsigned char data[PACKET_MAX];
};

struct host {
    int name_space;
    int tun;
    int control; /* A socket in it, for ioctl. */
};

struct network {
    struct host hosts[HOSTS_MAX];
    unsigned n_hosts;
    struct path paths[HOSTS_MAX][HOSTS_MAX];
    struct packet *heap[PACKETS_MAX]; /* The next one first. */
    size_t n_packets;
    uint64_t n_order;
    struct random random;
    uint64_t passed, dropped, lost, doubled, reordered;
};

static void die(const char *what)
{
    (void)fprintf(stderr, "linear_network: %s: %s\n", what, strerror(errno));
    exit(errno == EPERM || errno == ENODEV || errno == ENXIO || errno == ENOENT ? 77 : 1);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* Can't fail. */
    return (uint64_t)t.tv_sec * 1000 * MILLION + (uint64_t)t.tv_nsec;
}

/* ---- hosts ---- */

static void set_address(int s, const char *device, unsigned host)
{
    struct ifreq r = {0};
    struct sockaddr_in *a = (struct sockaddr_in *)&r.ifr_addr;

    (void)snprintf(r.ifr_name, sizeof r.ifr_name, "%s", device);
    a->sin_family = AF_INET;
    a->sin_addr.s_addr = htonl(0x0A630000u + host);
    if (ioctl(s, SIOCSIFADDR, &r) < 0)
        die("SIOCSIFADDR");
    a->sin_addr.s_addr = htonl(0xFFFFFF00u);
    if (ioctl(s, SIOCSIFNETMASK, &r) < 0)
        die("SIOCSIFNETMASK");
}

static void bring_up(int s, const char *device)
{
    struct ifreq r = {0};

    (void)snprintf(r.ifr_name, sizeof r.ifr_name, "%s", device);
    if (ioctl(s, SIOCGIFFLAGS, &r) < 0)
        die("SIOCGIFFLAGS");
    r.ifr_flags = (short)(r.ifr_flags | IFF_UP | IFF_RUNNING);
    if (ioctl(s, SIOCSIFFLAGS, &r) < 0)
        die("SIOCSIFFLAGS");
}

static bool set_mtu(const struct host *h, int mtu)
{
    struct ifreq r = {.ifr_name = "hf0"};

    r.ifr_mtu = mtu;
    return ioctl(h->control, SIOCSIFMTU, &r) == 0;
}

/* Leaves the process in the new name space. */
static void host_make(struct host *h, unsigned number, const char *tun)
{
    struct ifreq r = {.ifr_name = "hf0"};

    if (unshare(CLONE_NEWNET) < 0)
        die("unshare");
    h->name_space = open("/proc/self/ns/net", O_RDONLY); /* Others open it by its number. */
    h->control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    h->tun = open(tun, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (h->name_space < 0 || h->control < 0 || h->tun < 0)
        die(tun);
    r.ifr_flags = IFF_TUN | IFF_NO_PI;
    if (ioctl(h->tun, TUNSETIFF, &r) < 0)
        die("TUNSETIFF");
    set_address(h->control, "hf0", number);
    bring_up(h->control, "lo");
    bring_up(h->control, "hf0");
    (void)printf("host %u %d\n", number, h->name_space);
}

/* ---- packets ---- */

static bool before(const struct packet *a, const struct packet *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->order < b->order;
}

static void heap_push(struct network *net, struct packet *p)
{
    size_t i = net->n_packets++;

    while (i > 0 && before(p, net->heap[(i - 1) / 2])) {
        net->heap[i] = net->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    net->heap[i] = p;
}

static struct packet *heap_pop(struct network *net)
{
    struct packet *top = net->heap[0];
    struct packet *last = net->heap[--net->n_packets];
    size_t i = 0;

    for (size_t child = 1; child < net->n_packets; child = 2 * i + 1) {
        if (child + 1 < net->n_packets && before(net->heap[child + 1], net->heap[child]))
            child++;
        if (!before(net->heap[child], last))
            break;
        net->heap[i] = net->heap[child];
        i = child;
    }
    net->heap[i] = last;
    return top;
}

static void deliver(struct network *net, unsigned to, const void *data, size_t size)
{
    /* What the host's queue has no room for is lost, as elsewhere. */
    if (write(net->hosts[to].tun, data, size) == (ssize_t)size)
        net->passed++;
    else
        net->lost++;
}

static bool chance(struct network *net, uint64_t in_a_million)
{
    return in_a_million > 0 && random_below(&net->random, MILLION) < in_a_million;
}

static void pass(struct network *net, unsigned from, unsigned to, const void *data, size_t size)
{
    struct path *p = &net->paths[from][to];
    uint64_t now = now_ns();
    uint64_t due = now + p->delay_us * 1000;

    if (p->jitter_us > 0)
        due += random_below(&net->random, p->jitter_us) * 1000;
    if (chance(net, p->reorder)) {
        net->reordered++;
        due += 1000 * MILLION / 500 + random_below(&net->random, 1000 * MILLION / 200);
    } else {
        if (due < p->last_due_ns)
            due = p->last_due_ns;
        p->last_due_ns = due;
    }
    if (due <= now) {
        deliver(net, to, data, size);
        return;
    }
    struct packet *k = net->n_packets < PACKETS_MAX ? malloc(sizeof *k) : NULL;
    if (k == NULL) {
        net->lost++;
        return;
    }
    k->due_ns = due;
    k->order = net->n_order++;
    k->to = to;
    k->size = size;
    memcpy(k->data, data, size);
    heap_push(net, k);
}

static void take(struct network *net, unsigned from)
{
    unsigned char data[PACKET_MAX];

    for (unsigned i = 0; i < 64; i++) {
        ssize_t n = read(net->hosts[from].tun, data, sizeof data);
        if (n < 0)
            return;
        /* IPv4 to 10.99.0.HOST; anything else (IPv6 looking for routers) goes nowhere. */
        if (n < 20 || data[0] >> 4 != 4 || data[16] != 10 || data[17] != 99 || data[19] == 0 ||
            data[19] > net->n_hosts)
            continue;
        unsigned to = data[19] - 1u;
        struct path *p = &net->paths[from][to];
        if (p->drop) {
            net->dropped++;
            continue;
        }
        if (chance(net, p->loss)) {
            net->lost++;
            continue;
        }
        pass(net, from, to, data, (size_t)n);
        if (chance(net, p->twice)) {
            net->doubled++;
            pass(net, from, to, data, (size_t)n);
        }
    }
}

static void run_due(struct network *net)
{
    uint64_t now = net->n_packets > 0 ? now_ns() : 0;

    while (net->n_packets > 0 && net->heap[0]->due_ns <= now) {
        struct packet *k = heap_pop(net);
        deliver(net, k->to, k->data, k->size);
        free(k);
    }
}

/* ---- commands ---- */

/* A host's index, n_hosts for "*"; larger: neither. */
static unsigned host_named(const struct network *net, const char *word)
{
    unsigned long i;

    if (word == NULL)
        return HOSTS_MAX + 1;
    if (strcmp(word, "*") == 0)
        return net->n_hosts;
    i = strtoul(word, NULL, 10);
    return i >= 1 && i <= net->n_hosts ? (unsigned)i - 1 : HOSTS_MAX + 1;
}

static bool path_parse(struct path *p, char **save)
{
    for (char *word = strtok_r(NULL, " ", save); word; word = strtok_r(NULL, " ", save)) {
        char *value = strchr(word, '=');
        if (value == NULL)
            return false;
        *value++ = '\0';
        uint64_t v = strtoull(value, NULL, 10);
        if (strcmp(word, "drop") == 0)
            p->drop = v != 0;
        else if (strcmp(word, "delay_us") == 0)
            p->delay_us = v;
        else if (strcmp(word, "jitter_us") == 0)
            p->jitter_us = v;
        else if (strcmp(word, "loss") == 0)
            p->loss = v;
        else if (strcmp(word, "double") == 0)
            p->twice = v;
        else if (strcmp(word, "reorder") == 0)
            p->reorder = v;
        else
            return false;
    }
    return true;
}

static bool set_paths(struct network *net, char **save)
{
    unsigned from = host_named(net, strtok_r(NULL, " ", save));
    unsigned to = host_named(net, strtok_r(NULL, " ", save));
    struct path wanted = {0};

    if (from > net->n_hosts || to > net->n_hosts || !path_parse(&wanted, save))
        return false;
    for (unsigned a = 0; a < net->n_hosts; a++)
        for (unsigned b = 0; b < net->n_hosts; b++)
            if ((from == a || from == net->n_hosts) && (to == b || to == net->n_hosts)) {
                wanted.last_due_ns = net->paths[a][b].last_due_ns;
                net->paths[a][b] = wanted;
            }
    return true;
}

static void command(struct network *net, char *line)
{
    char *save = NULL;
    char *word = strtok_r(line, " ", &save);
    bool ok = false;

    if (word != NULL && strcmp(word, "link") == 0) {
        ok = set_paths(net, &save);
    } else if (word != NULL && strcmp(word, "mtu") == 0) {
        unsigned host = host_named(net, strtok_r(NULL, " ", &save));
        char *mtu = strtok_r(NULL, " ", &save);
        ok = host < net->n_hosts && mtu != NULL &&
             set_mtu(&net->hosts[host], (int)strtol(mtu, NULL, 10));
    } else if (word != NULL && strcmp(word, "count") == 0) {
        (void)printf("ok passed=%" PRIu64 " dropped=%" PRIu64 " lost=%" PRIu64 " doubled=%" PRIu64
                     " reordered=%" PRIu64 "\n",
                     net->passed, net->dropped, net->lost, net->doubled, net->reordered);
        (void)fflush(stdout);
        return;
    }
    (void)puts(ok ? "ok" : "error");
    (void)fflush(stdout);
}

/* Return: false at the end of the input. */
static bool commands(struct network *net)
{
    static char input[4096];
    static size_t used;
    ssize_t n = read(STDIN_FILENO, input + used, sizeof input - used - 1);

    if (n <= 0)
        return false;
    used += (size_t)n;
    input[used] = '\0';
    char *line = input;
    for (char *end = strchr(line, '\n'); end != NULL; end = strchr(line, '\n')) {
        *end = '\0';
        command(net, line);
        line = end + 1;
    }
    used = (size_t)(input + used - line);
    memmove(input, line, used + 1);
    return used < sizeof input - 1;
}

int main(int argc, char **argv)
{
    static struct network net;
    struct pollfd fds[HOSTS_MAX + 1];

    net.n_hosts = argc == 4 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    if (net.n_hosts == 0 || net.n_hosts > HOSTS_MAX) {
        (void)fprintf(stderr, "usage: see the head of network.c\n");
        return 2;
    }
    net.random.state = strtoull(argv[2], NULL, 10);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    for (unsigned i = 0; i < net.n_hosts; i++) {
        host_make(&net.hosts[i], i + 1, argv[3]);
        fds[i] = (struct pollfd){.fd = net.hosts[i].tun, .events = POLLIN};
    }
    fds[net.n_hosts] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    (void)puts("ready");
    (void)fflush(stdout);
    for (;;) {
        struct timespec wait = {0};
        if (net.n_packets > 0) {
            uint64_t now = now_ns();
            uint64_t due = net.heap[0]->due_ns;
            wait.tv_nsec =
                (long)(due > now ? (due - now < 999 * MILLION ? due - now : 999 * MILLION) : 0);
        }
        if (ppoll(fds, net.n_hosts + 1, net.n_packets > 0 ? &wait : NULL, NULL) < 0 &&
            errno != EINTR)
            die("ppoll");
        run_due(&net);
        for (unsigned i = 0; i < net.n_hosts; i++)
            if (fds[i].revents != 0)
                take(&net, i);
        if (fds[net.n_hosts].revents != 0 && !commands(&net))
            return 0;
    }
}
