/* What callers hand in: finished turns and work, what is given back, messages. An item is checked before its first write. */
#include "sqlite_store.h"

void dx_forget_frontier(dx_sqlite *store)
{
    store->frontier.visible_at = INT64_MIN;
    store->frontier.row_id = INT64_MIN;
    store->frontier.passed = 0;
}

int dx_lease_live(dx_tx *tx, dx_str instance, dx_str token, int64_t now)
{
    dx_query q = dx_use(tx, DX_lease_get);
    dx_put_text(&q, instance);
    int live = dx_row(&q) && dx_same(dx_text(&q, 0), token) && dx_int(&q, 1) > now;
    dx_finish(&q);
    return live;
}

/* Is the work row still held by `token`? `session` is copied: the row is about to go. */
int dx_work_live(dx_tx *tx, int64_t row_id, dx_str token, int64_t now, dx_str *session)
{
    dx_query q = dx_use(tx, DX_work_get);
    dx_put_int(&q, row_id);
    int live = dx_row(&q) && dx_same(dx_text(&q, 0), token) && dx_int(&q, 1) > now;
    *session = live ? dx_keep(&q, 2) : (dx_str){NULL, -1};
    dx_finish(&q);
    return live;
}

void dx_touch_session(dx_tx *tx, dx_str session, int64_t now)
{
    if (session.n < 0) return;
    dx_query q = dx_use(tx, DX_session_touch);
    dx_put_int(&q, now);
    dx_put_text(&q, session);
    dx_run(&q);
}

static void drop_work(dx_tx *tx, int64_t row_id, dx_str session, int64_t now)
{
    dx_query q = dx_use(tx, DX_work_drop);
    dx_put_int(&q, row_id);
    dx_run(&q);
    dx_touch_session(tx, session, now);
}

void dx_send(dx_tx *tx, const dx_message *m, int64_t now)
{
    int64_t visible_at = m->visible_at ? m->visible_at : now;
    dx_query q = dx_use(tx, DX_message_put);
    dx_put_text(&q, m->instance);
    dx_put_text(&q, m->item);
    dx_put_int(&q, visible_at);
    dx_put_stamp(&q);
    dx_run(&q);
    if (visible_at < tx->store->frontier.visible_at) dx_forget_frontier(tx->store);
}

/* ── turns: one function a table ────────────────────────────────────────────────────────────────────────── */

static void put_execution(dx_tx *tx, const dx_turn_done *t)
{
    dx_query q = dx_use(tx, DX_instance_put);
    dx_put_text(&q, t->instance);
    dx_put_text(&q, t->name);
    dx_put_text(&q, t->version.n >= 0 ? t->version : (dx_str){"unknown", 7}); /* the column is NOT NULL */
    dx_put_int(&q, t->execution_id);
    dx_put_text(&q, t->parent);
    dx_put_stamp(&q);
    dx_run(&q);
    q = dx_use(tx, DX_execution_put);
    dx_put_text(&q, t->instance);
    dx_put_int(&q, t->execution_id);
    for (int i = 0; i < 3; i++) {
        if (t->pinned[0] < 0) dx_put_null(&q);
        else dx_put_int(&q, t->pinned[i]);
    }
    dx_put_stamp(&q);
    dx_run(&q);
}

static void put_events(dx_tx *tx, const dx_turn_done *t)
{
    for (int64_t i = 0; i < t->n_events && !tx->failed; i++) {
        dx_query q = dx_use(tx, DX_event_put);
        dx_put_text(&q, t->instance);
        dx_put_int(&q, t->execution_id);
        dx_put_int(&q, t->events[i].event_id);
        dx_put_text(&q, t->events[i].type);
        dx_put_text(&q, t->events[i].text);
        dx_put_stamp(&q);
        dx_run(&q);
    }
}

static void change_kv(dx_tx *tx, dx_str instance, const dx_kv_change *c)
{
    dx_query q;
    if (c->op == DX_KV_CLEAR_ALL) {
        static const dx_statement both[2] = {DX_kv_clear_delta, DX_kv_clear_store};
        for (int i = 0; i < 2; i++) {
            q = dx_use(tx, both[i]);
            dx_put_text(&q, instance);
            dx_put_int(&q, c->at_ms);
            dx_run(&q);
        }
        return;
    }
    q = dx_use(tx, DX_kv_put);
    dx_put_text(&q, instance);
    dx_put_text(&q, c->key);
    dx_put_text(&q, c->op == DX_KV_SET ? c->value : (dx_str){NULL, -1});
    dx_put_int(&q, c->at_ms);
    dx_run(&q);
}

/* An execution ended: what it changed becomes the snapshot of the next. */
static void merge_kv(dx_tx *tx, dx_str instance)
{
    static const dx_statement steps[3] = {DX_kv_merge_put, DX_kv_merge_drop, DX_kv_merge_end};
    dx_query q = dx_use(tx, DX_kv_any);
    dx_put_text(&q, instance);
    int any = dx_any(&q);
    for (int i = 0; any && i < 3; i++) {
        q = dx_use(tx, steps[i]);
        dx_put_text(&q, instance);
        dx_run(&q);
    }
}

static void put_state(dx_tx *tx, const dx_turn_done *t, int64_t now)
{
    dx_query q;
    if (t->status.n >= 0) {
        q = dx_use(tx, DX_execution_end);
        dx_put_text(&q, t->instance);
        dx_put_int(&q, t->execution_id);
        dx_put_text(&q, t->status);
        dx_put_text(&q, t->output);
        dx_put_int(&q, now);
        dx_run(&q);
    }
    if (t->set_custom_status) {
        q = dx_use(tx, DX_custom_status_put);
        dx_put_text(&q, t->instance);
        dx_put_text(&q, t->custom_status);
        dx_run(&q);
    }
    for (int64_t i = 0; i < t->n_kv && !tx->failed; i++) change_kv(tx, t->instance, &t->kv[i]);
    if (t->status.n >= 0) merge_kv(tx, t->instance);
}

static int64_t put_work(dx_tx *tx, const dx_work_out *w, int64_t now, int64_t lease_ms)
{
    int held = w->lease.n >= 0;
    dx_query q = dx_use(tx, DX_work_put);
    dx_put_text(&q, w->item);
    dx_put_text(&q, w->lease);
    if (held) dx_put_int(&q, now + lease_ms);
    else dx_put_null(&q);
    dx_put_int(&q, held);
    dx_put_int(&q, w->visible_at ? w->visible_at : now);
    dx_put_text(&q, w->instance);
    dx_put_int(&q, w->execution_id);
    dx_put_int(&q, w->activity_id);
    dx_put_text(&q, w->session_id);
    dx_put_text(&q, w->tag);
    dx_put_stamp(&q);
    dx_run(&q);
    return dx_api.last_insert_rowid(tx->on->db);
}

static void put_outbox(dx_tx *tx, const dx_turn_done *t, const dx_request *request, dx_ids *held)
{
    int64_t lease_ms = request->appetite ? request->appetite->work_lease_ms : 30000;
    int64_t *ids = t->n_work ? dx_take(tx, (size_t)t->n_work * sizeof *ids) : NULL, n = 0;
    for (int64_t i = 0; i < t->n_work && !tx->failed; i++) {
        int64_t id = put_work(tx, &t->work[i], request->now, lease_ms);
        if (t->work[i].lease.n >= 0) ids[n++] = id;
    }
    *held = (dx_ids){ids, n};
    for (int64_t i = 0; i < t->n_cancelled && !tx->failed; i++) {
        dx_query q = dx_use(tx, DX_work_cancel);
        dx_put_text(&q, t->cancelled[i].instance);
        dx_put_int(&q, t->cancelled[i].execution_id);
        dx_put_int(&q, t->cancelled[i].activity_id);
        dx_run(&q);
    }
    for (int64_t i = 0; i < t->n_messages && !tx->failed; i++) dx_send(tx, &t->messages[i], request->now);
}

/* What was handed out or routed under an ended lease and not consumed is anybody's again. */
static void free_messages(dx_tx *tx, dx_str token)
{
    dx_query q = dx_use(tx, DX_message_carries);
    dx_put_text(&q, token);
    if (!dx_any(&q)) return;
    q = dx_use(tx, DX_message_free);
    dx_put_text(&q, token);
    dx_run(&q);
    dx_forget_frontier(tx->store);
}

/* 0: it is not live. */
static int end_lease(dx_tx *tx, dx_str instance, dx_str token, int64_t now)
{
    dx_query q = dx_use(tx, DX_lease_end);
    dx_put_text(&q, instance);
    dx_put_text(&q, token);
    dx_put_int(&q, now);
    return dx_run(&q) > 0;
}

/* Drops one acknowledged row; 0: it is not ours. */
static int end_work(dx_tx *tx, const dx_work_key *ack, int64_t now)
{
    dx_query q = dx_use(tx, DX_work_end);
    dx_put_int(&q, ack->row_id);
    dx_put_text(&q, ack->token);
    dx_put_int(&q, now);
    if (dx_run(&q) != 0) return 1;
    dx_str session; /* it has one, or is not ours */
    if (!dx_work_live(tx, ack->row_id, ack->token, now, &session)) return 0;
    drop_work(tx, ack->row_id, session, now);
    return 1;
}

/* Is the turn still the caller's? Then the rows that it acknowledges go. Only the last thing that is asked may be a write. */
static int admit(dx_tx *tx, const dx_turn_done *t, int64_t now)
{
    if (!t->keep && t->n_acks == 0) return end_lease(tx, t->instance, t->lease, now);
    if (!dx_lease_live(tx, t->instance, t->lease, now)) return 0;
    if (t->n_acks == 1) return end_work(tx, &t->acks[0], now);
    dx_str *sessions = dx_take(tx, (size_t)t->n_acks * sizeof *sessions);
    for (int64_t i = 0; i < t->n_acks && !tx->failed; i++)
        if (!dx_work_live(tx, t->acks[i].row_id, t->acks[i].token, now, &sessions[i])) return 0;
    for (int64_t i = 0; i < t->n_acks && !tx->failed; i++) drop_work(tx, t->acks[i].row_id, sessions[i], now);
    return 1;
}

void dx_commit_turn(dx_tx *tx, const dx_turn_done *t, const dx_request *request, int32_t *code, dx_ids *held)
{
    *code = DX_LOST;
    if (!admit(tx, t, request->now) || tx->failed) return;
    *code = DX_DONE;
    for (int64_t i = 0; i < t->n_consumed && !tx->failed; i++) {
        dx_query q = dx_use(tx, DX_message_drop);
        dx_put_int(&q, t->consumed[i]);
        dx_put_text(&q, t->lease);
        dx_run(&q);
    }
    if (t->name.n >= 0) put_execution(tx, t);
    put_events(tx, t);
    put_state(tx, t, request->now);
    put_outbox(tx, t, request, held);
    if (t->keep) return;
    if (t->n_acks) end_lease(tx, t->instance, t->lease, request->now);
    free_messages(tx, t->lease);
}

/* ── given back, finished work ──────────────────────────────────────────────────────────────────────────── */

int32_t dx_give_turn_back(dx_tx *tx, const dx_turn_back *back, int64_t now)
{
    if (!dx_lease_live(tx, back->instance, back->lease, INT64_MIN)) return DX_LOST;
    dx_query q = dx_use(tx, DX_message_unroute); /* never handed out: neither delayed nor refunded */
    dx_put_text(&q, back->lease);
    dx_run(&q);
    q = dx_use(tx, DX_message_back);
    dx_put_text(&q, back->lease);
    dx_put_int(&q, back->delay_ms ? now + back->delay_ms : 0);
    dx_put_int(&q, back->refund != 0);
    dx_run(&q);
    q = dx_use(tx, DX_lease_drop);
    dx_put_text(&q, back->instance);
    dx_run(&q);
    dx_forget_frontier(tx->store);
    return DX_DONE;
}

int32_t dx_finish_work(dx_tx *tx, const dx_work_done *work, int64_t now)
{
    dx_str session;
    if (!dx_work_live(tx, work->row_id, work->token, now, &session)) return DX_LOST;
    drop_work(tx, work->row_id, session, now);
    if (work->item.n >= 0) dx_send(tx, &(dx_message){work->instance, work->item, 0}, now);
    return DX_DONE;
}

int32_t dx_give_work_back(dx_tx *tx, const dx_work_back *back, int64_t now)
{
    dx_query q = dx_use(tx, DX_work_back);
    dx_put_int(&q, now + back->delay_ms);
    dx_put_int(&q, back->refund != 0);
    dx_put_int(&q, back->row_id);
    dx_put_text(&q, back->token);
    return dx_run(&q) > 0 ? DX_DONE : DX_LOST;
}
