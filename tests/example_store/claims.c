/* What is asked for: messages by instance, activities by tag and session, both in the order in which they became visible. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "example_store.h"

static dx_str new_token(store *s, dx_str owner) {
    int n = snprintf(NULL, 0, "lock_%.*s:%lld", (int)owner.n, owner.p, (long long)s->last_token + 1);
    char *text = malloc((size_t)n + 1);
    if (text == NULL) abort();
    snprintf(text, (size_t)n + 1, "lock_%.*s:%lld", (int)owner.n, owner.p, (long long)++s->last_token);
    return (dx_str){text, n};
}

/* Is it one of this owner's tokens, lock_{owner}:{number}? An owner's name may hold a colon itself. */
static bool owns(dx_str owner, dx_str token) {
    int64_t colon = 5 + owner.n;
    return begins(token, "lock_", owner) && token.n > colon && token.p[colon] == ':' && !memchr(token.p + colon + 1, ':', (size_t)(token.n - colon - 1));
}

static void due(dx_taken *taken, int64_t at) {
    if (at < DX_PARKED && (taken->next_visible_at < 0 || at < taken->next_visible_at)) taken->next_visible_at = at;
}

/* ── turns ───────────────────────────────────────────────────────────────────────────────────────────────── */

static bool is_successor(dx_str item) {
    return begins(item, "{\"ContinueAsNew\"", (dx_str){"", 0});
}

static bool is_start(dx_str item) {
    return begins(item, "{\"StartOrchestration\"", (dx_str){"", 0}) || is_successor(item);
}

static bool is_cancel(dx_str item) {
    return begins(item, "{\"CancelInstance\"", (dx_str){"", 0});
}

/* Does a start wait for this unborn instance? Then what was parked for it comes along. Else its messages are settled: a cancel is parked
 * (or waits for a start that is due later), others are for nobody. */
static bool is_birth(store *s, dx_str instance, int64_t now) {
    int64_t later = 0;
    bool birth = false;
    for (int64_t i = 0; i < s->messages.n; i++) {
        message_row *row = &s->messages.rows[i];
        if (!same(row->instance, instance) || row->token.n >= 0 || !is_start(row->item)) continue;
        if (row->visible_at <= now) birth = true;
        else if (row->visible_at < DX_PARKED && (!later || row->visible_at < later)) later = row->visible_at;
    }
    for (int64_t i = s->messages.n - 1; i >= 0; i--) {
        message_row *row = &s->messages.rows[i];
        if (!same(row->instance, instance) || row->token.n >= 0) continue;
        if (birth && row->visible_at == DX_PARKED) row->visible_at = now;
        if (birth || row->visible_at > now) continue;
        if (later || is_cancel(row->item)) row->visible_at = later ? later : DX_PARKED;
        else remove_message(s, i);
    }
    return birth;
}

/* Between two executions: is the start of the next one still to come? Then what came before waits for it. */
static bool is_between(store *s, dx_str instance, int64_t now) {
    int64_t due = 0;
    for (int64_t i = 0; i < s->messages.n; i++) {
        message_row *row = &s->messages.rows[i];
        if (!same(row->instance, instance) || row->token.n >= 0 || !is_successor(row->item)) continue;
        if (row->visible_at < DX_PARKED && (!due || row->visible_at < due)) due = row->visible_at;
    }
    for (int64_t i = 0; i < s->messages.n && due > now; i++) {
        message_row *row = &s->messages.rows[i];
        if (same(row->instance, instance) && row->token.n < 0 && row->visible_at <= now) row->visible_at = due;
    }
    return due > now;
}

static bool fits(const dx_appetite *a, const execution_row *execution) {
    if (a->version_mode != DX_VERSIONS_RANGE || !execution || execution->pin < 0) return true;
    return a->versions[0] <= execution->pin && execution->pin <= a->versions[1];
}

static void take_messages(store *s, dx_str instance, dx_str token, int64_t now, dx_claimed_turn *turn, arena *memory) {
    dx_claimed_message *rows = out(memory, (size_t)s->messages.n * sizeof *rows);
    for (int64_t i = 0; i < s->messages.n; i++) { /* rows are in the order of their ids */
        message_row *row = &s->messages.rows[i];
        if (!same(row->instance, instance) || row->token.n >= 0 || row->visible_at > now) continue;
        row->token = keep(token);
        row->attempts++;
        rows[turn->n_messages++] = (dx_claimed_message){row->id, out_text(memory, row->item), row->attempts};
        if (row->attempts > turn->attempt) turn->attempt = row->attempts;
    }
    turn->messages = rows;
}

static bool claim_instance(store *s, dx_str id, const dx_appetite *a, int64_t now, dx_claimed_turn *turn, arena *memory) {
    lease_row *lease = lease_of(s, id);
    if (lease && !owns(a->owner, lease->token)) return false;
    instance_row *row = instance_of(s, id);
    execution_row *execution = row ? execution_of(row, row->current) : NULL;
    if (!lease && !fits(a, execution)) return false;
    if (!lease && !row && !is_birth(s, id, now)) return false;
    if (!lease && execution && same(execution->status, (dx_str){"ContinuedAsNew", 14}) && is_between(s, id, now)) return false;
    if (!lease) {
        lease = ADD(s->leases);
        lease->instance = keep(id), lease->token = new_token(s, a->owner), lease->until = now + a->lease_ms;
    }
    turn->instance = out_text(memory, id), turn->lease = out_text(memory, lease->token);
    take_messages(s, id, lease->token, now, turn, memory);
    turn->name = turn->version = turn->status = NOTHING;
    if (!row) return true;
    turn->execution_id = row->current;
    turn->name = out_text(memory, row->name), turn->version = out_text(memory, row->version);
    if (!execution) return true;
    turn->status = out_text(memory, execution->status);
    for (int64_t i = 0; i < execution->events.n; i++)
        if (execution->events.rows[i].id > turn->last_event_id) turn->last_event_id = execution->events.rows[i].id;
    return true;
}

/* The free message that became visible first, of those after (at, id). */
static message_row *next_message(store *s, int64_t now, int64_t at, int64_t id) {
    message_row *found = NULL;
    for (int64_t i = 0; i < s->messages.n; i++) {
        message_row *row = &s->messages.rows[i];
        if (row->token.n >= 0 || row->visible_at > now) continue;
        if (row->visible_at < at || (row->visible_at == at && row->id <= id)) continue;
        if (!found || row->visible_at < found->visible_at) found = row;
    }
    return found;
}

static void claim_turns(store *s, const dx_appetite *a, int64_t now, dx_taken *taken, arena *memory) {
    if (a->turns <= 0 || a->version_mode == DX_VERSIONS_NOTHING) return;
    for (int64_t i = s->leases.n - 1; i >= 0; i--)
        if (s->leases.rows[i].until <= now) end_lease(s, s->leases.rows[i].instance, s->leases.rows[i].token);
    dx_claimed_turn *turns = out(memory, (size_t)(a->turns < s->messages.n ? a->turns : s->messages.n) * sizeof *turns);
    int64_t at = -1, id = -1;
    message_row *row;
    while (taken->n_turns < a->turns && (row = next_message(s, now, at, id))) {
        at = row->visible_at, id = row->id;
        dx_str instance = keep(row->instance); /* the row may go */
        if (claim_instance(s, instance, a, now, &turns[taken->n_turns], memory)) taken->n_turns++;
        drop(&instance);
    }
    taken->turns = turns;
    for (int64_t i = 0; i < s->messages.n; i++)
        if (s->messages.rows[i].token.n < 0 && s->messages.rows[i].visible_at > now) due(taken, s->messages.rows[i].visible_at);
    for (int64_t i = 0; a->sweep && i < s->leases.n; i++) due(taken, s->leases.rows[i].until);
}

/* ── work ────────────────────────────────────────────────────────────────────────────────────────────────── */

static bool among(dx_str text, const dx_str *texts, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (same(text, texts[i])) return true;
    return false;
}

static bool serves(const dx_appetite *a, dx_str tag) {
    if (a->tag_mode == DX_TAGS_ANY) return true;
    if (tag.n < 0) return a->tag_mode != DX_TAGS_ONLY;
    return (a->tag_mode == DX_TAGS_ONLY || a->tag_mode == DX_TAGS_AND_DEFAULT) && among(tag, a->tags, a->n_tags);
}

/* Is the row's session free, ours, or none? */
static bool reachable(store *s, const work_row *row, const dx_appetite *a, int64_t now) {
    if (row->session.n < 0) return true;
    if (a->session_owner.n < 0 || (a->session_room <= 0 && !among(row->session, a->sessions, a->n_sessions))) return false;
    session_row *session = session_of(s, row->session);
    return !session || session->until <= now || same(session->owner, a->session_owner);
}

/* Takes the session for the claimant, unless it would be one too many. `opened`: those taken by this claim. */
static bool open_session(store *s, dx_str id, const dx_appetite *a, int64_t now, dx_str *opened, int64_t *n_opened) {
    if (among(id, opened, *n_opened)) return true;
    if (!among(id, a->sessions, a->n_sessions)) {
        int64_t fresh = 0;
        for (int64_t i = 0; i < *n_opened; i++) fresh += !among(opened[i], a->sessions, a->n_sessions);
        if (fresh >= a->session_room) return false;
    }
    session_row *session = session_of(s, id);
    if (!session) {
        session = ADD(s->sessions);
        session->id = keep(id), session->owner = NOTHING;
    }
    put(&session->owner, a->session_owner);
    session->until = now + a->session_lock_ms, session->active = now;
    opened[(*n_opened)++] = id;
    return true;
}

static work_row *next_work(store *s, const dx_appetite *a, int64_t now, int64_t at, int64_t id) {
    work_row *found = NULL;
    for (int64_t i = 0; i < s->work.n; i++) {
        work_row *row = &s->work.rows[i];
        if (row->token.n >= 0 || row->visible_at > now || !serves(a, row->tag) || !reachable(s, row, a, now)) continue;
        if (row->visible_at < at || (row->visible_at == at && row->id <= id)) continue;
        if (!found || row->visible_at < found->visible_at) found = row;
    }
    return found;
}

static void take_work(store *s, work_row *row, const dx_appetite *a, int64_t now, dx_claimed_work *work, arena *memory) {
    instance_row *instance = instance_of(s, row->instance);
    row->token = new_token(s, a->owner), row->until = now + a->work_lease_ms;
    work->row_id = row->id, work->attempt = ++row->attempts;
    work->token = out_text(memory, row->token), work->item = out_text(memory, row->item);
    work->instance = out_text(memory, row->instance), work->session_id = out_text(memory, row->session);
    work->tag = out_text(memory, row->tag);
    work->name = instance ? out_text(memory, instance->name) : NOTHING;
    work->version = instance ? out_text(memory, instance->version) : NOTHING;
}

static void claim_work(store *s, const dx_appetite *a, int64_t now, dx_taken *taken, arena *memory) {
    if (a->work <= 0 || a->tag_mode == DX_TAGS_NONE) return;
    for (int64_t i = 0; i < s->work.n; i++)
        if (s->work.rows[i].token.n >= 0 && s->work.rows[i].until <= now) drop(&s->work.rows[i].token);
    dx_claimed_work *work = out(memory, (size_t)(a->work < s->work.n ? a->work : s->work.n) * sizeof *work);
    dx_str *opened = out(memory, (size_t)s->work.n * sizeof *opened);
    int64_t n_opened = 0, at = -1, id = -1;
    work_row *row;
    while (taken->n_work < a->work && (row = next_work(s, a, now, at, id))) {
        at = row->visible_at, id = row->id;
        if (row->session.n < 0 || open_session(s, row->session, a, now, opened, &n_opened))
            take_work(s, row, a, now, &work[taken->n_work++], memory);
    }
    taken->work = work;
    for (int64_t i = 0; i < s->work.n; i++) {
        row = &s->work.rows[i];
        if (row->token.n >= 0 && a->sweep) due(taken, row->until);
        if (row->token.n < 0 && row->visible_at > now && serves(a, row->tag)) due(taken, row->visible_at);
    }
}

void claim(store *s, const dx_appetite *appetite, int64_t now, dx_taken *taken, arena *memory) {
    claim_turns(s, appetite, now, taken, memory);
    claim_work(s, appetite, now, taken, memory);
}
