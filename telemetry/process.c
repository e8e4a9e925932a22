#include "telemetry/process.h"

#include "raftstore/base/clock.h"
#include "raftstore/base/prometheus.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* A small file of /proc as a string; "" if it can't be read. */
static void read_text(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, out, size - 1) : -1;
    out[n > 0 ? n : 0] = '\0';
    if (fd >= 0)
        (void)close(fd); /* Only read from. */
}

/* Linux 6.2 and later tell their number as the directory's size. */
static uint64_t count_fds(void)
{
    struct stat st;
    uint64_t n = 0;
    if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0)
        return (uint64_t)st.st_size;
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL)
        return 0;
    for (struct dirent *e; (e = readdir(dir)) != NULL;)
        n += e->d_name[0] != '.';
    (void)closedir(dir);
    return n > 0 ? n - 1 : 0; /* Without the one that was used to look. */
}

/* Field 22 of /proc/self/stat (proc(5)): ticks from boot to the start of the process. */
static uint64_t start_ticks(void)
{
    char text[1024];
    read_text("/proc/self/stat", text, sizeof text);
    char *at = strrchr(text, ')'); /* The name may have anything in it. */
    for (unsigned field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at != NULL ? strtoull(at, NULL, 10) : 0;
}

static uint64_t start_wall_ns(void)
{
    uint64_t hz = (uint64_t)sysconf(_SC_CLK_TCK);
    uint64_t boot_ns = clock_boot_ns(clock_system());
    uint64_t start_ns = start_ticks() * (NS_PER_S / (hz > 0 ? hz : 100));
    uint64_t age_ns = boot_ns > start_ns ? boot_ns - start_ns : 0;
    return clock_wall_ns(clock_system()) - age_ns;
}

static uint64_t ns_of(struct timeval t)
{
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_usec * NS_PER_US;
}

void process_stats_read(struct process_stats *ret, const char *data)
{
    struct process_stats s = {.start_wall_ns = ret->start_wall_ns, .fds = count_fds()};
    struct rusage usage;
    struct rlimit limit;
    struct statvfs fs;
    char text[128], *end = text;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (s.start_wall_ns == 0)
        s.start_wall_ns = start_wall_ns();
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        s.cpu_ns = ns_of(usage.ru_utime) + ns_of(usage.ru_stime);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        s.fds_max = limit.rlim_cur;
    if (data != NULL && statvfs(data, &fs) == 0) {
        s.disk_free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
        s.disk_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
    }
    read_text("/proc/self/statm", text, sizeof text);
    s.virtual_bytes = strtoull(text, &end, 10) * page;
    s.resident_bytes = strtoull(end, NULL, 10) * page;
    *ret = s;
}

static void gauge(struct buf *out, const char *name, const char *help, uint64_t value)
{
    if (value != 0)
        prometheus_single(out, name, "gauge", help, value);
}

void process_stats_write(const struct process_stats *s, struct buf *out)
{
    prometheus_single_seconds(out, "process_cpu_seconds_total", "counter",
                              "Total user and system CPU time spent in seconds.", s->cpu_ns);
    prometheus_single_seconds(out, "process_start_time_seconds", "gauge",
                              "Start time of the process since unix epoch in seconds.",
                              s->start_wall_ns);
    gauge(out, "process_resident_memory_bytes", "Resident memory size in bytes.",
          s->resident_bytes);
    gauge(out, "process_virtual_memory_bytes", "Virtual memory size in bytes.", s->virtual_bytes);
    gauge(out, "process_open_fds", "Number of open file descriptors.", s->fds);
    gauge(out, "process_max_fds", "Maximum number of open file descriptors.", s->fds_max);
    if (s->disk_bytes == 0)
        return;
    gauge(out, "holdfast_disk_size_bytes", "Size of the file system with the data.", s->disk_bytes);
    prometheus_single(out, "holdfast_disk_free_bytes", "gauge",
                      "Free space on the file system with the data.", s->disk_free_bytes);
}

void certificates_write(const struct certificate_end *list, unsigned n, struct buf *out)
{
    struct prometheus p = {0};
    for (unsigned i = 0; i < n; i++) {
        if (list[i].expires_s <= 0)
            continue;
        if (p.out == NULL)
            p = prometheus_begin(out, "holdfast_certificate_expiry_timestamp_seconds", "gauge",
                                 "When the program's own certificate ends, since 1970.");
        prometheus_labelled(&p, "certificate", list[i].name, (uint64_t)list[i].expires_s);
    }
}

void build_info_write(const char *component, struct buf *out)
{
    struct prometheus p =
        prometheus_begin(out, "holdfast_build_info", "gauge", "Which program this is; always 1.");
    prometheus_sample(&p, "");
    prometheus_label(&p, "component", bytes_str(component));
    prometheus_label(&p, "version", bytes_str(HOLDFAST_VERSION));
    prometheus_label(&p, "compiler", bytes_str(__VERSION__));
    prometheus_u64(&p, 1);
}
