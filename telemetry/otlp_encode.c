/* Spans as an ExportTraceServiceRequest in JSON: the protobuf JSON mapping with lowerCamelCase
 * names, but for trace and span ids, which are in hexadecimal, and enums, which are numbers
 * (OTLP specification, "JSON Protobuf Encoding"). */
#include "raftstore/base/utf8.h"
#include "telemetry/otlp.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FLAG_HAS_IS_REMOTE 0x100
#define FLAG_IS_REMOTE     0x200

/* What is no UTF-8 becomes \xNN: a lock's name may have any bytes. */
static json_t *text_json(const char *text)
{
    json_t *value = json_string(text);
    if (value != NULL)
        return value;
    struct buf out = BUF_INIT;
    const uint8_t *p = (const uint8_t *)text;
    for (size_t left = strlen(text), n; left > 0; left -= n, p += n) {
        n = utf8_char(p, left);
        if (n > 0)
            buf_add(&out, p, n);
        else
            buf_printf(&out, "\\x%02x", *p);
        n += n == 0;
    }
    value = json_stringn((const char *)out.data, out.size);
    buf_deinit(&out);
    return value;
}

static json_t *u64_json(uint64_t value)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIu64, value);
    return json_string(text);
}

static json_t *i64_json(int64_t value)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRId64, value);
    return json_string(text);
}

static void add_attribute(json_t *list, const char *key, const char *text, int64_t number)
{
    json_t *value = text != NULL ? json_pack("{s:o}", "stringValue", text_json(text))
                                 : json_pack("{s:o}", "intValue", i64_json(number));
    (void)json_array_append_new(list, json_pack("{s:s, s:o}", "key", key, "value", value));
}

static json_t *event_json(const struct span_event *e)
{
    json_t *o = json_pack("{s:o, s:s}", "timeUnixNano", u64_json(e->wall_ns), "name", e->name);
    if (e->key != NULL) {
        json_t *attributes = json_array();
        add_attribute(attributes, e->key, NULL, e->number);
        (void)json_object_set_new(o, "attributes", attributes);
    }
    return o;
}

static json_t *status_json(const struct span *s)
{
    json_t *o = json_object();
    if (s->status != SPAN_UNSET)
        (void)json_object_set_new(o, "code", json_integer(s->status));
    if (s->status == SPAN_ERROR && s->status_text[0] != '\0')
        (void)json_object_set_new(o, "message", text_json(s->status_text));
    return o;
}

static json_t *span_json(const struct span *s)
{
    char hex[TRACE_ID_HEX + 1];
    json_t *o = json_object(), *attributes = json_array(), *events = json_array();
    (void)json_object_set_new(o, "traceId",
                              json_string(trace_hex(s->context.trace_id, TRACE_ID_BYTES, hex)));
    (void)json_object_set_new(o, "spanId",
                              json_string(trace_hex(s->context.span_id, TRACE_SPAN_ID_BYTES, hex)));
    if (s->has_parent)
        (void)json_object_set_new(o, "parentSpanId",
                                  json_string(trace_hex(s->parent_id, TRACE_SPAN_ID_BYTES, hex)));
    if (s->context.state[0] != '\0')
        (void)json_object_set_new(o, "traceState", json_string(s->context.state));
    (void)json_object_set_new(o, "flags",
                              json_integer(s->context.flags | FLAG_HAS_IS_REMOTE |
                                           (s->parent_is_remote ? FLAG_IS_REMOTE : 0)));
    (void)json_object_set_new(o, "name", json_string(s->name));
    (void)json_object_set_new(o, "kind", json_integer(s->kind));
    (void)json_object_set_new(o, "startTimeUnixNano", u64_json(s->begin_wall_ns));
    (void)json_object_set_new(o, "endTimeUnixNano", u64_json(s->end_wall_ns));
    for (unsigned i = 0; i < s->n_attributes; i++)
        add_attribute(attributes, s->attributes[i].key, s->attributes[i].text,
                      s->attributes[i].number);
    (void)json_object_set_new(o, "attributes", attributes);
    for (unsigned i = 0; i < s->n_events; i++)
        (void)json_array_append_new(events, event_json(&s->events[i]));
    (void)json_object_set_new(o, "events", events);
    (void)json_object_set_new(o, "status", status_json(s));
    return o;
}

static json_t *resource_json(const struct otlp_config *config)
{
    char host[256] = "";
    json_t *attributes = json_array();
    add_attribute(attributes, "service.name", config->service, 0);
    add_attribute(attributes, "service.version", HOLDFAST_VERSION, 0);
    if (config->instance != NULL)
        add_attribute(attributes, "service.instance.id", config->instance, 0);
    if (gethostname(host, sizeof host - 1) == 0)
        add_attribute(attributes, "host.name", host, 0);
    add_attribute(attributes, "process.pid", NULL, getpid());
    return json_pack("{s:o}", "attributes", attributes);
}

char *otlp_encode(const struct otlp_config *config, const struct span_list *spans)
{
    json_t *list = json_array();
    const struct span *s;
    TAILQ_FOREACH(s, spans, link)
    (void)json_array_append_new(list, span_json(s));
    json_t *root = json_pack("{s:[{s:o, s:[{s:{s:s, s:s}, s:o}]}]}", "resourceSpans", "resource",
                             resource_json(config), "scopeSpans", "scope", "name", "holdfast",
                             "version", HOLDFAST_VERSION, "spans", list);
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (text == NULL)
        abort(); /* Out of memory: every string in it is UTF-8. */
    return text;
}
