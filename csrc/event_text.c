/* The scanner of event_text.h: a table of what each kind's fields are, and a pass over the text that follows it. */
#include "event_text.h"

#include <stddef.h>
#include <string.h>

/* Of a field: its value is text, text or null, an integer. */
enum { TEXT, TEXT_OR_NULL, INTEGER };

typedef struct field {
    const char *key; /* with what stands around it */
    int32_t size;
    int8_t type, slot, optional;
} field;

typedef struct shape {
    const char *type; /* with the quote behind it */
    int32_t size, kind, has_source;
    field fields[4];
} shape;

#define KEY(name) ",\"" name "\":", sizeof(",\"" name "\":") - 1
#define TYPE(name) name "\"", sizeof(name)
#define INPUT {KEY("input"), TEXT, DX_PAYLOAD, 0}
#define NAME {KEY("name"), TEXT, DX_NAME, 0}
#define REASON {KEY("reason"), TEXT, DX_PAYLOAD, 0}
#define RESULT {KEY("result"), TEXT, DX_PAYLOAD, 0}
#define FIRE_AT {KEY("fire_at_ms"), INTEGER, 0, 0}

/* The frequent ones first. Starts, ends and failures are not here: they come once, or with nested values. */
static const shape SHAPES[] = {
    {TYPE("ActivityScheduled"), DX_ACTIVITY_SCHEDULED, 0,
     {NAME, INPUT, {KEY("session_id"), TEXT, DX_WHERE, 1}, {KEY("tag"), TEXT, DX_TAG, 1}}},
    {TYPE("ActivityCompleted"), DX_ACTIVITY_COMPLETED, 1, {RESULT}},
    {TYPE("TimerCreated"), DX_TIMER_CREATED, 0, {FIRE_AT}},
    {TYPE("TimerFired"), DX_TIMER_FIRED, 1, {FIRE_AT}},
    {TYPE("ExternalSubscribedPersistent"), DX_QUEUE_SUBSCRIBED, 0, {NAME}},
    {TYPE("ExternalEventPersistent"), DX_QUEUE_EVENT, 0, {NAME, {KEY("data"), TEXT, DX_PAYLOAD, 0}}},
    {TYPE("SubOrchestrationScheduled"), DX_CHILD_SCHEDULED, 0, {NAME, {KEY("instance"), TEXT, DX_WHERE, 0}, INPUT}},
    {TYPE("SubOrchestrationCompleted"), DX_CHILD_COMPLETED, 1, {RESULT}},
    {TYPE("KeyValueSet"), DX_KV_SET, 0,
     {{KEY("key"), TEXT, DX_NAME, 0}, {KEY("value"), TEXT, DX_PAYLOAD, 0}, {KEY("last_updated_at_ms"), INTEGER, 0, 0}}},
    {TYPE("CustomStatusUpdated"), DX_STATUS_UPDATED, 0, {{KEY("status"), TEXT_OR_NULL, DX_PAYLOAD, 0}}},
    {TYPE("ExternalSubscribed"), DX_EXTERNAL_SUBSCRIBED, 0, {NAME}},
    {TYPE("ExternalEvent"), DX_EXTERNAL_EVENT, 0, {NAME, {KEY("data"), TEXT, DX_PAYLOAD, 0}}},
    {TYPE("ActivityCancelRequested"), DX_ACTIVITY_CANCEL_REQUESTED, 1, {REASON}},
    {TYPE("ExternalSubscribedCancelled"), DX_EXTERNAL_SUBSCRIBED_CANCELLED, 1, {REASON}},
    {TYPE("ExternalSubscribedPersistentCancelled"), DX_QUEUE_SUBSCRIBED_CANCELLED, 1, {REASON}},
    {TYPE("SubOrchestrationCancelRequested"), DX_CHILD_CANCEL_REQUESTED, 1, {REASON}},
    {TYPE("OrchestrationChained"), DX_CHAINED, 0, {NAME, {KEY("instance"), TEXT, DX_WHERE, 0}, INPUT}},
    {TYPE("OrchestrationCancelRequested"), DX_CANCEL_REQUESTED, 0, {REASON}},
    {TYPE("KeyValueCleared"), DX_KV_CLEARED, 0, {{KEY("key"), TEXT, DX_NAME, 0}}},
    {TYPE("KeyValuesCleared"), DX_KV_ALL_CLEARED, 0, {{NULL, 0, 0, 0, 0}}},
};

static int starts(const char *at, const char *end, const char *what, int64_t size)
{
    return end - at >= size && memcmp(at, what, (size_t)size) == 0;
}

/* Over a literal, or NULL. */
#define OVER(at, end, literal) (starts(at, end, literal, sizeof(literal) - 1) ? (at) + sizeof(literal) - 1 : NULL)

/* Over a non-negative integer of at most 18 digits, or NULL. What follows is looked at by the caller, so 1.5 and 1e5 are none. */
static const char *over_integer(const char *at, const char *end, int64_t *out)
{
    const char *start = at;
    int64_t value = 0;
    while (at < end && at - start < 18 && *at >= '0' && *at <= '9')
        value = value * 10 + (*at++ - '0');
    if (at == start || (at - start > 1 && *start == '0'))
        return NULL;
    *out = value;
    return at;
}

static int is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Over the escape at a backslash, or NULL if it is none of JSON's. */
static const char *over_escape(const char *at, const char *end)
{
    if (end - at < 2)
        return NULL;
    switch (at[1]) {
    case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
        return at + 2;
    case 'u':
        return end - at >= 6 && is_hex(at[2]) && is_hex(at[3]) && is_hex(at[4]) && is_hex(at[5]) ? at + 6 : NULL;
    default:
        return NULL;
    }
}

#define EACH(byte) ((byte) * UINT64_C(0x0101010101010101))

/* Whether one of these eight bytes is a quote, a backslash or a control character. */
static int holds_special(const char *at)
{
    uint64_t bytes, quote, slash;
    memcpy(&bytes, at, 8);
    quote = bytes ^ EACH('"');
    slash = bytes ^ EACH('\\');
    return (((quote - EACH(1)) & ~quote) | ((slash - EACH(1)) & ~slash) | ((bytes - EACH(0x20)) & ~bytes)) & EACH(0x80) ? 1 : 0;
}

/* To the quote that ends the text value which begins at `at`, or NULL. */
static const char *to_quote(const char *at, const char *end, int32_t *escaped)
{
    *escaped = 0;
    while (at < end) {
        while (end - at >= 8 && !holds_special(at))
            at += 8;
        while (at < end && *at != '"' && *at != '\\' && (unsigned char)*at >= 0x20)
            at++;
        if (at == end || (unsigned char)*at < 0x20)
            return NULL;
        if (*at == '"')
            return at;
        *escaped = 1;
        at = over_escape(at, end);
        if (at == NULL)
            return NULL;
    }
    return NULL;
}

/* Over `,"instance_id":"...","execution_id":N,"timestamp_ms":`, which is the same in all events of an execution. */
static const char *over_head(dx_scanner *scanner, const char *at, const char *end)
{
    const char *start = at;
    int64_t ignored;
    int32_t escaped;
    if (scanner->head != NULL && starts(at, end, scanner->head, scanner->head_size))
        return at + scanner->head_size;
    if ((at = OVER(at, end, ",\"instance_id\":\"")) == NULL || (at = to_quote(at, end, &escaped)) == NULL)
        return NULL;
    if ((at = OVER(at, end, "\",\"execution_id\":")) == NULL || (at = over_integer(at, end, &ignored)) == NULL)
        return NULL;
    if ((at = OVER(at, end, ",\"timestamp_ms\":")) == NULL)
        return NULL;
    scanner->head = start;
    scanner->head_size = at - start;
    return at;
}

/* Over `,"duroxide_version":"...","type":"`. */
static const char *over_stamp(dx_scanner *scanner, const char *at, const char *end)
{
    const char *start = at;
    int32_t escaped;
    if (scanner->stamp != NULL && starts(at, end, scanner->stamp, scanner->stamp_size))
        return at + scanner->stamp_size;
    if ((at = OVER(at, end, ",\"duroxide_version\":\"")) == NULL || (at = to_quote(at, end, &escaped)) == NULL)
        return NULL;
    if ((at = OVER(at, end, "\",\"type\":\"")) == NULL)
        return NULL;
    scanner->stamp = start;
    scanner->stamp_size = at - start;
    return at;
}

static const char *over_field(const field *f, const char *at, const char *end, dx_event *out)
{
    dx_span *span = &out->slots[f->slot];
    if (!starts(at, end, f->key, f->size))
        return f->optional ? at : NULL;
    at += f->size;
    if (f->type == INTEGER)
        return over_integer(at, end, &out->number);
    if (f->type == TEXT_OR_NULL && starts(at, end, "null", 4))
        return at + 4;
    if (at == end || *at != '"')
        return NULL;
    at++;
    span->at = (int32_t)(at - out->text);
    if ((at = to_quote(at, end, &span->escaped)) == NULL)
        return NULL;
    span->size = (int32_t)(at - out->text) - span->at;
    return at + 1;
}

static const shape *shape_at(const char *at, const char *end)
{
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        if (starts(at, end, SHAPES[i].type, SHAPES[i].size))
            return &SHAPES[i];
    return NULL;
}

int dx_scan_event(dx_scanner *scanner, const char *text, int64_t size, dx_event *out)
{
    const char *at = text, *end = text + size;
    const shape *found;
    int64_t ignored;
    if (size > INT32_MAX)
        return 0;
    *out = (dx_event){.text = text, .source = -1, .other = -1};
    for (int slot = 0; slot < DX_SLOTS; slot++)
        out->slots[slot].size = -1;
    if ((at = OVER(at, end, "{\"event_id\":")) == NULL || (at = over_integer(at, end, &out->id)) == NULL)
        return 0;
    if ((at = OVER(at, end, ",\"source_event_id\":")) == NULL)
        return 0;
    at = starts(at, end, "null", 4) ? at + 4 : over_integer(at, end, &out->source);
    if (at == NULL || (at = over_head(scanner, at, end)) == NULL || (at = over_integer(at, end, &ignored)) == NULL)
        return 0;
    if ((at = over_stamp(scanner, at, end)) == NULL || (found = shape_at(at, end)) == NULL || (found->has_source && out->source < 0))
        return 0;
    at += found->size;
    out->kind = found->kind;
    for (const field *f = found->fields; f < found->fields + 4 && f->key != NULL; f++)
        if ((at = over_field(f, at, end, out)) == NULL)
            return 0;
    return end - at == 1 && *at == '}';
}

/* What the escape at a backslash stands for; -1 for \u. Its letter is one of JSON's. */
static int unescaped(const char *at)
{
    switch (at[1]) {
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'u': return -1;
    default: return at[1];
    }
}

int dx_span_equals(const dx_event *event, int32_t slot, const char *plain, int64_t size)
{
    const dx_span *span = &event->slots[slot];
    const char *at = event->text + span->at, *end = at + span->size, *plain_end = plain + size;
    if (!span->escaped)
        return span->size == size && memcmp(at, plain, (size_t)size) == 0;
    while (at < end) {
        int c = (unsigned char)*at;
        if (c == '\\') {
            if ((c = unescaped(at)) < 0)
                return -1;
            at++;
        }
        if (plain == plain_end || (unsigned char)*plain != c)
            return 0;
        at++, plain++;
    }
    return plain == plain_end;
}

int64_t dx_unescape(const char *from, int64_t size, char *to)
{
    const char *end = from + size;
    char *start = to;
    while (from < end) {
        const char *slash = memchr(from, '\\', (size_t)(end - from));
        size_t plain = (size_t)((slash == NULL ? end : slash) - from);
        int c;
        memcpy(to, from, plain);
        to += plain, from += plain;
        if (slash == NULL)
            break;
        if ((c = unescaped(from)) < 0)
            return -1;
        *to++ = (char)c;
        from += 2;
    }
    return to - start;
}
