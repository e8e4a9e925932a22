/* Classes of requests, each with bounds of its own: one that is full neither delays nor refuses
 * another (bulkhead.h). */
#ifndef HOLDFAST_CLIENT_CLASS_H
#define HOLDFAST_CLIENT_CLASS_H

enum client_class {
    CLIENT_READ,   /* Queries. */
    CLIENT_WRITE,  /* Commands that are answered at once: acquires that don't wait, mkdir, ... */
    CLIENT_WAIT,   /* Commands that may wait in the cluster's queue. */
    CLIENT_UPKEEP, /* What keeps or ends holds: renew, release, cancel. */
    CLIENT_CLASSES,
};

#endif
