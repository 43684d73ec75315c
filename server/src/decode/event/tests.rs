//! Events of every call against tables of several shapes.

use std::sync::Arc;

use arrow::datatypes::Schema;
use catalog::SqlType;
use chrono::TimeZone;
use serde_json::{Value, json};

use super::*;
use crate::types;

fn columns(names: &[(&str, SqlType)]) -> SchemaRef {
    let fields = names.iter().map(|(n, ty)| types::field(n, ty, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn received() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 5, 1, 12, 0, 0).unwrap()
}

fn row(columns: &SchemaRef, call: &str, event: &Value) -> Result<Value> {
    let text = event.to_string();
    let raw: &RawValue = serde_json::from_str(&text).unwrap();
    let row = Layout::new(columns, Some("ts")).row(raw, &Common::alone(call, received()))?;
    Ok(serde_json::from_str(&row).unwrap())
}

fn full() -> SchemaRef {
    columns(&[
        ("message_id", SqlType::Text),
        ("type", SqlType::Text),
        ("event", SqlType::Text),
        ("event_type", SqlType::Text),
        ("user_id", SqlType::Text),
        ("anonymous_id", SqlType::Text),
        ("ts", SqlType::Timestamptz),
        ("sent_at", SqlType::Timestamptz),
        ("received_at", SqlType::Timestamptz),
        ("context", SqlType::Jsonb),
        ("context_page_url", SqlType::Text),
        ("properties", SqlType::Jsonb),
        ("order_total", SqlType::Float8),
    ])
}

#[test]
fn a_track_call_fills_the_columns() {
    let event = json!({
        "userId": 42, "event": "Order Completed", "messageId": "m-1",
        "properties": {"orderTotal": 9.5, "sku": "a"},
        "context": {"page": {"url": "https://x.y/"}, "userAgent": "u"},
        "timestamp": "2026-05-01T10:00:00.250Z", "sentAt": "2026-05-01T10:00:05.250Z",
        "shoeSize": 44, "integrations": {"All": true},
    });
    let row = row(&full(), "track", &event).unwrap();
    assert_eq!(
        row,
        json!({
            "message_id": "m-1", "type": "track", "event": "Order Completed",
            "event_type": "Order Completed", "user_id": "42",
            "ts": "2026-05-01T11:59:55.000000Z", "sent_at": "2026-05-01T10:00:05.250000Z",
            "received_at": "2026-05-01T12:00:00.000000Z",
            "context": {"page": {"url": "https://x.y/"}, "userAgent": "u", "shoeSize": 44},
            "context_page_url": "https://x.y/",
            "properties": {"orderTotal": 9.5, "sku": "a"}, "order_total": 9.5,
        })
    );
}

#[test]
fn traits_go_to_properties_where_they_have_no_column() {
    let event = json!({"userId": "u", "traits": {"email": "a@b.c"}, "messageId": "m"});
    let found = row(&full(), "identify", &event).unwrap();
    assert_eq!(found["properties"], json!({"email": "a@b.c"}));
    assert_eq!(found["event_type"], "identify");
    assert_eq!(found["ts"], found["received_at"]);
    let small = columns(&[("user_id", SqlType::Text), ("email", SqlType::Text)]);
    let found = row(&small, "identify", &event).unwrap();
    assert_eq!(found, json!({"user_id": "u", "email": "a@b.c"}));
}

#[test]
fn what_a_user_made_up_is_never_lost() {
    let small = columns(&[("user_id", SqlType::Text)]);
    let lost = [
        (
            "track",
            json!({"userId": "u", "event": "e", "properties": {"a": 1}}),
        ),
        ("identify", json!({"userId": "u", "traits": {"a": 1}})),
        ("page", json!({"userId": "u", "custom": 1})),
    ];
    for (call, event) in lost {
        let e = row(&small, call, &event).unwrap_err();
        assert_eq!(e.state(), SqlState::UNDEFINED_COLUMN, "{call}");
    }
    let kept = columns(&[("user_id", SqlType::Text), ("properties", SqlType::Jsonb)]);
    let event = json!({"userId": "u", "event": "e", "properties": {"a": 1}, "b": [2]});
    let found = row(&kept, "track", &event).unwrap();
    assert_eq!(found["properties"], json!({"a": 1, "b": [2]}));
}

#[test]
fn a_uuid_column_takes_every_message_id() {
    let ids = columns(&[("event_id", SqlType::Uuid)]);
    let of = |id: &str| {
        let event = json!({"userId": "u", "event": "e", "messageId": id});
        row(&ids, "track", &event).unwrap()["event_id"].clone()
    };
    let uuid = "6f1c1d1e-7e0a-4a29-9d0b-0d9f0c7a2b11";
    assert_eq!(of(uuid), uuid);
    assert_eq!(of("node-next-1-x"), of("node-next-1-x"));
    assert_ne!(of("node-next-1-x"), of("node-next-1-y"));
    let nameless = json!({"userId": "u", "event": "e"});
    let made_up = row(&ids, "track", &nameless).unwrap();
    assert!(Uuid::parse_str(made_up["event_id"].as_str().unwrap()).is_ok());
}

#[test]
fn what_segment_requires_is_required() {
    for (call, event, what) in [
        ("track", json!({"userId": "u"}), "\"event\""),
        ("track", json!({"event": "e"}), "\"userId\""),
        ("group", json!({"userId": "u"}), "\"groupId\""),
        ("alias", json!({"userId": "u"}), "\"previousId\""),
        ("page", json!({"anonymousId": ""}), "\"anonymousId\""),
        ("page", json!([1]), "object"),
        (
            "page",
            json!({"userId": "u", "properties": 5}),
            "\"properties\"",
        ),
    ] {
        let e = row(&full(), call, &event).unwrap_err();
        assert!(e.report().message.contains(what), "{}", e.report().message);
    }
    let alias = json!({"userId": "u", "previousId": "p"});
    assert!(row(&full(), "alias", &alias).is_ok());
}

#[test]
fn a_batch_shares_its_context_and_its_clock() {
    let text = json!({
        "batch": [], "sentAt": "2026-05-01T10:00:00Z", "context": {"ip": "1.2.3.4", "a": 1},
    })
    .to_string();
    let whole: Object<'_> = serde_json::from_str(&text).unwrap();
    let common = Common::of(&whole, received());
    let event = json!({
        "type": "page", "anonymousId": "a", "context": {"a": 2},
        "originalTimestamp": "2026-05-01T09:00:00Z", "timestamp": "2020-01-01T00:00:00Z",
    })
    .to_string();
    let raw: &RawValue = serde_json::from_str(&event).unwrap();
    let columns = full();
    let layout = Layout::new(&columns, None);
    let row: Value = serde_json::from_str(&layout.row(raw, &common).unwrap()).unwrap();
    assert_eq!(row["context"], json!({"a": 2, "ip": "1.2.3.4"}));
    assert_eq!(row["ts"], "2026-05-01T11:00:00.000000Z");
    let unknown: &RawValue = serde_json::from_str(r#"{"type":"x","userId":"u"}"#).unwrap();
    assert!(layout.row(unknown, &common).is_err());
}

#[test]
fn names_become_snake_case() {
    for (name, expected) in [
        ("userAgent", "user_agent"),
        ("Order ID", "order_id"),
        ("already_snake", "already_snake"),
        ("HTTPCode", "httpcode"),
    ] {
        assert_eq!(snake(name), expected);
    }
}

#[test]
fn no_value_gives_way_to_another_of_its_name_unless_it_has_another_place() {
    let small = columns(&[
        ("ts", SqlType::Timestamptz),
        ("order_total", SqlType::Float8),
    ]);
    let two = |a: Value, b: Value| json!({"userId": "u", "event": "e", "properties": {"orderTotal": a, "order_total": b}});
    let e = row(&small, "track", &two(json!(1.5), json!(2.5))).unwrap_err();
    assert_eq!(e.state(), SqlState::DUPLICATE_COLUMN);
    for event in [two(json!(1.5), json!(1.5)), two(json!(null), json!(1.5))] {
        assert_eq!(row(&small, "track", &event).unwrap()["order_total"], 1.5);
    }
    let kept = row(&full(), "track", &two(json!(1.5), json!(2.5))).unwrap();
    assert_eq!(
        kept["properties"],
        json!({"orderTotal": 1.5, "order_total": 2.5})
    );
    // a trait beside a property, a field of the user's own beside one of the context
    let event = json!({"userId": "u", "properties": {"plan": "a"}, "traits": {"plan": "b"}});
    assert!(row(&full(), "identify", &event).is_err());
    let event = json!({"userId": "u", "event": "e", "context": {"ip": 1}, "ip": 2});
    assert!(row(&full(), "track", &event).is_err());
}

fn growing(names: &[(&str, SqlType)]) -> SchemaRef {
    Arc::new(Evolution::Add.marking(columns(names).as_ref().clone()))
}

#[test]
fn what_has_no_column_goes_under_names_that_find_it_again() {
    let table = growing(&[
        ("user_id", SqlType::Text),
        ("plan", SqlType::Text),
        ("context_app", SqlType::Jsonb),
        ("context_page_url", SqlType::Text),
    ]);
    let event = json!({
        "userId": "u", "event": "e", "channel": "web", "shoeSize": 44, "nothing": null,
        "properties": {"orderTotal": 1.5, "type": "x", "User ID": 7, "none": null, "o": {"k": [1]}},
        "traits": {"plan": "pro", "context_ip": 1},
        "context": {
            "ip": "::1", "app": {"name": "a"}, "pageViews": 3,
            "page": {"url": "/", "path": "p", "query": {"deep": {"er": 1}}},
        },
    });
    let expected = json!({
        "user_id": "u", "plan": "pro", "context_app": {"name": "a"}, "context_page_url": "/",
        "shoe_size": 44, "order_total": 1.5, "properties_type": "x", "properties_user_id": 7,
        "o": {"k": [1]}, "traits_context_ip": 1, "context_ip": "::1", "context_page_views": 3,
        "context_page_path": "p", "context_page_query": {"deep": {"er": 1}},
    });
    assert_eq!(row(&table, "track", &event).unwrap(), expected);

    // where there is a place, there it goes
    let table = growing(&[
        ("user_id", SqlType::Text),
        ("properties", SqlType::Jsonb),
        ("context", SqlType::Jsonb),
    ]);
    let found = row(&table, "track", &event).unwrap();
    assert_eq!(found.as_object().unwrap().len(), 3);
    assert_eq!(found["context"]["shoeSize"], 44);

    // one place for two values
    let two = json!({"userId": "u", "event": "e", "properties": {"a-b": 1, "a b": 2}});
    let e = row(&growing(&[]), "track", &two).unwrap_err();
    assert_eq!(e.state(), SqlState::DUPLICATE_COLUMN);
}

#[test]
fn a_deep_context_is_not_followed() {
    let mut context = json!(1);
    for _ in 0..100 {
        context = json!({"a": context});
    }
    let event = json!({"userId": "u", "context": context});
    let found = row(&growing(&[]), "page", &event).unwrap();
    let names: Vec<_> = found.as_object().unwrap().keys().collect();
    assert_eq!(names, ["context_a_a"]);
}

#[test]
fn a_time_that_is_none_is_not_another() {
    for (name, value) in [
        ("timestamp", json!("soon")),
        ("originalTimestamp", json!({})),
        ("sentAt", json!("")),
        ("timestamp", json!(true)),
    ] {
        let mut event = json!({"userId": "u", "event": "e"});
        event[name] = value;
        let e = row(&full(), "track", &event).unwrap_err();
        assert_eq!(e.state(), SqlState::INVALID_DATETIME_FORMAT, "{event}");
    }
    let event = json!({"userId": "u", "event": "e", "timestamp": null, "sentAt": 5});
    assert!(row(&full(), "track", &event).is_ok());
}

#[test]
fn what_an_event_shared_is_read_again() {
    let text = json!({
        "batch": [], "sentAt": "2026-05-01T10:00:00Z", "context": {"ip": "1.2.3.4"},
        "integrations": {"All": false},
    })
    .to_string();
    let whole: Object<'_> = serde_json::from_str(&text).unwrap();
    let batch = Common::of(&whole, received());
    let alone = Common::alone("track", received());
    let table = columns(&[
        ("event", SqlType::Text),
        ("ts", SqlType::Timestamptz),
        ("sent_at", SqlType::Timestamptz),
        ("received_at", SqlType::Timestamptz),
        ("context", SqlType::Jsonb),
        ("integrations", SqlType::Jsonb),
    ]);
    let event = json!({
        "type": "track", "userId": "u", "event": "e", "timestamp": "2026-05-01T09:00:00Z",
    })
    .to_string();
    let raw: &RawValue = serde_json::from_str(&event).unwrap();
    let layout = Layout::new(&table, Some("ts"));
    for common in [batch, alone] {
        let kept = common.context();
        let again = Common::of_context(&kept).unwrap();
        let (first, second) = (layout.row(raw, &common), layout.row(raw, &again));
        assert_eq!(first.unwrap(), second.unwrap());
    }
    assert!(Common::of_context("{}").is_err());
}

#[test]
fn a_row_is_one_line_however_its_event_is_written() {
    let event = json!({"userId": "u", "event": "e", "properties": {"a": {"b": [1, 2]}, "c": "d"}});
    let text = serde_json::to_string_pretty(&event)
        .unwrap()
        .replace('\n', "\r\n");
    let raw: &RawValue = serde_json::from_str(&text).unwrap();
    let table = full();
    let row = Layout::new(&table, None).row(raw, &Common::alone("track", received()));
    let row = row.unwrap();
    assert!(!row.contains(['\n', '\r']), "{row}");
    let row: Value = serde_json::from_str(&row).unwrap();
    assert_eq!(row["properties"], event["properties"]);
}
