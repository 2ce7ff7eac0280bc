/* Claims of turns: which instance may run next, and the messages that go with it. Reads no payload beyond a work item's kind. */
#include "sqlite_store.h"

#include <stdlib.h>
#include <string.h>

enum { SWEEP_LIMIT = 256, FRONTIER_AFTER = 64, FRONTIER_MS = 1000, LOOK_AT_ONCE = 64 };

void dx_come_due(dx_taken *out, int64_t at)
{
    if (at < DX_PARKED && (out->next_visible_at < 0 || at < out->next_visible_at)) out->next_visible_at = at;
}

/* Is `item` the externally tagged JSON `{"kind": ...`? */
static int is_kind(dx_str item, const char *kind)
{
    int64_t i = 0, n = (int64_t)strlen(kind);
    for (const char *open = "{\""; *open; open++, i++) {
        while (i < item.n && strchr(" \t\r\n", item.p[i]) && item.p[i]) i++;
        if (i >= item.n || item.p[i] != *open) return 0;
    }
    return item.n - i > n && memcmp(item.p + i, kind, (size_t)n) == 0 && item.p[i + n] == '"';
}

static int starts_instance(dx_str item)
{
    return is_kind(item, "StartOrchestration") || is_kind(item, "ContinueAsNew");
}

/* ── leases that ended without a commit ─────────────────────────────────────────────────────────────────── */

static void untag(dx_tx *tx, dx_str instance)
{
    dx_query q = dx_use(tx, DX_message_untag);
    dx_put_text(&q, instance);
    dx_run(&q);
}

/* Frees what expired leases held: those rows are ready again, at their old place and with their attempts. */
static int sweep(dx_tx *tx, int64_t now)
{
    int freed = 0;
    while (freed < SWEEP_LIMIT && !tx->failed) {
        dx_query q = dx_use(tx, DX_lease_expired);
        dx_put_int(&q, now);
        dx_str instance = dx_row(&q) ? dx_keep(&q, 0) : (dx_str){NULL, -1};
        dx_finish(&q);
        if (instance.n < 0) break;
        untag(tx, instance);
        q = dx_use(tx, DX_lease_drop);
        dx_put_text(&q, instance);
        dx_run(&q);
        freed++;
    }
    dx_query q = dx_use(tx, DX_message_adopt);
    dx_put_int(&q, SWEEP_LIMIT);
    if (dx_run(&q) > 0) freed++;
    if (freed) dx_forget_frontier(tx->store);
    return freed;
}

/* ── one instance ───────────────────────────────────────────────────────────────────────────────────────── */

typedef struct {
    dx_tx *tx;
    const dx_appetite *appetite;
    int64_t now;
    dx_taken *out;
} dx_claim;

static int by_row_id(const void *a, const void *b)
{
    int64_t x = ((const dx_claimed_message *)a)->row_id, y = ((const dx_claimed_message *)b)->row_id;
    return (x > y) - (x < y);
}

static dx_claimed_message *read_batch(dx_claim *c, dx_str instance, dx_str token, int64_t *n)
{
    dx_claimed_message *batch = NULL;
    dx_query q = dx_use(c->tx, DX_message_batch);
    dx_put_text(&q, instance);
    dx_put_int(&q, c->now);
    dx_put_text(&q, token);
    int sorted = 1;
    for (*n = 0; dx_row(&q); ++*n) {
        if ((batch = dx_grow(c->tx, batch, *n, sizeof *batch)) == NULL) break;
        batch[*n] = (dx_claimed_message){dx_int(&q, 0), dx_keep(&q, 1), dx_int(&q, 2) + 1};
        sorted &= *n == 0 || batch[*n - 1].row_id < batch[*n].row_id;
    }
    dx_finish(&q);
    if (!sorted && !c->tx->failed) qsort(batch, (size_t)*n, sizeof *batch, by_row_id);
    return batch;
}

/* When its start comes back from a delay (its orchestration is not registered here, say); 0: no start is waiting. */
static int64_t start_due(dx_claim *c, dx_str instance, int (*is_start)(dx_str item))
{
    int64_t due = 0;
    dx_query q = dx_use(c->tx, DX_message_later);
    dx_put_text(&q, instance);
    dx_put_int(&q, c->now);
    while (due == 0 && dx_row(&q))
        if (dx_int(&q, 0) < DX_PARKED && is_start(dx_text(&q, 1))) due = dx_int(&q, 0);
    dx_finish(&q);
    return due;
}

static void defer(dx_claim *c, int64_t row_id, int64_t due)
{
    dx_query q = dx_use(c->tx, DX_message_defer);
    dx_put_int(&q, due);
    dx_put_int(&q, row_id);
    dx_run(&q);
}

/* Messages without an instance wait for a delayed start; else a cancellation is parked until the id is born, the rest dropped. */
static void settle_orphans(dx_claim *c, dx_str instance, const dx_claimed_message *batch, int64_t n)
{
    int64_t due = start_due(c, instance, starts_instance);
    for (int64_t i = 0; i < n && !c->tx->failed; i++) {
        if (due || is_kind(batch[i].item, "CancelInstance")) defer(c, batch[i].row_id, due ? due : DX_PARKED);
        else {
            dx_query q = dx_use(c->tx, DX_message_delete);
            dx_put_int(&q, batch[i].row_id);
            dx_run(&q);
        }
    }
}

static int continues_instance(dx_str item)
{
    return is_kind(item, "ContinueAsNew");
}

/* Between two executions: what comes before the start of the next one is visible waits for it, so that nothing overtakes it. */
static int is_between(dx_claim *c, const dx_claimed_turn *turn, const dx_claimed_message *batch, int64_t n)
{
    if (!dx_same(turn->status, (dx_str){"ContinuedAsNew", 14})) return 0;
    for (int64_t i = 0; i < n; i++)
        if (continues_instance(batch[i].item)) return 0;
    int64_t due = start_due(c, turn->instance, continues_instance);
    for (int64_t i = 0; i < n && due && !c->tx->failed; i++) defer(c, batch[i].row_id, due);
    return due != 0;
}

/* May this batch be claimed although its instance has no row yet? Collects what was parked for it. */
static int is_birth(dx_claim *c, dx_str instance, dx_str token, dx_claimed_message **batch, int64_t *n)
{
    int born = 0;
    for (int64_t i = 0; i < *n && !born; i++) born = starts_instance((*batch)[i].item);
    if (!born) {
        settle_orphans(c, instance, *batch, *n);
        return 0;
    }
    dx_query q = dx_use(c->tx, DX_message_parked);
    dx_put_text(&q, instance);
    dx_put_int(&q, DX_PARKED);
    if (!dx_any(&q)) return 1;
    q = dx_use(c->tx, DX_message_unpark);
    dx_put_int(&q, c->now);
    dx_put_text(&q, instance);
    dx_put_int(&q, DX_PARKED);
    if (dx_run(&q) > 0) *batch = read_batch(c, instance, token, n);
    return 1;
}

static void read_turn(dx_claim *c, dx_claimed_turn *turn)
{
    dx_query q = dx_use(c->tx, DX_turn_get);
    dx_put_text(&q, turn->instance);
    if (dx_row(&q)) {
        turn->name = dx_keep(&q, 0);
        turn->version = dx_keep(&q, 1);
        turn->execution_id = dx_int(&q, 2);
        turn->status = dx_keep(&q, 3);
        turn->last_event_id = dx_int(&q, 4);
    }
    dx_finish(&q);
}

static void tag(dx_claim *c, dx_claimed_turn *turn)
{
    for (int64_t i = 0; i < turn->n_messages && !c->tx->failed; i++) {
        dx_query q = dx_use(c->tx, DX_message_tag);
        dx_put_text(&q, turn->lease);
        dx_put_int(&q, turn->messages[i].row_id);
        dx_run(&q);
        if (turn->messages[i].attempt > turn->attempt) turn->attempt = turn->messages[i].attempt;
    }
}

static void lease(dx_claim *c, const dx_claimed_turn *turn)
{
    dx_query q = dx_use(c->tx, DX_lease_put);
    dx_put_text(&q, turn->instance);
    dx_put_text(&q, turn->lease);
    dx_put_int(&q, c->now + c->appetite->lease_ms);
    dx_put_int(&q, c->now);
    dx_run(&q);
}

/* `kept`: the live lease that this owner has on it, n -1 for none. `born`: does it have a row? */
static void claim_instance(dx_claim *c, dx_str instance, dx_str kept, int born)
{
    static const dx_str none = {NULL, -1};
    dx_claimed_turn turn = {
        .instance = instance, .lease = kept.n >= 0 ? kept : dx_new_token(c->tx, c->appetite->owner),
        .name = none, .version = none, .status = none,
    };
    int64_t n;
    dx_claimed_message *batch = read_batch(c, instance, turn.lease, &n);
    if (n == 0 || c->tx->failed) return;
    if (born) read_turn(c, &turn);
    if (kept.n < 0 && turn.execution_id == 0 && !is_birth(c, instance, turn.lease, &batch, &n)) return;
    if (kept.n < 0 && is_between(c, &turn, batch, n)) return;
    turn.messages = batch;
    turn.n_messages = n;
    if (kept.n < 0) lease(c, &turn);
    tag(c, &turn);
    dx_claimed_turn *turns = dx_grow(c->tx, (void *)c->out->turns, c->out->n_turns, sizeof turn);
    if (turns == NULL) return;
    turns[c->out->n_turns++] = turn;
    c->out->turns = turns;
}

/* ── which instances ────────────────────────────────────────────────────────────────────────────────────── */

/* What others met and left to this owner's leases. */
static void claim_routed(dx_claim *c)
{
    dx_str owner = c->appetite->owner;
    char *from = dx_take(c->tx, (size_t)owner.n + 6), *below = dx_take(c->tx, (size_t)owner.n + 6);
    if (c->tx->failed) return;
    memcpy(from, "lock_", 5);
    if (owner.n) memcpy(from + 5, owner.p, (size_t)owner.n);
    memcpy(below, from, (size_t)owner.n + 5);
    from[5 + owner.n] = ':';
    below[5 + owner.n] = ':' + 1;
    dx_str at = {from, owner.n + 6}, end = {below, owner.n + 6};
    while (c->out->n_turns < c->appetite->turns && !c->tx->failed) {
        dx_query q = dx_use(c->tx, DX_message_routed);
        dx_put_text(&q, at);
        dx_put_text(&q, end);
        int found = dx_row(&q);
        dx_str instance = found ? dx_keep(&q, 0) : at, token = found ? dx_keep(&q, 1) : at;
        dx_finish(&q);
        if (!found) return;
        at = (dx_str){token.p, token.n + 1}; /* the copy ends in NUL: the next possible token */
        if (!dx_owns(owner, token)) continue;
        if (dx_lease_live(c->tx, instance, token, c->now)) claim_instance(c, instance, token, 1);
        else untag(c->tx, instance);
    }
}

static int fits(const dx_appetite *a, dx_query *q, int column)
{
    if (a->version_mode != DX_VERSIONS_RANGE || dx_is_null(q, column)) return 1;
    int64_t pin = dx_int(q, column);
    return pin >= a->versions[0] && pin <= a->versions[1];
}

typedef enum { PASS, CLAIM, CLAIM_KEPT, CLAIM_EXPIRED, ROUTE } dx_finding;
typedef struct { dx_finding finding; int born; int64_t row_id; dx_str instance, token; int64_t until; } dx_ready;

static dx_finding judge(const dx_claim *c, dx_query *q, dx_str token)
{
    int live = token.n >= 0 && dx_int(q, 4) > c->now;
    if (live && dx_owns(c->appetite->owner, token)) return CLAIM_KEPT;
    if (live && memchr(token.p, ':', (size_t)token.n)) return ROUTE;
    if (live || !fits(c->appetite, q, 5)) return PASS;
    return token.n >= 0 ? CLAIM_EXPIRED : CLAIM;
}

/* Is it among those found already? A claim takes all messages of its instance. */
static int found_before(const dx_ready *found, int64_t n, dx_str instance)
{
    while (n-- > 0)
        if (found[n].finding != ROUTE && dx_same(found[n].instance, instance)) return 1;
    return 0;
}

/* The next ready rows that ask for something to be done, one for each instance to be claimed; moves the frontier over the others. */
static int64_t look(dx_claim *c, dx_frontier *f, dx_ready *found, int64_t room)
{
    int64_t n = 0;
    dx_query q = dx_use(c->tx, DX_message_ready);
    dx_put_int(&q, f->visible_at);
    dx_put_int(&q, c->now);
    dx_put_int(&q, f->row_id);
    while (n < room && dx_row(&q)) {
        f->row_id = dx_int(&q, 0);
        f->visible_at = dx_int(&q, 1);
        dx_str token = dx_text(&q, 3);
        dx_finding finding = judge(c, &q, token);
        if (finding == PASS) f->passed++;
        if (finding == PASS || (finding != ROUTE && found_before(found, n, dx_text(&q, 2)))) continue;
        found[n++] = (dx_ready){finding, !dx_is_null(&q, 6), f->row_id, dx_keep(&q, 2), dx_copy(c->tx, token), dx_int(&q, 4)};
    }
    dx_finish(&q);
    return n;
}

static void route(dx_claim *c, const dx_ready *r)
{
    dx_query q = dx_use(c->tx, DX_message_route);
    dx_put_text(&q, r->token);
    dx_put_int(&q, r->until);
    dx_put_int(&q, r->row_id);
    dx_run(&q);
}

static void take_up(dx_claim *c, const dx_ready *r)
{
    if (r->finding == ROUTE) {
        route(c, r);
        return;
    }
    if (r->finding == CLAIM_EXPIRED) untag(c->tx, r->instance); /* the old holder's clock may be ahead: leave none behind */
    claim_instance(c, r->instance, r->finding == CLAIM_KEPT ? r->token : (dx_str){NULL, -1}, r->born);
}

static void claim_ready(dx_claim *c)
{
    dx_sqlite *store = c->tx->store;
    const dx_taken *out = c->out;
    const dx_appetite *a = c->appetite;
    dx_frontier *f = &store->frontier;
    int same = f->version_mode == a->version_mode && memcmp(f->versions, a->versions, sizeof f->versions) == 0;
    if (!same || f->passed < FRONTIER_AFTER || c->now < f->since || c->now >= f->since + FRONTIER_MS) {
        dx_forget_frontier(store);
        f->since = c->now;
        f->version_mode = a->version_mode;
        memcpy(f->versions, a->versions, sizeof f->versions);
    }
    dx_frontier at = *f; /* a copy: what runs below may make the store forget its own */
    while (out->n_turns < a->turns && !c->tx->failed) {
        int64_t room = a->turns - out->n_turns < LOOK_AT_ONCE ? a->turns - out->n_turns : LOOK_AT_ONCE;
        dx_ready *found = dx_take(c->tx, (size_t)room * sizeof *found);
        int64_t n = found ? look(c, &at, found, room) : 0;
        for (int64_t i = 0; i < n && !c->tx->failed; i++) take_up(c, &found[i]);
        if (n == 0) break;
    }
    *f = at;
}

static void find_next(dx_claim *c)
{
    static const dx_statement steps[2] = {DX_message_next, DX_lease_next};
    for (int i = 0; i < (c->appetite->sweep ? 2 : 1); i++) {
        dx_query q = dx_use(c->tx, steps[i]);
        dx_put_int(&q, c->now);
        if (dx_row(&q)) dx_come_due(c->out, dx_int(&q, 0));
        dx_finish(&q);
    }
}

void dx_claim_turns(dx_tx *tx, const dx_request *request, dx_taken *out)
{
    const dx_appetite *a = request->appetite;
    if (a->turns <= 0 || a->version_mode == DX_VERSIONS_NOTHING) return;
    dx_claim c = {tx, a, request->now, out};
    if (a->sweep) sweep(tx, c.now);
    claim_routed(&c);
    claim_ready(&c);
    if (!a->sweep && out->n_turns < a->turns && sweep(tx, c.now)) claim_ready(&c);
    find_next(&c);
}
