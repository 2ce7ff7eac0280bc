/* A stored event's JSON text: where its values stand, found in one pass and without decoding one.
 *
 * Owns the one shape in which events are written (compact, keys in their order). Any other text is "not of this shape", which says
 * nothing about it: whoever asked reads it with a full JSON reader. Knows no Python, no values and no rules of replay. */
#ifndef DUROXIDE_EVENT_TEXT_H
#define DUROXIDE_EVENT_TEXT_H

#include <stdint.h>

/* In the order of `KINDS` in duroxide/events.py. */
enum dx_event_kind {
    DX_ORCHESTRATION_STARTED, DX_ORCHESTRATION_COMPLETED, DX_ORCHESTRATION_FAILED,
    DX_ACTIVITY_SCHEDULED, DX_ACTIVITY_COMPLETED, DX_ACTIVITY_FAILED, DX_ACTIVITY_CANCEL_REQUESTED,
    DX_TIMER_CREATED, DX_TIMER_FIRED,
    DX_EXTERNAL_SUBSCRIBED, DX_EXTERNAL_EVENT, DX_EXTERNAL_SUBSCRIBED_CANCELLED,
    DX_QUEUE_SUBSCRIBED, DX_QUEUE_EVENT, DX_QUEUE_SUBSCRIBED_CANCELLED,
    DX_CHILD_SCHEDULED, DX_CHILD_COMPLETED, DX_CHILD_FAILED, DX_CHILD_CANCEL_REQUESTED,
    DX_CHAINED, DX_CONTINUED_AS_NEW, DX_CANCEL_REQUESTED, DX_STATUS_UPDATED,
    DX_KV_SET, DX_KV_CLEARED, DX_KV_ALL_CLEARED,
    DX_KINDS
};

/* A text value between its quotes, escapes as they stand. `size` -1: there is none, or null. */
typedef struct dx_span {
    int32_t at, size;
    int32_t escaped; /* has a backslash */
} dx_span;

enum dx_slot { DX_NAME, DX_PAYLOAD, DX_WHERE, DX_TAG, DX_SLOTS };

typedef struct dx_event {
    const char *text;
    int64_t id;
    int64_t source; /* -1: null */
    int64_t number; /* fire_at_ms, last_updated_at_ms */
    /* DX_NAME: name, key. DX_PAYLOAD: input, result, data, value, status, reason. DX_WHERE: instance, session_id. DX_TAG: tag. */
    dx_span slots[DX_SLOTS];
    int32_t kind;
    int32_t other; /* for the reader of other shapes; -1 */
} dx_event;

/* What the events of one execution have in common and in the same place: compared, not scanned again. Start from zeros. */
typedef struct dx_scanner {
    const char *head, *stamp;
    int64_t head_size, stamp_size;
} dx_scanner;

/* 1 and *out filled if `text` (valid UTF-8) is an event of the shape; else 0. The texts scanned before must still be there. */
int dx_scan_event(dx_scanner *scanner, const char *text, int64_t size, dx_event *out);

/* Whether the value is `plain`: 1 yes, 0 no, -1 cannot be told here (it has a \u escape). */
int dx_span_equals(const dx_event *event, int32_t slot, const char *plain, int64_t size);

/* The value into `to` (room for its `size`); its length in bytes, or -1 (it has a \u escape). */
int64_t dx_unescape(const char *from, int64_t size, char *to);

#endif
