/* Memory, statements and errors of the SQLite store: everything that knows how SQLite is called, nothing of turns or work. */
#if !defined(_WIN32)
#define _POSIX_C_SOURCE 200809L
#endif
#include "sqlite_store.h"

#include <stdio.h>
#include <string.h>
#ifdef _WIN32
#include <windows.h>
#else
#include <time.h>
#endif

#ifdef _WIN32
#define DX_EXPORT __declspec(dllexport)
#else
#define DX_EXPORT __attribute__((visibility("default")))
#endif
DX_EXPORT int sqlite3_duroxide_init(sqlite3 *db, char **message, void (*const *routines)(void));

dx_sqlite_api dx_api;

#define X(name) #name,
const char *const dx_statement_names[DX_STATEMENT_COUNT] = {DX_STATEMENTS(X, X)};
#undef X

#define W(name) 0,
#define R(name) 1,
static const char on_reader[DX_STATEMENT_COUNT] = {DX_STATEMENTS(W, R)};
#undef W
#undef R

static int bind_routines(void (*const *routines)(void))
{
    dx_sqlite_api api;
#define X(place, result, name, parameters) api.name = (result (*) parameters) routines[place];
    DX_SQLITE_ROUTINES(X)
#undef X
    int version = api.libversion_number();
    if (version < DX_SQLITE_MIN || version >= DX_SQLITE_BELOW) return -1;
    if (dx_api.step != NULL && dx_api.step != api.step) return -1; /* a second SQLite in this process: never mix them */
    dx_api = api;
    return 0;
}

/* What SQLite calls when APSW loads this extension module as a loadable extension. */
DX_EXPORT int sqlite3_duroxide_init(sqlite3 *db, char **message, void (*const *routines)(void))
{
    (void)db, (void)message;
    return bind_routines(routines) == 0 ? SQLITE_OK : 1;
}

/* ── memory ─────────────────────────────────────────────────────────────────────────────────────────────── */

void *dx_take(dx_tx *tx, size_t bytes)
{
    void *p = dx_alloc_zeroed(&tx->arena, bytes);
    if (p == NULL) dx_fail(tx, 7, "out of memory");
    return p;
}

/* Doubles at each power of two. */
void *dx_grow(dx_tx *tx, void *list, int64_t n, size_t size)
{
    if (n != 0 && (n < 4 || (n & (n - 1)) != 0)) return list;
    void *wider = dx_take(tx, (size_t)(n < 4 ? 4 : n * 2) * size);
    if (wider != NULL && n != 0) memcpy(wider, list, (size_t)n * size);
    return wider;
}

dx_str dx_copy(dx_tx *tx, dx_str text)
{
    if (text.n < 0) return text;
    char *p = dx_alloc(&tx->arena, (size_t)text.n + 1);
    if (p == NULL) {
        dx_fail(tx, 7, "out of memory");
        return (dx_str){"", 0};
    }
    if (text.n) memcpy(p, text.p, (size_t)text.n);
    p[text.n] = 0; /* with n + 1: the next text in order */
    return (dx_str){p, text.n};
}

int dx_same(dx_str a, dx_str b)
{
    return a.n == b.n && (a.n <= 0 || memcmp(a.p, b.p, (size_t)a.n) == 0);
}

int dx_compare(dx_str a, dx_str b)
{
    int64_t common = a.n < b.n ? a.n : b.n;
    int order = common > 0 ? memcmp(a.p, b.p, (size_t)common) : 0;
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

dx_str dx_new_token(dx_tx *tx, dx_str owner)
{
    char *p = dx_take(tx, (size_t)owner.n + 32);
    if (p == NULL) return (dx_str){"", 0};
    memcpy(p, "lock_", 5);
    memcpy(p + 5, owner.p, (size_t)owner.n);
    int digits = snprintf(p + 5 + owner.n, 27, ":%llu", (unsigned long long)++tx->store->next_token);
    return (dx_str){p, 5 + owner.n + digits};
}

int dx_owns(dx_str owner, dx_str token)
{
    int64_t at = 5 + owner.n; /* of the colon; only digits follow, or "a" would own the leases of "a:1" */
    if (token.n < at + 2 || memcmp(token.p, "lock_", 5) != 0 || memcmp(token.p + 5, owner.p, (size_t)owner.n) != 0) return 0;
    if (token.p[at] != ':') return 0;
    while (++at < token.n)
        if (token.p[at] < '0' || token.p[at] > '9') return 0;
    return 1;
}

/* ── errors ─────────────────────────────────────────────────────────────────────────────────────────────── */

static int may_help_to_retry(int code)
{
    switch (code & 0xff) {
    case 5: case 6: case 7: case 9: case 10: case 13: case 15: return 1; /* busy locked nomem interrupt ioerr full protocol */
    default: return 0;
    }
}

int dx_describe(dx_error *error, const char *operation, int code, const char *text)
{
    memset(error, 0, sizeof *error);
    error->code = code;
    error->retryable = may_help_to_retry(code);
    snprintf(error->operation, sizeof error->operation, "%s", operation);
    snprintf(error->message, sizeof error->message, "%s failed: %s (SQLite code %d)", operation, text, code);
    return -1;
}

int dx_fail(dx_tx *tx, int code, const char *text)
{
    if (tx->failed) return -1;
    tx->failed = 1;
    tx->constraint = (code & 0xff) == SQLITE_CONSTRAINT;
    return dx_describe(tx->error, tx->operation, code, text);
}

static int fail_from_sqlite(dx_tx *tx)
{
    return dx_fail(tx, dx_api.extended_errcode(tx->on->db), dx_api.errmsg(tx->on->db));
}

/* ── statements ─────────────────────────────────────────────────────────────────────────────────────────── */

dx_query dx_use(dx_tx *tx, dx_statement which)
{
    return (dx_query){tx, tx->on->statements[which], 0};
}

static void check(dx_query *q, int rc)
{
    if (rc != SQLITE_OK) fail_from_sqlite(q->tx);
}

void dx_put_int(dx_query *q, int64_t value)
{
    check(q, dx_api.bind_int64(q->statement, ++q->at, value));
}

void dx_put_null(dx_query *q)
{
    check(q, dx_api.bind_null(q->statement, ++q->at));
}

/* The text is not copied: it must outlive the step, as everything handed in does. */
void dx_put_text(dx_query *q, dx_str text)
{
    if (text.n < 0) dx_put_null(q);
    else check(q, dx_api.bind_text64(q->statement, ++q->at, text.p ? text.p : "", (uint64_t)text.n, SQLITE_STATIC, SQLITE_UTF8));
}

void dx_put_stamp(dx_query *q)
{
    if (q->tx->stamp.p == NULL) {
        dx_query now = dx_use(q->tx, DX_stamp);
        if (dx_row(&now)) q->tx->stamp = dx_keep(&now, 0);
        dx_finish(&now);
    }
    dx_put_text(q, q->tx->stamp);
}

int dx_row(dx_query *q)
{
    if (q->tx->failed) return 0;
    int rc = dx_api.step(q->statement);
    if (rc == SQLITE_ROW) return 1;
    if (rc != SQLITE_DONE) fail_from_sqlite(q->tx);
    return 0;
}

void dx_finish(dx_query *q)
{
    dx_api.reset(q->statement);
}

int dx_any(dx_query *q)
{
    int any = dx_row(q);
    dx_finish(q);
    return any;
}

int64_t dx_run(dx_query *q)
{
    dx_row(q);
    int64_t changed = q->tx->failed ? -1 : dx_api.changes(q->tx->on->db);
    dx_finish(q);
    return changed;
}

int64_t dx_int(dx_query *q, int column) { return dx_api.column_int64(q->statement, column); }
int dx_is_null(dx_query *q, int column) { return dx_api.column_type(q->statement, column) == SQLITE_NULL; }

dx_str dx_text(dx_query *q, int column)
{
    const char *p = (const char *)dx_api.column_text(q->statement, column);
    if (p == NULL) {
        if (!dx_is_null(q, column)) dx_fail(q->tx, 7, "out of memory");
        return (dx_str){NULL, -1};
    }
    return (dx_str){p, dx_api.column_bytes(q->statement, column)};
}

dx_str dx_keep(dx_query *q, int column) { return dx_copy(q->tx, dx_text(q, column)); }

/* ── transactions ───────────────────────────────────────────────────────────────────────────────────────── */

enum { LONGEST_WAIT_US = 60 * 1000 * 1000 };

static void sleep_us(int64_t us)
{
#ifdef _WIN32
    Sleep((DWORD)((us + 999) / 1000));
#else
    struct timespec t = {us / 1000000, (us % 1000000) * 1000};
    nanosleep(&t, NULL);
#endif
}

/* Another process writes: a group of its takes well under a millisecond, so look again soon, then ever more rarely. */
static int wait_for_writer(void *connection, int times)
{
    dx_connection *c = connection;
    int64_t us = times < 10 ? 100 : times < 100 ? 500 : 5000;
    if (times == 0) c->waited_us = 0;
    if (c->waited_us >= LONGEST_WAIT_US) return 0;
    sleep_us(us);
    c->waited_us += us;
    return 1;
}

int dx_begin(dx_tx *tx, dx_statement how)
{
    if (tx->store->closed) return dx_fail(tx, SQLITE_MISUSE, "the store is closed");
    if (!dx_api.get_autocommit(tx->on->db))
        return dx_fail(tx, SQLITE_MISUSE, "the connection is inside somebody else's transaction");
    dx_query q = dx_use(tx, how);
    return dx_run(&q) < 0 ? -1 : 0;
}

int dx_end(dx_tx *tx)
{
    if (!tx->failed) {
        dx_query q = dx_use(tx, DX_commit);
        if (dx_run(&q) >= 0) return 0;
    }
    if (!tx->store->closed && !dx_api.get_autocommit(tx->on->db)) {
        sqlite3_stmt *rollback = tx->on->statements[DX_rollback];
        dx_api.step(rollback);
        dx_api.reset(rollback);
    }
    if (tx->on == &tx->store->writer) dx_forget_frontier(tx->store); /* it may have moved over what was rolled back */
    return -1;
}

/* ── connections ────────────────────────────────────────────────────────────────────────────────────────── */

int dx_open_connection(dx_connection *c, sqlite3 *db, const char *const *sql, int reads_only, dx_error *error)
{
    c->db = db;
    dx_api.busy_handler(db, wait_for_writer, c);
    for (int i = 0; i < DX_STATEMENT_COUNT; i++) {
        if (reads_only && !on_reader[i]) continue;
        if (dx_api.prepare_v3(db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &c->statements[i], NULL) != SQLITE_OK) {
            char what[96];
            snprintf(what, sizeof what, "prepare %s", dx_statement_names[i]);
            dx_describe(error, what, dx_api.extended_errcode(db), dx_api.errmsg(db));
            dx_close_connection(c);
            return -1;
        }
    }
    return 0;
}

void dx_close_connection(dx_connection *c)
{
    if (c->db == NULL) return;
    for (int i = 0; i < DX_STATEMENT_COUNT; i++) {
        dx_api.finalize(c->statements[i]);
        c->statements[i] = NULL;
    }
    dx_api.busy_handler(c->db, NULL, NULL);
    c->db = NULL;
}
