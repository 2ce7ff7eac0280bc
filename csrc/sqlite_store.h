/* What the files of the SQLite store share: the store, its statements, one result's memory, one transaction.
 *
 * sqlite_statements.c owns memory, statements and errors; sqlite_turn.c writes what is handed in; sqlite_queue.c claims turns and
 * sqlite_work.c claims work items; sqlite_store.c puts them together as the verbs of duroxide_store.h.
 */
#ifndef DUROXIDE_SQLITE_STORE_H
#define DUROXIDE_SQLITE_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "duroxide_arena.h"
#include "duroxide_store.h"
#include "sqlite_abi.h"

/* Filled once, by the entry point that SQLite calls when it loads the module. */
extern dx_sqlite_api dx_api;

/* ── statements: names of duroxide.storage.sqlite_sql.HOT; W on the writing connection only, R on both ── */
#define DX_STATEMENTS(W, R) \
    W(begin) R(begin_read) R(commit) R(rollback) W(stamp) \
    R(lease_get) W(lease_put) W(lease_drop) W(lease_end) W(lease_renew) W(lease_expired) W(lease_next) \
    W(message_put) W(message_drop) W(message_carries) W(message_free) W(message_unroute) W(message_back) \
    W(message_ready) W(message_next) W(message_routed) W(message_route) W(message_batch) W(message_tag) W(message_untag) \
    W(message_adopt) W(message_later) W(message_delete) W(message_defer) W(message_parked) W(message_unpark) \
    W(turn_get) W(instance_put) W(execution_put) W(execution_end) W(event_put) W(custom_status_put) \
    W(kv_put) W(kv_clear_delta) W(kv_clear_store) W(kv_any) W(kv_merge_put) W(kv_merge_drop) W(kv_merge_end) \
    W(work_put) R(work_get) W(work_drop) W(work_end) W(work_cancel) W(work_back) W(work_renew) W(work_expire) W(work_ready) W(work_next) \
    W(work_tag) W(work_session) W(work_of_session) W(work_row) W(work_lock) W(work_lease_next) \
    W(session_get) W(session_put) W(session_touch) W(session_renew) \
    R(load_instance) R(load_events) R(load_kv) R(load_kv_delta)

#define X(name) DX_##name,
typedef enum { DX_STATEMENTS(X, X) DX_STATEMENT_COUNT } dx_statement;
#undef X
extern const char *const dx_statement_names[DX_STATEMENT_COUNT];

typedef struct {
    sqlite3 *db;
    int64_t waited_us; /* of the BEGIN that is being tried: the busy handler adds to it */
    sqlite3_stmt *statements[DX_STATEMENT_COUNT];
} dx_connection;

/* Up to here every ready row has been seen lately and passed over: pinned to versions that were not asked for, or leased by
 * the reference. Saves walking over them at every look; forgotten after a second and by anything that may make one fit. */
typedef struct {
    int64_t visible_at, row_id;
    int64_t since; /* when the queue was last walked from its start */
    int64_t passed;
    int64_t versions[2];
    int32_t version_mode;
} dx_frontier;

typedef struct {
    dx_connection writer;
    dx_connection *reader; /* == &writer where there is only one connection */
    dx_connection other;
    dx_frontier frontier;
    uint64_t next_token;
    int closed;
    void (*on_close)(void *owner); /* closes the connections, once no statement is left */
    void *owner;
} dx_sqlite;

/* ── one transaction: the first failure sticks, later calls do nothing ── */
typedef struct {
    dx_sqlite *store;
    dx_connection *on;
    dx_arena arena;
    dx_error *error;
    const char *operation;
    dx_str stamp; /* see dx_put_stamp */
    int failed;
    int constraint; /* the failure was a violated constraint */
} dx_tx;

int dx_describe(dx_error *error, const char *operation, int code, const char *text); /* always -1 */
int dx_fail(dx_tx *tx, int code, const char *text); /* always -1 */
void *dx_take(dx_tx *tx, size_t bytes);              /* of the arena; NULL and failed when out of memory */
void *dx_grow(dx_tx *tx, void *list, int64_t n, size_t size); /* room for entry n; the list may move, its entries' texts do not */
dx_str dx_copy(dx_tx *tx, dx_str text);
dx_str dx_new_token(dx_tx *tx, dx_str owner);
int dx_owns(dx_str owner, dx_str token); /* is `token` one of `owner`'s? */
int dx_same(dx_str a, dx_str b);
int dx_compare(dx_str a, dx_str b); /* bytewise, as SQLite's BINARY */

int dx_begin(dx_tx *tx, dx_statement how);
int dx_end(dx_tx *tx); /* commits, or rolls back what failed; 0 or -1 */

/* ── one use of a statement: put parameters in order, step through rows, finish ── */
typedef struct { dx_tx *tx; sqlite3_stmt *statement; int at; } dx_query;
dx_query dx_use(dx_tx *tx, dx_statement which);
void dx_put_int(dx_query *q, int64_t value);
void dx_put_text(dx_query *q, dx_str text);
void dx_put_null(dx_query *q);
void dx_put_stamp(dx_query *q); /* when the row is made: one look at the clock a transaction */
int dx_row(dx_query *q);    /* 1: a row, 0: no more, or failed */
void dx_finish(dx_query *q);
int64_t dx_run(dx_query *q); /* step once and finish: how many rows were changed, -1 on failure */
int64_t dx_int(dx_query *q, int column);
int dx_is_null(dx_query *q, int column);
dx_str dx_text(dx_query *q, int column); /* SQLite's memory: valid until the next step */
dx_str dx_keep(dx_query *q, int column); /* copied */
int dx_any(dx_query *q); /* step once and finish: is there a row? */

int dx_open_connection(dx_connection *c, sqlite3 *db, const char *const *sql, int reads_only, dx_error *error);
void dx_close_connection(dx_connection *c);

/* ── stages of an exchange ── */
int dx_lease_live(dx_tx *tx, dx_str instance, dx_str token, int64_t now);
int dx_work_live(dx_tx *tx, int64_t row_id, dx_str token, int64_t now, dx_str *session);
void dx_touch_session(dx_tx *tx, dx_str session, int64_t now);
void dx_send(dx_tx *tx, const dx_message *message, int64_t now);
void dx_forget_frontier(dx_sqlite *store);

void dx_commit_turn(dx_tx *tx, const dx_turn_done *turn, const dx_request *request, int32_t *code, dx_ids *held);
int32_t dx_give_turn_back(dx_tx *tx, const dx_turn_back *back, int64_t now);
int32_t dx_finish_work(dx_tx *tx, const dx_work_done *work, int64_t now);
int32_t dx_give_work_back(dx_tx *tx, const dx_work_back *back, int64_t now);

void dx_claim_turns(dx_tx *tx, const dx_request *request, dx_taken *out);
void dx_claim_work(dx_tx *tx, const dx_request *request, dx_taken *out);
void dx_come_due(dx_taken *out, int64_t at); /* lowers next_visible_at */

/* ── the store ── */
/* `reader` NULL: one connection for everything. `sql` in the order of dx_statement_names. */
dx_sqlite *dx_sqlite_open(sqlite3 *writer, sqlite3 *reader, const char *const *sql, dx_error *error);
void dx_sqlite_close(void *self); /* finalizes, then calls on_close; later calls fail cleanly */
void dx_sqlite_free(dx_sqlite *store);
int dx_sqlite_exchange(void *self, const dx_request *requests, int64_t n, dx_exchanged *out, dx_error *error);
int dx_sqlite_load(void *self, dx_str instance, int64_t execution_id, int64_t after, dx_loaded *out, dx_error *error);
int dx_sqlite_renew(void *self, const dx_renewal *renewal, dx_renewed *out, dx_error *error);
int64_t dx_sqlite_version(dx_sqlite *store, dx_error *error); /* moves when others have committed; -1: failed. Not beside a close */
void dx_sqlite_release(void *self, void *memory);

#endif
