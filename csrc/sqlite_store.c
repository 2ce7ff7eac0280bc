/* The verbs of duroxide_store.h over SQLite: each one transaction, under the connection's mutex from first to last statement. */
#include "sqlite_store.h"

#include <stdlib.h>
#include <string.h>

/* ── open and close ─────────────────────────────────────────────────────────────────────────────────────── */

dx_sqlite *dx_sqlite_open(sqlite3 *writer, sqlite3 *reader, const char *const *sql, dx_error *error)
{
    dx_sqlite *store = calloc(1, sizeof *store);
    if (store == NULL) {
        dx_describe(error, "open", 7, "out of memory");
        return NULL;
    }
    store->reader = reader ? &store->other : &store->writer;
    dx_forget_frontier(store);
    /* Random, so that an owner's tokens do not come again after a restart; small enough to be read. */
    dx_api.randomness(sizeof store->next_token, &store->next_token);
    store->next_token &= ((uint64_t)1 << 48) - 1;
    if (dx_open_connection(&store->writer, writer, sql, 0, error) == 0) {
        if (reader == NULL || dx_open_connection(&store->other, reader, sql, 1, error) == 0) return store;
        dx_close_connection(&store->writer);
    }
    free(store);
    return NULL;
}

static sqlite3_mutex *hold(dx_connection *c)
{
    sqlite3_mutex *mutex = c->db ? dx_api.db_mutex(c->db) : NULL;
    dx_api.mutex_enter(mutex);
    return mutex;
}

void dx_sqlite_close(void *self)
{
    dx_sqlite *store = self;
    if (store->closed) return;
    sqlite3_mutex *writer = hold(&store->writer);
    store->closed = 1;
    dx_close_connection(&store->writer);
    dx_api.mutex_leave(writer);
    sqlite3_mutex *reader = hold(&store->other);
    dx_close_connection(&store->other);
    dx_api.mutex_leave(reader);
    if (store->on_close) store->on_close(store->owner);
}

void dx_sqlite_free(dx_sqlite *store)
{
    if (store == NULL) return;
    dx_sqlite_close(store);
    free(store);
}

void dx_sqlite_release(void *self, void *memory)
{
    (void)self;
    dx_arena_free(memory);
}

static dx_tx start(dx_sqlite *store, dx_connection *on, const char *operation, dx_error *error)
{
    return (dx_tx){.store = store, .on = on, .error = error, .operation = operation};
}

/* What a failed verb leaves: nothing. */
static int finish(dx_tx *tx, sqlite3_mutex *mutex, void **memory)
{
    dx_api.mutex_leave(mutex);
    if (tx->failed) {
        dx_arena_free(tx->arena.last);
        return DX_ERROR;
    }
    *memory = tx->arena.last;
    return DX_OK;
}

/* ── exchange ───────────────────────────────────────────────────────────────────────────────────────────── */

static const dx_done nothing_done;

static const dx_done *done_of(const dx_request *request)
{
    return request->done ? request->done : &nothing_done;
}

typedef struct { int32_t *turns, *turn_backs, *work, *work_backs; dx_ids *held; } dx_codes;

static dx_codes make_room(dx_tx *tx, const dx_done *done, dx_taken *taken)
{
    dx_codes c = {
        dx_take(tx, (size_t)done->n_turns * sizeof(int32_t)),     dx_take(tx, (size_t)done->n_turn_backs * sizeof(int32_t)),
        dx_take(tx, (size_t)done->n_work * sizeof(int32_t)),      dx_take(tx, (size_t)done->n_work_backs * sizeof(int32_t)),
        dx_take(tx, (size_t)done->n_turns * sizeof(dx_ids)),
    };
    *taken = (dx_taken){
        .turn_codes = c.turns, .turn_back_codes = c.turn_backs, .work_codes = c.work, .work_back_codes = c.work_backs,
        .held = c.held, .next_visible_at = -1,
    };
    return c;
}

/* `refused`: one flag a turn of the whole group; `*turn` counts through them. 1: the constraints refuse the turn it stands at. */
static int apply(dx_tx *tx, const dx_request *request, dx_taken *taken, const char *refused, int64_t *turn)
{
    const dx_done *done = done_of(request);
    dx_codes c = make_room(tx, done, taken);
    for (int64_t i = 0; i < done->n_turns && !tx->failed; i++) {
        if (refused[*turn]) c.turns[i] = DX_REFUSED;
        else dx_commit_turn(tx, &done->turns[i], request, &c.turns[i], &c.held[i]);
        if (tx->failed) return tx->constraint;
        ++*turn;
    }
    for (int64_t i = 0; i < done->n_turn_backs && !tx->failed; i++)
        c.turn_backs[i] = dx_give_turn_back(tx, &done->turn_backs[i], request->now);
    for (int64_t i = 0; i < done->n_work && !tx->failed; i++) c.work[i] = dx_finish_work(tx, &done->work[i], request->now);
    for (int64_t i = 0; i < done->n_work_backs && !tx->failed; i++)
        c.work_backs[i] = dx_give_work_back(tx, &done->work_backs[i], request->now);
    for (int64_t i = 0; i < done->n_messages && !tx->failed; i++) dx_send(tx, &done->messages[i], request->now);
    return 0;
}

/* One attempt at the whole group; the index of the turn that the constraints refuse, or -1. */
static int64_t attempt(dx_tx *tx, const dx_request *requests, int64_t n, dx_taken *taken, const char *refused)
{
    int64_t turn = 0, culprit = -1;
    if (dx_begin(tx, DX_begin) < 0) return -1;
    for (int64_t i = 0; i < n && !tx->failed; i++)
        if (apply(tx, &requests[i], &taken[i], refused, &turn)) culprit = turn;
    for (int64_t i = 0; i < n && !tx->failed; i++) {
        if (requests[i].appetite == NULL) continue;
        dx_claim_turns(tx, &requests[i], &taken[i]);
        if (!tx->failed) dx_claim_work(tx, &requests[i], &taken[i]);
    }
    dx_end(tx);
    return culprit;
}

int dx_sqlite_exchange(void *self, const dx_request *requests, int64_t n, dx_exchanged *out, dx_error *error)
{
    dx_sqlite *store = self;
    dx_tx tx = start(store, &store->writer, "exchange", error);
    sqlite3_mutex *mutex = hold(&store->writer);
    int64_t turns = 0;
    for (int64_t i = 0; i < n; i++) turns += done_of(&requests[i])->n_turns;
    char *refused = dx_take(&tx, (size_t)turns);
    dx_taken *taken = dx_take(&tx, (size_t)n * sizeof *taken);
    while (!tx.failed) {
        /* The group runs again without the turn that was refused: rare, and a savepoint for each turn would cost all of them. */
        int64_t culprit = attempt(&tx, requests, n, taken, refused);
        if (culprit < 0) break;
        refused[culprit] = 1;
        tx.failed = tx.constraint = 0;
    }
    *out = (dx_exchanged){taken, n, NULL};
    return finish(&tx, mutex, &out->memory);
}

/* ── load ───────────────────────────────────────────────────────────────────────────────────────────────── */

static void load_instance(dx_tx *tx, dx_str instance, int64_t execution_id, dx_loaded *out)
{
    dx_query q = dx_use(tx, DX_load_instance);
    dx_put_text(&q, instance);
    dx_put_int(&q, execution_id);
    if ((out->found = dx_row(&q)) != 0) {
        out->execution_id = dx_int(&q, 0);
        out->name = dx_keep(&q, 1);
        out->version = dx_keep(&q, 2);
        out->parent = dx_keep(&q, 3);
        out->custom_status = dx_keep(&q, 4);
        out->custom_status_version = dx_int(&q, 5);
        out->status = dx_keep(&q, 6);
        out->output = dx_keep(&q, 7);
    }
    dx_finish(&q);
}

static void load_events(dx_tx *tx, dx_str instance, int64_t after, dx_loaded *out)
{
    dx_event *events = NULL;
    int64_t n = 0;
    dx_query q = dx_use(tx, DX_load_events);
    dx_put_text(&q, instance);
    dx_put_int(&q, out->execution_id);
    dx_put_int(&q, after);
    for (; dx_row(&q) && (events = dx_grow(tx, events, n, sizeof *events)) != NULL; n++)
        events[n] = (dx_event){dx_int(&q, 0), {NULL, -1}, dx_keep(&q, 1)};
    dx_finish(&q);
    out->events = events;
    out->n_events = n;
}

static dx_kv *load_kv(dx_tx *tx, dx_statement which, dx_str instance, int64_t *n)
{
    dx_kv *kv = NULL;
    dx_query q = dx_use(tx, which);
    dx_put_text(&q, instance);
    for (*n = 0; dx_row(&q) && (kv = dx_grow(tx, kv, *n, sizeof *kv)) != NULL; ++*n)
        kv[*n] = (dx_kv){dx_keep(&q, 0), dx_keep(&q, 1), dx_int(&q, 2)};
    dx_finish(&q);
    return kv;
}

int dx_sqlite_load(void *self, dx_str instance, int64_t execution_id, int64_t after, dx_loaded *out, dx_error *error)
{
    dx_sqlite *store = self;
    dx_tx tx = start(store, store->reader, "load", error);
    sqlite3_mutex *mutex = hold(store->reader);
    *out = (dx_loaded){.found = 0};
    if (after >= DX_NO_EVENTS) { /* one statement is a transaction by itself */
        load_instance(&tx, instance, execution_id, out);
    } else if (dx_begin(&tx, DX_begin_read) == 0) {
        load_instance(&tx, instance, execution_id, out);
        if (out->found && !tx.failed) {
            load_events(&tx, instance, after, out);
            out->kv = load_kv(&tx, DX_load_kv, instance, &out->n_kv);
            out->kv_delta = load_kv(&tx, DX_load_kv_delta, instance, &out->n_kv_delta);
        }
        dx_end(&tx);
    }
    return finish(&tx, mutex, &out->memory);
}

/* ── renew ──────────────────────────────────────────────────────────────────────────────────────────────── */

static int renew_lease(dx_tx *tx, const dx_renewal *r, const dx_lease_key *key)
{
    if (r->lease_ms <= 0) return dx_lease_live(tx, key->instance, key->token, r->now);
    dx_query q = dx_use(tx, DX_lease_renew);
    dx_put_int(&q, r->now + r->lease_ms);
    dx_put_text(&q, key->instance);
    dx_put_text(&q, key->token);
    dx_put_int(&q, r->now);
    return dx_run(&q) > 0;
}

static int renew_work(dx_tx *tx, const dx_renewal *r, const dx_work_key *key)
{
    dx_str session;
    if (!dx_work_live(tx, key->row_id, key->token, r->now, &session)) return 0;
    if (r->work_lease_ms <= 0) return 1;
    dx_query q = dx_use(tx, DX_work_renew);
    dx_put_int(&q, r->now + r->work_lease_ms);
    dx_put_int(&q, key->row_id);
    dx_put_text(&q, key->token);
    dx_put_int(&q, r->now);
    dx_run(&q);
    dx_touch_session(tx, session, r->now);
    return 1;
}

static int64_t renew_sessions(dx_tx *tx, const dx_renewal *r)
{
    if (r->session_owner.n < 0 || r->session_lock_ms <= 0) return 0;
    dx_query q = dx_use(tx, DX_session_renew);
    dx_put_int(&q, r->now + r->session_lock_ms);
    dx_put_text(&q, r->session_owner);
    dx_put_int(&q, r->now);
    dx_put_int(&q, r->now - r->session_idle_ms);
    return dx_run(&q);
}

int dx_sqlite_renew(void *self, const dx_renewal *r, dx_renewed *out, dx_error *error)
{
    dx_sqlite *store = self;
    /* Looking whether leases still stand must not wait for a writer: workers ask often, to learn of cancellation. */
    int writes = (r->n_leases && r->lease_ms > 0) || (r->n_work && r->work_lease_ms > 0) || r->session_owner.n >= 0;
    dx_connection *on = writes ? &store->writer : store->reader;
    dx_tx tx = start(store, on, "renew", error);
    sqlite3_mutex *mutex = hold(on);
    int64_t *leases = dx_take(&tx, (size_t)r->n_leases * sizeof *leases), *work = dx_take(&tx, (size_t)r->n_work * sizeof *work);
    *out = (dx_renewed){.lost_leases = leases, .lost_work = work};
    if (!tx.failed && dx_begin(&tx, writes ? DX_begin : DX_begin_read) == 0) {
        for (int64_t i = 0; i < r->n_leases && !tx.failed; i++)
            if (!renew_lease(&tx, r, &r->leases[i])) leases[out->n_lost_leases++] = i;
        for (int64_t i = 0; i < r->n_work && !tx.failed; i++)
            if (!renew_work(&tx, r, &r->work[i])) work[out->n_lost_work++] = i;
        out->sessions = renew_sessions(&tx, r);
        dx_end(&tx);
    }
    return finish(&tx, mutex, &out->memory);
}
