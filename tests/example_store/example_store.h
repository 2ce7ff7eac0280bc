/* An example of a store behind duroxide_store.h: tables in memory, every rule in its plainest form, every look at every row.
 *
 * tables.c has the tables and their memory, done.c applies what is handed in, claims.c gives what is asked for, example_store.c is
 * the verbs. When memory runs out the process ends: an example has nothing to fall back on. */
#ifndef EXAMPLE_STORE_H
#define EXAMPLE_STORE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "duroxide_store.h"

/* A table is an array that grows; rows are removed by moving the later ones down, so their order stays. */
#define TABLE(row) struct { row *rows; int64_t n, room; }
#define ADD(table) (grow((void **)&(table).rows, &(table).room, (table).n, sizeof *(table).rows), &(table).rows[(table).n++])
#define REMOVE(table, i) remove_row((table).rows, &(table).n, (i), sizeof *(table).rows)

typedef struct { int64_t id; dx_str text; } event_row;
typedef struct { dx_str key, value; int64_t at_ms; } kv_row;

typedef struct {
    int64_t id;
    int64_t pin; /* packed version, -1: none */
    dx_str status, output;
    TABLE(event_row) events;
} execution_row;

typedef struct {
    dx_str id, name, version, parent, custom_status;
    int64_t current, custom_status_version;
    TABLE(execution_row) executions;
    TABLE(kv_row) kv, kv_delta;
} instance_row;

typedef struct { int64_t id, visible_at, attempts; dx_str instance, item, token; } message_row;

typedef struct {
    int64_t id, visible_at, until, attempts, execution_id, activity_id;
    dx_str instance, item, session, tag, token;
} work_row;

typedef struct { dx_str instance, token; int64_t until; } lease_row;
typedef struct { dx_str id, owner; int64_t until, active; } session_row;

typedef struct {
    dx_store_v1 api; /* what the capsule holds; api.self is this store */
    pthread_mutex_t mutex;
    TABLE(instance_row) instances;
    TABLE(message_row) messages;
    TABLE(work_row) work;
    TABLE(lease_row) leases;
    TABLE(session_row) sessions;
    int64_t last_message, last_work, last_token;
} store;

/* The memory of one result. */
typedef struct block { struct block *next; } block;
typedef struct { block *last; } arena;
void *out(arena *memory, size_t bytes); /* zeroed */
dx_str out_text(arena *memory, dx_str text);

/* tables.c */
void grow(void **rows, int64_t *room, int64_t n, size_t size);
void remove_row(void *rows, int64_t *n, int64_t i, size_t size);
dx_str keep(dx_str text); /* a copy of its own */
void drop(dx_str *text);  /* frees a kept text and makes it NULL */
void put(dx_str *field, dx_str text); /* replaces a kept text */
bool same(dx_str a, dx_str b);
bool begins(dx_str text, const char *with, dx_str then);
instance_row *instance_of(store *s, dx_str id);
execution_row *execution_of(instance_row *instance, int64_t id);
lease_row *lease_of(store *s, dx_str instance);
work_row *live_work(store *s, int64_t row_id, dx_str token, int64_t now);
session_row *session_of(store *s, dx_str id);
void remove_message(store *s, int64_t i);
void remove_work(store *s, int64_t i);
void end_lease(store *s, dx_str instance, dx_str token);
void touch_session(store *s, dx_str session, int64_t now);
void free_tables(store *s);

/* done.c, claims.c */
void apply(store *s, const dx_done *done, int64_t now, int64_t work_lease_ms, dx_taken *taken, arena *memory);
void claim(store *s, const dx_appetite *appetite, int64_t now, dx_taken *taken, arena *memory);

store *make_store(void);
void free_store(store *s);

static const dx_str NOTHING = {NULL, -1};

#endif
