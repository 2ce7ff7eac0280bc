#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "example_store.h"

static void *checked(void *p) {
    if (p == NULL) {
        fputs("example store: out of memory\n", stderr);
        abort();
    }
    return p;
}

void grow(void **rows, int64_t *room, int64_t n, size_t size) {
    if (n == *room) {
        *room = *room ? *room * 2 : 8;
        *rows = checked(realloc(*rows, (size_t)*room * size));
    }
    memset((char *)*rows + (size_t)n * size, 0, size);
}

void remove_row(void *rows, int64_t *n, int64_t i, size_t size) {
    char *row = (char *)rows + (size_t)i * size;
    memmove(row, row + size, (size_t)(--*n - i) * size);
}

dx_str keep(dx_str text) {
    if (text.n < 0) return NOTHING;
    char *copy = checked(malloc((size_t)text.n + 1));
    if (text.n) memcpy(copy, text.p, (size_t)text.n);
    return (dx_str){copy, text.n};
}

void drop(dx_str *text) {
    if (text->n >= 0) free((char *)text->p);
    *text = NOTHING;
}

void put(dx_str *field, dx_str text) {
    dx_str copy = keep(text);
    drop(field);
    *field = copy;
}

bool same(dx_str a, dx_str b) {
    return a.n == b.n && (a.n <= 0 || memcmp(a.p, b.p, (size_t)a.n) == 0);
}

bool begins(dx_str text, const char *with, dx_str then) {
    int64_t n = (int64_t)strlen(with);
    return text.n >= n + then.n && memcmp(text.p, with, (size_t)n) == 0 && memcmp(text.p + n, then.p, (size_t)then.n) == 0;
}

/* ── results ─────────────────────────────────────────────────────────────────────────────────────────────── */

void *out(arena *memory, size_t bytes) {
    block *b = checked(calloc(1, sizeof *b + bytes + 1));
    b->next = memory->last;
    memory->last = b;
    return b + 1;
}

dx_str out_text(arena *memory, dx_str text) {
    if (text.n < 0) return NOTHING;
    char *copy = out(memory, (size_t)text.n);
    if (text.n) memcpy(copy, text.p, (size_t)text.n);
    return (dx_str){copy, text.n};
}

/* ── rows ────────────────────────────────────────────────────────────────────────────────────────────────── */

instance_row *instance_of(store *s, dx_str id) {
    for (int64_t i = 0; i < s->instances.n; i++)
        if (same(s->instances.rows[i].id, id)) return &s->instances.rows[i];
    return NULL;
}

execution_row *execution_of(instance_row *instance, int64_t id) {
    for (int64_t i = 0; instance && i < instance->executions.n; i++)
        if (instance->executions.rows[i].id == id) return &instance->executions.rows[i];
    return NULL;
}

lease_row *lease_of(store *s, dx_str instance) {
    for (int64_t i = 0; i < s->leases.n; i++)
        if (same(s->leases.rows[i].instance, instance)) return &s->leases.rows[i];
    return NULL;
}

work_row *live_work(store *s, int64_t row_id, dx_str token, int64_t now) {
    for (int64_t i = 0; i < s->work.n; i++) {
        work_row *row = &s->work.rows[i];
        if (row->id == row_id) return row->token.n >= 0 && same(row->token, token) && row->until > now ? row : NULL;
    }
    return NULL;
}

session_row *session_of(store *s, dx_str id) {
    for (int64_t i = 0; i < s->sessions.n; i++)
        if (same(s->sessions.rows[i].id, id)) return &s->sessions.rows[i];
    return NULL;
}

void touch_session(store *s, dx_str session, int64_t now) {
    session_row *row = session.n >= 0 ? session_of(s, session) : NULL;
    if (row && row->until > now) row->active = now;
}

void remove_message(store *s, int64_t i) {
    message_row *row = &s->messages.rows[i];
    drop(&row->instance), drop(&row->item), drop(&row->token);
    REMOVE(s->messages, i);
}

void remove_work(store *s, int64_t i) {
    work_row *row = &s->work.rows[i];
    drop(&row->instance), drop(&row->item), drop(&row->session), drop(&row->tag), drop(&row->token);
    REMOVE(s->work, i);
}

/* The lease goes; what was claimed under it and not consumed is free again. */
void end_lease(store *s, dx_str instance, dx_str token) {
    for (int64_t i = 0; i < s->messages.n; i++)
        if (same(s->messages.rows[i].token, token)) drop(&s->messages.rows[i].token);
    for (int64_t i = 0; i < s->leases.n; i++)
        if (same(s->leases.rows[i].instance, instance)) {
            drop(&s->leases.rows[i].instance), drop(&s->leases.rows[i].token);
            REMOVE(s->leases, i);
            return;
        }
}

static void free_kv(kv_row *rows, int64_t n) {
    for (int64_t i = 0; i < n; i++) drop(&rows[i].key), drop(&rows[i].value);
    free(rows);
}

static void free_instance(instance_row *row) {
    for (int64_t i = 0; i < row->executions.n; i++) {
        execution_row *execution = &row->executions.rows[i];
        for (int64_t e = 0; e < execution->events.n; e++) drop(&execution->events.rows[e].text);
        free(execution->events.rows);
        drop(&execution->status), drop(&execution->output);
    }
    free(row->executions.rows);
    free_kv(row->kv.rows, row->kv.n), free_kv(row->kv_delta.rows, row->kv_delta.n);
    drop(&row->id), drop(&row->name), drop(&row->version), drop(&row->parent), drop(&row->custom_status);
}

void free_tables(store *s) {
    while (s->messages.n) remove_message(s, s->messages.n - 1);
    while (s->work.n) remove_work(s, s->work.n - 1);
    while (s->leases.n) end_lease(s, s->leases.rows[0].instance, s->leases.rows[0].token);
    for (int64_t i = 0; i < s->sessions.n; i++) drop(&s->sessions.rows[i].id), drop(&s->sessions.rows[i].owner);
    for (int64_t i = 0; i < s->instances.n; i++) free_instance(&s->instances.rows[i]);
    free(s->messages.rows), free(s->work.rows), free(s->leases.rows), free(s->sessions.rows), free(s->instances.rows);
}
