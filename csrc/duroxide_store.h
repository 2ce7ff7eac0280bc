/* The store ABI, version 1: what a third party implements to keep orchestrations somewhere else.
 *
 * A store is a PyCapsule named "duroxide.store_v1" around one dx_store_v1. The verbs and rows are those of
 * duroxide/storage/base.py, which says what each must do; here only what C adds. C11, no Python.h.
 *
 * Memory    What the caller passes in stays the caller's and is valid during the call. What a verb puts out is the store's
 *           and valid until release(self, memory) of that very result; nothing is released when a verb fails.
 * Text      UTF-8, never assumed to end in NUL; n = -1 is NULL (None), n = 0 the empty text.
 * Threads   Any thread may call, without the GIL; calls may overlap, except that close() comes after all others.
 * Failure   A verb returns DX_OK, or DX_ERROR with `error` filled in and nothing of the group written.
 * Growth    The structs of version 1 never change. A later version is another capsule name and another header.
 */
#ifndef DUROXIDE_STORE_H
#define DUROXIDE_STORE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DX_CAPSULE "duroxide.store_v1"
#define DX_ABI 1u

/* What a verb returns. */
enum { DX_OK = 0, DX_ERROR = -1 };

/* What became of one finished turn or work item of an exchange. */
enum {
    DX_DONE = 0,   /* committed (OK in Python) */
    DX_LOST = 1,   /* the lease or the row is no longer the caller's: nothing of this item was written */
    DX_REFUSED = 2 /* the store's constraints refuse it: nothing of this item was written */
};

/* A message with this visible_at waits for its instance to be born. */
#define DX_PARKED ((int64_t)1 << 62)
#define DX_NO_EVENTS ((int64_t)1 << 62) /* as `after` of load */

typedef struct { const char *p; int64_t n; } dx_str;

typedef struct {
    int32_t code;      /* the backend's own number, 0 if it has none */
    int32_t retryable; /* 1: trying again may help */
    char operation[32];
    char message[472]; /* NUL-terminated UTF-8: doing what, found what, expected what */
} dx_error;

/* ── handed in ───────────────────────────────────────────────────────────────────────────────────────────── */

typedef struct { /* base.WorkOut: a new work item; lease.n >= 0 inserts it locked by that token, attempt 1, its session untouched */
    dx_str instance;
    int64_t execution_id;
    int64_t activity_id;
    dx_str name;
    dx_str input;
    dx_str item;
    dx_str session_id;
    dx_str tag;
    int64_t visible_at; /* 0: now */
    dx_str lease;
} dx_work_out;

typedef struct { int64_t row_id; dx_str token; } dx_work_key;
typedef struct { dx_str instance; int64_t execution_id; int64_t activity_id; } dx_activity_key;
typedef struct { int64_t event_id; dx_str type; dx_str text; } dx_event;
typedef struct { dx_str instance; dx_str item; int64_t visible_at; } dx_message; /* visible_at 0: now */

enum { DX_KV_SET = 0, DX_KV_CLEAR = 1, DX_KV_CLEAR_ALL = 2 };
typedef struct { int64_t op; dx_str key; dx_str value; int64_t at_ms; } dx_kv_change;

typedef struct { /* base.TurnDone: committed whole or not at all, only under a live lease */
    dx_str lease;
    dx_str instance;
    int64_t execution_id;
    const int64_t *consumed;    int64_t n_consumed;
    const dx_work_key *acks;    int64_t n_acks;
    const dx_event *events;     int64_t n_events;
    const dx_work_out *work;    int64_t n_work;       /* inserted before `cancelled` is deleted */
    const dx_activity_key *cancelled; int64_t n_cancelled;
    const dx_message *messages; int64_t n_messages;
    const dx_kv_change *kv;     int64_t n_kv;
    dx_str name;                /* n >= 0: first turn of this execution; version, parent and pinned count only then */
    dx_str version;
    dx_str parent;
    int64_t pinned[3];          /* {-1, -1, -1}: none */
    dx_str status;              /* n >= 0: the execution ends */
    dx_str output;
    dx_str custom_status;       /* counts if set_custom_status */
    int32_t set_custom_status;
    int32_t keep;               /* keep the lease */
} dx_turn_done;

typedef struct { dx_str lease; dx_str instance; int64_t delay_ms; int64_t refund; } dx_turn_back;
typedef struct { int64_t row_id; dx_str token; dx_str instance; dx_str item; } dx_work_done; /* item NULL: delete only */
typedef struct { int64_t row_id; dx_str token; int64_t delay_ms; int64_t refund; } dx_work_back;

typedef struct { /* base.Done */
    const dx_turn_done *turns;      int64_t n_turns;
    const dx_turn_back *turn_backs; int64_t n_turn_backs;
    const dx_work_done *work;       int64_t n_work;
    const dx_work_back *work_backs; int64_t n_work_backs;
    const dx_message *messages;     int64_t n_messages;
} dx_done;

enum { DX_TAGS_DEFAULT = 0, DX_TAGS_ONLY = 1, DX_TAGS_AND_DEFAULT = 2, DX_TAGS_ANY = 3, DX_TAGS_NONE = 4 };
enum { DX_VERSIONS_ALL = 0, DX_VERSIONS_RANGE = 1, DX_VERSIONS_NOTHING = 2 };

typedef struct { /* base.Appetite */
    dx_str owner;
    int64_t turns;
    int64_t work;
    int64_t lease_ms;
    int64_t work_lease_ms;
    const dx_str *tags;     int64_t n_tags;
    dx_str session_owner;
    int64_t session_lock_ms;
    int64_t session_room;
    const dx_str *sessions; int64_t n_sessions;
    int64_t versions[2];    /* inclusive, packed major * 1000000 + minor * 1000 + patch; with DX_VERSIONS_RANGE */
    int32_t version_mode;
    int32_t tag_mode;
    int32_t sweep;
    int32_t reserved;       /* 0 */
} dx_appetite;

typedef struct { /* base.Request: `done` of all requests first, then each appetite */
    int64_t now;
    const dx_done *done;         /* may be NULL */
    const dx_appetite *appetite; /* may be NULL */
} dx_request;

/* ── put out ─────────────────────────────────────────────────────────────────────────────────────────────── */

typedef struct { int64_t row_id; dx_str item; int64_t attempt; } dx_claimed_message;

typedef struct { /* base.ClaimedTurn; messages by row id */
    dx_str instance;
    dx_str lease;
    const dx_claimed_message *messages; int64_t n_messages;
    int64_t attempt;
    int64_t execution_id;
    int64_t last_event_id;
    dx_str name;
    dx_str version;
    dx_str status;
} dx_claimed_turn;

typedef struct { /* base.ClaimedWork */
    int64_t row_id;
    dx_str token;
    dx_str item;
    int64_t attempt;
    dx_str instance;
    dx_str session_id;
    dx_str tag;
    dx_str name;
    dx_str version;
} dx_claimed_work;

typedef struct { const int64_t *ids; int64_t n; } dx_ids;

typedef struct { /* base.Taken; the code arrays run parallel to those of dx_done, `held` to its turns */
    const int32_t *turn_codes;
    const int32_t *turn_back_codes;
    const int32_t *work_codes;
    const int32_t *work_back_codes;
    const dx_ids *held;
    const dx_claimed_turn *turns; int64_t n_turns;
    const dx_claimed_work *work;  int64_t n_work;
    int64_t next_visible_at; /* a hint, may be early; -1: nothing is waiting, or no appetite */
} dx_taken;

typedef struct { /* one dx_taken a request */
    const dx_taken *taken;
    int64_t n;
    void *memory;
} dx_exchanged;

typedef struct { dx_str key; dx_str value; int64_t at_ms; } dx_kv; /* value NULL in kv_delta: a tombstone */

typedef struct { /* base.Loaded; found 0: no such instance (release it all the same) */
    int64_t found;
    int64_t execution_id;
    dx_str name;
    dx_str version;
    dx_str status;
    dx_str output;
    dx_str parent;
    dx_str custom_status;
    int64_t custom_status_version;
    const dx_event *events; int64_t n_events; /* `type` is not filled in */
    const dx_kv *kv;        int64_t n_kv;
    const dx_kv *kv_delta;  int64_t n_kv_delta;
    void *memory;
} dx_loaded;

typedef struct { dx_str instance; dx_str token; } dx_lease_key;

typedef struct { /* base.Renewal */
    int64_t now;
    const dx_lease_key *leases; int64_t n_leases;
    int64_t lease_ms;       /* 0: only check */
    const dx_work_key *work; int64_t n_work;
    int64_t work_lease_ms;  /* 0: only check */
    dx_str session_owner;
    int64_t session_lock_ms;
    int64_t session_idle_ms;
} dx_renewal;

typedef struct { /* base.Renewed: indices into the renewal's lists, ascending */
    const int64_t *lost_leases; int64_t n_lost_leases;
    const int64_t *lost_work;   int64_t n_lost_work;
    int64_t sessions;
    void *memory;
} dx_renewed;

/* ── the store ───────────────────────────────────────────────────────────────────────────────────────────── */

typedef struct {
    uint32_t abi;  /* DX_ABI */
    uint32_t size; /* sizeof(dx_store_v1) */
    void *self;    /* handed to every function; kept alive by the capsule */
    int (*exchange)(void *self, const dx_request *requests, int64_t n, dx_exchanged *out, dx_error *error);
    /* execution_id 0: the current one; only events with an id above `after`. From DX_NO_EVENTS on: neither events nor, unless the
     * store finds it easier, the key-value entries. */
    int (*load)(void *self, dx_str instance, int64_t execution_id, int64_t after, dx_loaded *out, dx_error *error);
    int (*renew)(void *self, const dx_renewal *renewal, dx_renewed *out, dx_error *error);
    void (*release)(void *self, void *memory); /* of a result; NULL is fine */
    void (*close)(void *self);                 /* once or more; the capsule is freed later */
} dx_store_v1;

#ifdef __cplusplus
}
#endif
#endif
