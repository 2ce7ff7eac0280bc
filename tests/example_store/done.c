/* What is handed in. Every check comes before the first write: a turn lands whole or not at all. */
#include <string.h>

#include "example_store.h"

static void send_message(store *s, dx_str instance, dx_str item, int64_t visible_at) {
    message_row *row = ADD(s->messages);
    row->id = ++s->last_message;
    row->instance = keep(instance), row->item = keep(item), row->token = NOTHING;
    row->visible_at = visible_at;
}

/* ── one turn ────────────────────────────────────────────────────────────────────────────────────────────── */

static bool lease_is_live(store *s, dx_str instance, dx_str token, int64_t now) {
    lease_row *lease = lease_of(s, instance);
    return lease && same(lease->token, token) && lease->until > now;
}

static bool has_event(const execution_row *execution, int64_t id) {
    for (int64_t i = 0; execution && i < execution->events.n; i++)
        if (execution->events.rows[i].id == id) return true;
    return false;
}

static bool repeats_an_event(store *s, const dx_turn_done *t) {
    execution_row *stored = execution_of(instance_of(s, t->instance), t->execution_id);
    for (int64_t i = 0; i < t->n_events; i++) {
        if (has_event(stored, t->events[i].event_id)) return true;
        for (int64_t j = 0; j < i; j++)
            if (t->events[i].event_id == t->events[j].event_id) return true;
    }
    return false;
}

static int64_t packed(const int64_t v[3]) {
    return v[0] < 0 ? -1 : v[0] * 1000000 + v[1] * 1000 + v[2];
}

static execution_row *execution_for(instance_row *instance, int64_t id) {
    execution_row *found = execution_of(instance, id);
    if (found) return found;
    found = ADD(instance->executions);
    found->id = id, found->pin = -1;
    found->status = keep((dx_str){"Running", 7}), found->output = NOTHING;
    return found;
}

static void begin_execution(store *s, const dx_turn_done *t) {
    instance_row *row = instance_of(s, t->instance);
    if (!row) {
        bool has_parent = t->parent.n >= 0 && instance_of(s, t->parent);
        row = ADD(s->instances);
        row->id = keep(t->instance), row->current = 1;
        row->parent = has_parent ? keep(t->parent) : NOTHING;
        row->name = row->version = row->custom_status = NOTHING;
    }
    put(&row->name, t->name);
    put(&row->version, t->version.n >= 0 ? t->version : (dx_str){"unknown", 7});
    if (t->execution_id > row->current) row->current = t->execution_id;
    execution_row *execution = execution_for(row, t->execution_id);
    if (packed(t->pinned) >= 0) execution->pin = packed(t->pinned);
}

static kv_row *kv_of(kv_row *rows, int64_t n, dx_str key) {
    for (int64_t i = 0; i < n; i++)
        if (same(rows[i].key, key)) return &rows[i];
    return NULL;
}

static void change(instance_row *row, dx_str key, dx_str value, int64_t at_ms) {
    kv_row *found = kv_of(row->kv_delta.rows, row->kv_delta.n, key);
    if (!found) {
        found = ADD(row->kv_delta);
        found->key = keep(key), found->value = NOTHING;
    }
    put(&found->value, value);
    found->at_ms = at_ms;
}

static void change_kv(instance_row *row, const dx_kv_change *c) {
    if (c->op != DX_KV_CLEAR_ALL) {
        change(row, c->key, c->op == DX_KV_SET ? c->value : NOTHING, c->at_ms);
        return;
    }
    for (int64_t i = 0; i < row->kv.n; i++) change(row, row->kv.rows[i].key, NOTHING, c->at_ms);
    for (int64_t i = 0; i < row->kv_delta.n; i++) drop(&row->kv_delta.rows[i].value), row->kv_delta.rows[i].at_ms = c->at_ms;
}

/* At the end of an execution its changes become the snapshot that the next one sees. */
static void merge_kv(instance_row *row) {
    for (int64_t i = 0; i < row->kv_delta.n; i++) {
        kv_row *delta = &row->kv_delta.rows[i], *found = kv_of(row->kv.rows, row->kv.n, delta->key);
        if (delta->value.n < 0) {
            if (found) {
                drop(&found->key), drop(&found->value);
                REMOVE(row->kv, found - row->kv.rows);
            }
            drop(&delta->key);
        } else if (found) {
            drop(&found->value), drop(&delta->key);
            found->value = delta->value, found->at_ms = delta->at_ms;
        } else {
            *ADD(row->kv) = *delta;
        }
    }
    row->kv_delta.n = 0;
}

static void write_turn(store *s, const dx_turn_done *t) {
    if (t->name.n >= 0) begin_execution(s, t);
    instance_row *row = instance_of(s, t->instance);
    if (!row) return;
    execution_row *execution = t->n_events ? execution_for(row, t->execution_id) : execution_of(row, t->execution_id);
    for (int64_t i = 0; i < t->n_events; i++) {
        event_row *event = ADD(execution->events);
        event->id = t->events[i].event_id, event->text = keep(t->events[i].text);
    }
    if (execution && t->status.n >= 0) put(&execution->status, t->status), put(&execution->output, t->output);
    if (t->set_custom_status) put(&row->custom_status, t->custom_status), row->custom_status_version++;
    for (int64_t i = 0; i < t->n_kv; i++) change_kv(row, &t->kv[i]);
    if (t->status.n >= 0) merge_kv(row);
}

static dx_ids insert_work(store *s, const dx_turn_done *t, int64_t now, int64_t lease_ms, arena *memory) {
    int64_t *held = out(memory, (size_t)t->n_work * sizeof *held), n = 0;
    for (int64_t i = 0; i < t->n_work; i++) {
        const dx_work_out *w = &t->work[i];
        work_row *row = ADD(s->work);
        row->id = ++s->last_work, row->execution_id = w->execution_id, row->activity_id = w->activity_id;
        row->instance = keep(w->instance), row->item = keep(w->item), row->session = keep(w->session_id), row->tag = keep(w->tag);
        row->token = keep(w->lease), row->visible_at = w->visible_at ? w->visible_at : now;
        if (w->lease.n >= 0) row->until = now + lease_ms, row->attempts = 1, held[n++] = row->id;
    }
    return (dx_ids){held, n};
}

static bool is_cancelled(const dx_turn_done *t, const work_row *row) {
    for (int64_t i = 0; i < t->n_cancelled; i++) {
        const dx_activity_key *key = &t->cancelled[i];
        if (same(key->instance, row->instance) && key->execution_id == row->execution_id && key->activity_id == row->activity_id) return true;
    }
    return false;
}

static void consume(store *s, const dx_turn_done *t, int64_t now) {
    for (int64_t i = 0; i < t->n_acks; i++)
        for (int64_t r = 0; r < s->work.n; r++)
            if (s->work.rows[r].id == t->acks[i].row_id) {
                touch_session(s, s->work.rows[r].session, now);
                remove_work(s, r);
                break;
            }
    for (int64_t i = 0; i < t->n_consumed; i++)
        for (int64_t r = 0; r < s->messages.n; r++)
            if (s->messages.rows[r].id == t->consumed[i] && same(s->messages.rows[r].token, t->lease)) {
                remove_message(s, r);
                break;
            }
}

static int commit(store *s, const dx_turn_done *t, int64_t now, int64_t lease_ms, dx_ids *held, arena *memory) {
    if (!lease_is_live(s, t->instance, t->lease, now)) return DX_LOST;
    for (int64_t i = 0; i < t->n_acks; i++)
        if (!live_work(s, t->acks[i].row_id, t->acks[i].token, now)) return DX_LOST;
    if (repeats_an_event(s, t)) return DX_REFUSED;
    consume(s, t, now);
    write_turn(s, t);
    *held = insert_work(s, t, now, lease_ms, memory);
    for (int64_t r = s->work.n - 1; r >= 0; r--)
        if (is_cancelled(t, &s->work.rows[r])) remove_work(s, r);
    for (int64_t i = 0; i < t->n_messages; i++) {
        const dx_message *m = &t->messages[i];
        send_message(s, m->instance, m->item, m->visible_at ? m->visible_at : now);
    }
    if (!t->keep) end_lease(s, t->instance, t->lease);
    return DX_DONE;
}

/* ── the rest ────────────────────────────────────────────────────────────────────────────────────────────── */

static int give_turn_back(store *s, const dx_turn_back *b, int64_t now) {
    lease_row *lease = lease_of(s, b->instance);
    if (!lease || !same(lease->token, b->lease)) return DX_LOST;
    for (int64_t i = 0; i < s->messages.n; i++) {
        message_row *row = &s->messages.rows[i];
        if (!same(row->token, b->lease)) continue;
        if (b->delay_ms) row->visible_at = now + b->delay_ms;
        if (b->refund && row->attempts) row->attempts--;
    }
    end_lease(s, b->instance, b->lease);
    return DX_DONE;
}

static int finish_work(store *s, const dx_work_done *w, int64_t now) {
    work_row *row = live_work(s, w->row_id, w->token, now);
    if (!row) return DX_LOST;
    touch_session(s, row->session, now);
    remove_work(s, row - s->work.rows);
    if (w->item.n >= 0) send_message(s, w->instance, w->item, now);
    return DX_DONE;
}

static int give_work_back(store *s, const dx_work_back *b, int64_t now) {
    for (int64_t i = 0; i < s->work.n; i++) {
        work_row *row = &s->work.rows[i];
        if (row->id != b->row_id || row->token.n < 0 || !same(row->token, b->token)) continue;
        drop(&row->token);
        row->visible_at = now + b->delay_ms;
        if (b->refund && row->attempts) row->attempts--;
        return DX_DONE;
    }
    return DX_LOST;
}

void apply(store *s, const dx_done *done, int64_t now, int64_t work_lease_ms, dx_taken *taken, arena *memory) {
    int32_t *turns = out(memory, (size_t)done->n_turns * sizeof *turns), *backs = out(memory, (size_t)done->n_turn_backs * sizeof *backs);
    int32_t *work = out(memory, (size_t)done->n_work * sizeof *work), *work_backs = out(memory, (size_t)done->n_work_backs * sizeof *work_backs);
    dx_ids *held = out(memory, (size_t)done->n_turns * sizeof *held);
    for (int64_t i = 0; i < done->n_turns; i++) turns[i] = commit(s, &done->turns[i], now, work_lease_ms, &held[i], memory);
    for (int64_t i = 0; i < done->n_turn_backs; i++) backs[i] = give_turn_back(s, &done->turn_backs[i], now);
    for (int64_t i = 0; i < done->n_work; i++) work[i] = finish_work(s, &done->work[i], now);
    for (int64_t i = 0; i < done->n_work_backs; i++) work_backs[i] = give_work_back(s, &done->work_backs[i], now);
    for (int64_t i = 0; i < done->n_messages; i++) {
        const dx_message *m = &done->messages[i];
        send_message(s, m->instance, m->item, m->visible_at ? m->visible_at : now);
    }
    taken->turn_codes = turns, taken->turn_back_codes = backs, taken->work_codes = work, taken->work_back_codes = work_backs;
    taken->held = held;
}
