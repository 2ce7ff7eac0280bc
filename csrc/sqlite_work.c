/* Claims of work items: by tag, by session, oldest first. Cost follows what is taken and the tags and sessions, not the queue. */
#include "sqlite_store.h"

#include <stdlib.h>
#include <string.h>

enum { SWEEP_LIMIT = 256 };

typedef struct { int64_t visible_at, row_id; dx_str session; } dx_candidate;

typedef struct {
    dx_tx *tx;
    const dx_appetite *appetite;
    int64_t now;
    dx_taken *out;
    dx_candidate *found; int64_t n_found;
    dx_str *opened;      int64_t n_opened; /* sessions claimed by this very claim */
} dx_hunt;

static void add(dx_hunt *h, int64_t visible_at, int64_t row_id, dx_str session)
{
    if ((h->found = dx_grow(h->tx, h->found, h->n_found, sizeof *h->found)) == NULL) return;
    h->found[h->n_found++] = (dx_candidate){visible_at, row_id, session};
}

/* ── work without a session ─────────────────────────────────────────────────────────────────────────────── */

static void hunt_tag(dx_hunt *h, dx_str tag)
{
    dx_query q = dx_use(h->tx, DX_work_ready);
    dx_put_text(&q, tag);
    dx_put_int(&q, h->now);
    dx_put_int(&q, h->appetite->work);
    while (dx_row(&q)) add(h, dx_int(&q, 1), dx_int(&q, 0), (dx_str){NULL, -1});
    dx_finish(&q);
    q = dx_use(h->tx, DX_work_next);
    dx_put_text(&q, tag);
    dx_put_int(&q, h->now);
    if (dx_row(&q)) dx_come_due(h->out, dx_int(&q, 0));
    dx_finish(&q);
}

/* The first tag or session from `from` on that has ready rows. The copy ends in NUL, so n + 1 makes it the next possible text. */
static int next_text(dx_hunt *h, dx_statement which, dx_str *from)
{
    dx_query q = dx_use(h->tx, which);
    dx_put_text(&q, *from);
    int found = dx_row(&q);
    if (found) *from = dx_keep(&q, 0);
    dx_finish(&q);
    return found && !h->tx->failed;
}

static void hunt_tags(dx_hunt *h)
{
    const dx_appetite *a = h->appetite;
    if (a->tag_mode != DX_TAGS_ONLY) hunt_tag(h, (dx_str){NULL, -1});
    if (a->tag_mode == DX_TAGS_ONLY || a->tag_mode == DX_TAGS_AND_DEFAULT)
        for (int64_t i = 0; i < a->n_tags && !h->tx->failed; i++) hunt_tag(h, a->tags[i]);
    if (a->tag_mode == DX_TAGS_ANY)
        for (dx_str tag = {"", 0}; next_text(h, DX_work_tag, &tag); tag.n++) hunt_tag(h, tag);
}

/* ── work of sessions ───────────────────────────────────────────────────────────────────────────────────── */

static int serves(const dx_appetite *a, dx_str tag)
{
    if (a->tag_mode == DX_TAGS_ANY) return 1;
    if (tag.n < 0) return a->tag_mode != DX_TAGS_ONLY;
    if (a->tag_mode == DX_TAGS_DEFAULT) return 0;
    for (int64_t i = 0; i < a->n_tags; i++)
        if (dx_same(a->tags[i], tag)) return 1;
    return 0;
}

static int among(dx_str text, const dx_str *list, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (dx_same(list[i], text)) return 1;
    return 0;
}

/* Nobody holds it live, or this owner does. */
static int session_free(dx_hunt *h, dx_str session)
{
    dx_query q = dx_use(h->tx, DX_session_get);
    dx_put_text(&q, session);
    int taken = dx_row(&q) && dx_int(&q, 1) > h->now && !dx_same(dx_text(&q, 0), h->appetite->session_owner);
    dx_finish(&q);
    return !taken;
}

static void hunt_session(dx_hunt *h, dx_str session)
{
    dx_query q = dx_use(h->tx, DX_work_of_session);
    dx_put_text(&q, session);
    for (int64_t n = 0; n < h->appetite->work && dx_row(&q);) {
        if (!serves(h->appetite, dx_text(&q, 2))) continue;
        int64_t visible_at = dx_int(&q, 1);
        if (visible_at > h->now) {
            dx_come_due(h->out, visible_at);
            break;
        }
        add(h, visible_at, dx_int(&q, 0), session);
        n++;
    }
    dx_finish(&q);
}

static void hunt_sessions(dx_hunt *h)
{
    const dx_appetite *a = h->appetite;
    for (dx_str session = {"", 0}; next_text(h, DX_work_session, &session); session.n++)
        if ((a->session_room > 0 || among(session, a->sessions, a->n_sessions)) && session_free(h, session))
            hunt_session(h, session);
}

/* ── taking ─────────────────────────────────────────────────────────────────────────────────────────────── */

static int oldest_first(const void *a, const void *b)
{
    const dx_candidate *x = a, *y = b;
    if (x->visible_at != y->visible_at) return x->visible_at < y->visible_at ? -1 : 1;
    return (x->row_id > y->row_id) - (x->row_id < y->row_id);
}

/* Claims or refreshes the session; 0 if there is no room for one more. */
static int open_session(dx_hunt *h, dx_str session)
{
    const dx_appetite *a = h->appetite;
    if (among(session, h->opened, h->n_opened)) return 1;
    int64_t fresh = 0;
    for (int64_t i = 0; i < h->n_opened; i++) fresh += !among(h->opened[i], a->sessions, a->n_sessions);
    if (!among(session, a->sessions, a->n_sessions) && fresh >= a->session_room) return 0;
    if ((h->opened = dx_grow(h->tx, h->opened, h->n_opened, sizeof *h->opened)) == NULL) return 0;
    h->opened[h->n_opened++] = session;
    dx_query q = dx_use(h->tx, DX_session_put);
    dx_put_text(&q, session);
    dx_put_text(&q, a->session_owner);
    dx_put_int(&q, h->now + a->session_lock_ms);
    dx_put_int(&q, h->now);
    dx_run(&q);
    return 1;
}

static void take(dx_hunt *h, int64_t row_id)
{
    dx_claimed_work *all = dx_grow(h->tx, (void *)h->out->work, h->out->n_work, sizeof *all);
    if (all == NULL) return;
    dx_claimed_work *work = &all[h->out->n_work];
    h->out->work = all;
    dx_query q = dx_use(h->tx, DX_work_row);
    dx_put_int(&q, row_id);
    if (dx_row(&q))
        *work = (dx_claimed_work){
            .row_id = row_id, .item = dx_keep(&q, 0), .attempt = dx_int(&q, 1) + 1, .instance = dx_keep(&q, 2),
            .session_id = dx_keep(&q, 3), .tag = dx_keep(&q, 4), .name = dx_keep(&q, 5), .version = dx_keep(&q, 6),
        };
    dx_finish(&q);
    work->token = dx_new_token(h->tx, h->appetite->owner);
    q = dx_use(h->tx, DX_work_lock);
    dx_put_text(&q, work->token);
    dx_put_int(&q, h->now + h->appetite->work_lease_ms);
    dx_put_int(&q, row_id);
    dx_run(&q);
    h->out->n_work++;
}

static int64_t expire(dx_hunt *h)
{
    dx_query q = dx_use(h->tx, DX_work_expire);
    dx_put_int(&q, h->now);
    dx_put_int(&q, SWEEP_LIMIT);
    return dx_run(&q);
}

static void hunt(dx_hunt *h)
{
    h->n_found = 0;
    hunt_tags(h);
    if (h->appetite->session_owner.n >= 0) hunt_sessions(h);
    if (h->n_found > 1 && !h->tx->failed) qsort(h->found, (size_t)h->n_found, sizeof *h->found, oldest_first);
    for (int64_t i = 0; i < h->n_found && h->out->n_work < h->appetite->work && !h->tx->failed; i++)
        if (h->found[i].session.n < 0 || open_session(h, h->found[i].session)) take(h, h->found[i].row_id);
}

void dx_claim_work(dx_tx *tx, const dx_request *request, dx_taken *out)
{
    const dx_appetite *a = request->appetite;
    if (a->work <= 0 || a->tag_mode == DX_TAGS_NONE) return;
    dx_hunt h = {.tx = tx, .appetite = a, .now = request->now, .out = out};
    if (a->sweep) expire(&h);
    hunt(&h);
    if (!a->sweep && out->n_work < a->work && expire(&h) > 0) hunt(&h);
    if (!a->sweep) return;
    dx_query q = dx_use(tx, DX_work_lease_next);
    dx_put_int(&q, h.now);
    if (dx_row(&q)) dx_come_due(out, dx_int(&q, 0));
    dx_finish(&q);
}
