/* What a client may do, by its certificate, and by the policy if there is one.  Pure, but for the
 * log lines of access_denied().
 *
 * Without a policy the certificate's kind decides:
 *
 * | certificate    | reads | locks | break | members, snapshots |
 * |----------------|-------|-------|-------|--------------------|
 * | none (no TLS)  | yes   | yes   | yes   | yes                |
 * | node, client   | yes   | yes   | yes   | yes                |
 * | mount, gateway | yes   | yes   | no    | no                 |
 *
 * With one, the policy decides instead, path by path, and nothing is allowed that it does not
 * allow:
 *
 * | request                                                | needs |
 * |--------------------------------------------------------|---------------------------------------|
 * | hello, ping, STATUS, MEMBERS, COUNTS                   | nothing: no lock is named in them | |
 * SESSION_OPEN                                           | any right                             |
 * | each other command                                     | the session to be its own | | ACQUIRE,
 * RENEW, CONVERT, NOTE, MKDIR, RMDIR, SETATTR   | acquire on each path                  | | LINK,
 * RENAME                                           | acquire on both names                 | |
 * RELEASE                                                | acquire, or that the hold is its own  |
 * | BREAK                                                  | break | | SHOW, LIST | read, or on
 * something below           | | LIST_PREFIX                                            | read on
 * something there               | | TOKEN                                                  | read
 * or acquire where the hold stands | | SESSIONS                                               |
 * read on "/", else only its own        | | SESSION | read on "/", or that it is its own    | |
 * Subscribe                                              | nothing: what may not be read is left |
 * |                                                        | out; what concerns its own session is
 * | |                                                        | told whatever the path | | Admin |
 * admin on "/"                          |
 *
 * A hold that is named by its token alone (LOCK_F_ANYWHERE) is judged by where it stands, not by
 * the path that came with it.  It may be moved between this and the command's turn in the log, by
 * somebody with the right to move it.  A token that no hold has yet acts at that path only: the
 * next tokens can be guessed.
 *
 * A session is its opener's by its host text, which is replicated: a mount's is the host that its
 * certificate names (also without a policy), that of others is set to "KIND/NAME" by the node.  So
 * nobody can end, keep or speak in the name of another one's session, on whatever node; one that
 * was opened by way of a node without a policy answers LOCK_NO_SESSION to all but mounts.
 *
 * A directory on the way to something that may be read is shown as a directory, without the number
 * of its entries; a lock at its place is not.  Of a rename of which only one name may be read, the
 * other is not told: it looks like an end or a grant.
 *
 * Who may acquire somewhere may also renew and release what others hold there, if he names their
 * owner or token: the lock table takes these for authority, as it does without a policy. */
#ifndef HOLDFAST_NODE_ACCESS_H
#define HOLDFAST_NODE_ACCESS_H

#include "raftstore/lock/lock.h"
#include "raftstore/lock/view.h"
#include "raftstore/node/access_policy.h"
#include "raftstore/tls/identity.h"

#include "holdfast.pb-c.h"

/* Of one connection. */
struct access {
    const struct identity *identity; /* NULL: none (plain TCP; a Unix socket, which only the node's
                                        own user can open): everything is allowed. */
    struct access_rights *rights;    /* NULL: no policy. */
    uint64_t session_id;             /* One that was found to be its own; 0 = none. */
};

/* Fill in, or bring up to date: cheap when it is.  `policy` may be NULL. */
void access_update(struct access *a, const struct identity *identity, struct access_policy *policy);
void access_deinit(struct access *a);

/* What is known of the cluster where the question is asked. */
struct access_state {
    const struct lock_table *table; /* Applied. */
    bool leads;                     /* Commands are taken. */
    bool ready;                     /* And all that was done under earlier leaders is applied. */
};

/* Why not. */
struct access_denial {
    const char *why;       /* A sentence (static); NULL: the policy, see below. */
    enum policy_verb verb; /* What it does not allow, */
    struct bytes path;     /* and where; borrowed as the request's paths, or the table's. */
    bool is_secret;        /* The path did not come from the client, who must not be told it. */
};

enum access_answer {
    ACCESS_YES,
    ACCESS_NO,         /* *ret_denial says why. */
    ACCESS_YES_BOUND,  /* Without LOCK_F_ANYWHERE. */
    ACCESS_YES_HOST,   /* With access.rights->host as the host. */
    ACCESS_NO_SESSION, /* To be answered LOCK_NO_SESSION; if it is another's, ret_denial->why is
                          set. */
    ACCESS_LATER,      /* This leader does not know yet. */
};

/* May it send this command?  On a node that does not lead: yes, since it won't be taken. */
enum access_answer access_command(struct access *a,
                                  const struct access_state *state,
                                  const struct lock_command *command,
                                  struct access_denial *ret_denial);

/* May it send operators' requests? */
enum access_answer access_admin(const struct access *a, struct access_denial *ret_denial);

/* May it ask this?  ACCESS_YES or ACCESS_NO.
 *
 * @table: as it is when the query is answered; NULL: before that, to refuse at once what can be. */
enum access_answer access_query(struct access *a,
                                const struct lock_table *table,
                                const Hf__Query *query,
                                struct access_denial *ret_denial);

/* May it see what stands there? */
bool access_sees(const struct access *a, struct bytes path, bool is_directory);

/* May it read that (and so, for a directory, know how many entries it has)? */
bool access_reads(const struct access *a, struct bytes path);

/* lock_list() and lock_list_prefix() of what it may see, with the same cursors.  They take as long
 * as what is shown and the policy's paths are many, however much is hidden.  The visitor of
 * access_list() asks access_sees() itself. */
enum lock_code access_list(const struct access *a,
                           const struct lock_table *table,
                           struct bytes directory,
                           struct bytes after,
                           bool (*visit)(void *arg, const struct lock_node_view *node),
                           void *arg);
void access_list_prefix(const struct access *a,
                        const struct lock_table *table,
                        struct bytes prefix,
                        struct bytes after,
                        bool (*visit)(void *arg, const struct lock_node_view *node),
                        void *arg);

/* May it see this session? */
bool access_sees_session(const struct access *a, const struct lock_session_view *session);

/* Is this session its own?  Without a policy, all are. */
bool access_is_own(const struct access *a, const struct lock_session_view *session);
bool access_owns_session(struct access *a, const struct lock_table *table, uint64_t session_id);

/* What it may be told of something that happened.
 *
 * @session_id: whose own events it wants; 0 = none.
 * Return: the effect itself, `room` filled in with what may be told, or NULL: nothing. */
const struct lock_effect *access_effect(struct access *a,
                                        const struct lock_table *table,
                                        uint64_t session_id,
                                        const struct lock_effect *effect,
                                        struct lock_effect *room);

/* Denials: counted, and logged at most ACCESS_LINES_MAX a second. */
#define ACCESS_LINES_MAX 10u

struct access_log {
    uint64_t denied;     /* Since start. */
    uint64_t second;     /* The one in which n_lines were written. */
    unsigned n_lines;    /* */
    uint64_t suppressed; /* Lines since the last one that was written. */
};

/* Every denial passes here.
 *
 * @client: its address, for the line.
 * @ret_sentence: appended, for the client; without a full stop. */
void access_denied(struct access_log *log,
                   uint64_t now_ms,
                   const struct access *a,
                   const struct access_denial *denial,
                   const char *client,
                   struct buf *ret_sentence);

#endif
