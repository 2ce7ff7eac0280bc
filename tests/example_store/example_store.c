/* The verbs: one mutex around each, results in an arena that `release` frees. */
#include <stdlib.h>

#include "example_store.h"

static int exchange(void *self, const dx_request *requests, int64_t n, dx_exchanged *result, dx_error *error) {
    store *s = self;
    arena *memory = calloc(1, sizeof *memory);
    if (memory == NULL) abort();
    (void)error;
    dx_taken *taken = out(memory, (size_t)n * sizeof *taken);
    pthread_mutex_lock(&s->mutex);
    for (int64_t i = 0; i < n; i++) {
        taken[i].next_visible_at = -1;
        const dx_appetite *appetite = requests[i].appetite;
        if (requests[i].done) apply(s, requests[i].done, requests[i].now, appetite ? appetite->work_lease_ms : 30000, &taken[i], memory);
    }
    for (int64_t i = 0; i < n; i++)
        if (requests[i].appetite) claim(s, requests[i].appetite, requests[i].now, &taken[i], memory);
    pthread_mutex_unlock(&s->mutex);
    *result = (dx_exchanged){taken, n, memory};
    return DX_OK;
}

static dx_kv *out_kv(arena *memory, const kv_row *rows, int64_t n) {
    dx_kv *found = out(memory, (size_t)n * sizeof *found);
    for (int64_t i = 0; i < n; i++) found[i] = (dx_kv){out_text(memory, rows[i].key), out_text(memory, rows[i].value), rows[i].at_ms};
    return found;
}

static void put_out(instance_row *row, int64_t number, int64_t after, dx_loaded *l, arena *memory) {
    execution_row *execution = execution_of(row, number);
    l->found = 1, l->execution_id = number;
    l->name = out_text(memory, row->name), l->version = out_text(memory, row->version), l->parent = out_text(memory, row->parent);
    l->custom_status = out_text(memory, row->custom_status), l->custom_status_version = row->custom_status_version;
    l->status = execution ? out_text(memory, execution->status) : out_text(memory, (dx_str){"Running", 7});
    l->output = execution ? out_text(memory, execution->output) : NOTHING;
    l->kv = out_kv(memory, row->kv.rows, row->kv.n), l->n_kv = row->kv.n;
    l->kv_delta = out_kv(memory, row->kv_delta.rows, row->kv_delta.n), l->n_kv_delta = row->kv_delta.n;
    dx_event *events = out(memory, execution ? (size_t)execution->events.n * sizeof *events : 0);
    for (int64_t i = 0; execution && i < execution->events.n; i++) { /* appended in the order of their ids */
        const event_row *event = &execution->events.rows[i];
        if (event->id > after) events[l->n_events++] = (dx_event){event->id, NOTHING, out_text(memory, event->text)};
    }
    l->events = events;
}

static int load(void *self, dx_str instance, int64_t execution_id, int64_t after, dx_loaded *result, dx_error *error) {
    store *s = self;
    arena *memory = calloc(1, sizeof *memory);
    if (memory == NULL) abort();
    (void)error;
    *result = (dx_loaded){.memory = memory};
    pthread_mutex_lock(&s->mutex);
    instance_row *row = instance_of(s, instance);
    if (row) put_out(row, execution_id ? execution_id : row->current, after, result, memory);
    pthread_mutex_unlock(&s->mutex);
    return DX_OK;
}

static int renew(void *self, const dx_renewal *r, dx_renewed *result, dx_error *error) {
    store *s = self;
    arena *memory = calloc(1, sizeof *memory);
    if (memory == NULL) abort();
    (void)error;
    int64_t *lost_leases = out(memory, (size_t)r->n_leases * sizeof *lost_leases), *lost_work = out(memory, (size_t)r->n_work * sizeof *lost_work);
    *result = (dx_renewed){.lost_leases = lost_leases, .lost_work = lost_work, .memory = memory};
    pthread_mutex_lock(&s->mutex);
    for (int64_t i = 0; i < r->n_leases; i++) {
        lease_row *lease = lease_of(s, r->leases[i].instance);
        if (!lease || !same(lease->token, r->leases[i].token) || lease->until <= r->now) lost_leases[result->n_lost_leases++] = i;
        else if (r->lease_ms > 0) lease->until = r->now + r->lease_ms;
    }
    for (int64_t i = 0; i < r->n_work; i++) {
        work_row *row = live_work(s, r->work[i].row_id, r->work[i].token, r->now);
        if (!row) lost_work[result->n_lost_work++] = i;
        else if (r->work_lease_ms > 0) row->until = r->now + r->work_lease_ms, touch_session(s, row->session, r->now);
    }
    for (int64_t i = 0; r->session_owner.n >= 0 && r->session_lock_ms > 0 && i < s->sessions.n; i++) {
        session_row *row = &s->sessions.rows[i];
        if (!same(row->owner, r->session_owner) || row->until <= r->now || row->active < r->now - r->session_idle_ms) continue;
        row->until = r->now + r->session_lock_ms;
        result->sessions++;
    }
    pthread_mutex_unlock(&s->mutex);
    return DX_OK;
}

static void release(void *self, void *result) {
    (void)self;
    arena *memory = result;
    while (memory && memory->last) {
        block *b = memory->last;
        memory->last = b->next;
        free(b);
    }
    free(memory);
}

static void closed(void *self) {
    (void)self; /* nothing outlives the capsule */
}

store *make_store(void) {
    store *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    pthread_mutex_init(&s->mutex, NULL);
    s->api = (dx_store_v1){DX_ABI, sizeof(dx_store_v1), s, exchange, load, renew, release, closed};
    return s;
}

void free_store(store *s) {
    free_tables(s);
    pthread_mutex_destroy(&s->mutex);
    free(s);
}
