//! Every setting, once: its key, its meaning, how its text is read and shown.

use std::path::PathBuf;

use super::values::{
    address, bytes, count, duration, interval, show_bytes, show_duration, show_interval, switch,
};
use super::{Config, LogFormat, Secret, TlsConfig};

/// One setting.
pub(super) struct Key {
    /// Dotted name: `pg.addr` is `addr` under `[pg]` in the file and `WEIR__PG__ADDR` in the
    /// environment.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) about: &'static str,
    /// Reads a text into the configuration; the error says what was expected.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// The value as `set` reads it; `None` when it is not set.
    pub(super) get: fn(&Config) -> Option<String>,
    /// Its value is never shown.
    pub(super) secret: bool,
}

/// All settings, in the order they are printed.
pub(super) const KEYS: &[Key] = &[
    Key {
        name: "data",
        about: "data directory: log, embedded catalog, addresses.json",
        set: |c, t| {
            c.data = PathBuf::from(t);
            Ok(())
        },
        get: |c| Some(c.data.display().to_string()),
        secret: false,
    },
    Key {
        name: "warehouse",
        about: "root URL of Delta tables; default: the directory warehouse in data",
        set: |c, t| {
            c.warehouse = Some(t.to_owned());
            Ok(())
        },
        get: |c| c.warehouse.clone(),
        secret: false,
    },
    Key {
        name: "catalog",
        about: "catalog URL (postgres://…); default: SQLite in data",
        set: |c, t| {
            c.catalog = Some(Secret(t.to_owned()));
            Ok(())
        },
        get: |c| c.catalog.as_ref().map(|s| s.0.clone()),
        secret: true,
    },
    Key {
        name: "insecure",
        about: "allow addresses beyond loopback without TLS",
        set: |c, t| switch(t).map(|v| c.insecure = v),
        get: |c| Some(c.insecure.to_string()),
        secret: false,
    },
    Key {
        name: "grace",
        about: "how long shutdown waits for statements to end",
        set: |c, t| duration(t).map(|v| c.grace = v),
        get: |c| Some(show_duration(c.grace)),
        secret: false,
    },
    Key {
        name: "log",
        about: "which events are logged: a level, or target=level pairs",
        set: |c, t| {
            t.parse::<tracing_subscriber::filter::EnvFilter>()
                .map_err(|e| format!("is no log filter: {e}"))?;
            c.log = t.to_owned();
            Ok(())
        },
        get: |c| Some(c.log.clone()),
        secret: false,
    },
    Key {
        name: "log_format",
        about: "text or json",
        set: |c, t| {
            c.log_format = match t {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err("expected text or json".to_owned()),
            };
            Ok(())
        },
        get: |c| {
            let text = match c.log_format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            };
            Some(text.to_owned())
        },
        secret: false,
    },
    Key {
        name: "pg.addr",
        about: "address of the PostgreSQL door; port 0 lets the system choose",
        set: |c, t| address(t).map(|v| c.pg_addr = v),
        get: |c| Some(c.pg_addr.to_string()),
        secret: false,
    },
    Key {
        name: "flight.addr",
        about: "address of the Flight SQL door",
        set: |c, t| address(t).map(|v| c.flight_addr = v),
        get: |c| Some(c.flight_addr.to_string()),
        secret: false,
    },
    Key {
        name: "http.addr",
        about: "address of the HTTP door",
        set: |c, t| address(t).map(|v| c.http_addr = v),
        get: |c| Some(c.http_addr.to_string()),
        secret: false,
    },
    Key {
        name: "tls.cert",
        about: "certificate chain file (PEM) for all doors",
        set: |c, t| {
            tls(c).cert = PathBuf::from(t);
            Ok(())
        },
        get: |c| c.tls.as_ref().map(|t| t.cert.display().to_string()),
        secret: false,
    },
    Key {
        name: "tls.key",
        about: "private key file (PEM)",
        set: |c, t| {
            tls(c).key = PathBuf::from(t);
            Ok(())
        },
        get: |c| c.tls.as_ref().map(|t| t.key.display().to_string()),
        secret: false,
    },
    Key {
        name: "auth.admin_password",
        about: "password of the superuser weir; generated and printed once if there is none",
        set: |c, t| {
            if t.is_empty() {
                return Err("must not be empty".to_owned());
            }
            c.admin_password = Some(Secret(t.to_owned()));
            Ok(())
        },
        get: |c| c.admin_password.as_ref().map(|s| s.0.clone()),
        secret: true,
    },
    Key {
        name: "auth.token_lifetime",
        about: "how long a bearer token is good after its last use",
        set: |c, t| duration(t).map(|v| c.token_lifetime = v),
        get: |c| Some(show_duration(c.token_lifetime)),
        secret: false,
    },
    Key {
        name: "stream.flush_interval",
        about: "time between flushes of a streaming table that has no own setting",
        set: |c, t| duration(t).map(|v| c.flush_interval = v),
        get: |c| Some(show_duration(c.flush_interval)),
        secret: false,
    },
    Key {
        name: "stream.acknowledge_interval",
        about: "shortest time between two commits of a table with acknowledge = 'object'",
        set: |c, t| duration(t).map(|v| c.acknowledge_interval = v),
        get: |c| Some(show_duration(c.acknowledge_interval)),
        secret: false,
    },
    Key {
        name: "stream.acknowledge_wait",
        about: "how long writers of such a table wait for the commit of their rows",
        set: |c, t| duration(t).map(|v| c.acknowledge_wait = v),
        get: |c| Some(show_duration(c.acknowledge_wait)),
        secret: false,
    },
    Key {
        name: "stream.tail_bytes",
        about: "bytes that rows not yet flushed may hold before writers wait",
        set: |c, t| bytes(t).map(|v| c.tail_bytes = v),
        get: |c| Some(show_bytes(c.tail_bytes)),
        secret: false,
    },
    Key {
        name: "stream.buffer_bytes",
        about: "bytes that rows received over HTTP and Flight may hold before they are in the log",
        set: |c, t| bytes(t).map(|v| c.buffer_bytes = v),
        get: |c| Some(show_bytes(c.buffer_bytes)),
        secret: false,
    },
    Key {
        name: "stream.dedup_bytes",
        about: "bytes that the keys of rows within dedup_window may hold, of all tables together",
        set: |c, t| bytes(t).map(|v| c.dedup_bytes = v),
        get: |c| Some(show_bytes(c.dedup_bytes)),
        secret: false,
    },
    Key {
        name: "stream.segment_bytes",
        about: "size of one file of the log",
        set: |c, t| bytes(t).map(|v| c.segment_bytes = v as u64),
        get: |c| usize::try_from(c.segment_bytes).ok().map(show_bytes),
        secret: false,
    },
    Key {
        name: "stream.idempotency_window",
        about: "how long a request with an idempotency key is answered again",
        set: |c, t| duration(t).map(|v| c.idempotency_window = v),
        get: |c| Some(show_duration(c.idempotency_window)),
        secret: false,
    },
    Key {
        name: "stream.dead_letter_retention",
        about: "how long dead letters are kept",
        set: |c, t| duration(t).map(|v| c.dead_letter_retention = v),
        get: |c| Some(show_duration(c.dead_letter_retention)),
        secret: false,
    },
    Key {
        name: "limits.idempotency_keys",
        about: "idempotency keys remembered at a time",
        set: |c, t| count(t).map(|v| c.max_idempotency_keys = v),
        get: |c| Some(c.max_idempotency_keys.to_string()),
        secret: false,
    },
    Key {
        name: "limits.query_memory",
        about: "bytes that running queries may hold together before they spill or fail",
        set: |c, t| bytes(t).map(|v| c.query_memory = v),
        get: |c| Some(show_bytes(c.query_memory)),
        secret: false,
    },
    Key {
        name: "limits.view_memory",
        about: "bytes that storing materialized views may hold together before it spills",
        set: |c, t| bytes(t).map(|v| c.view_memory = v),
        get: |c| Some(show_bytes(c.view_memory)),
        secret: false,
    },
    Key {
        name: "limits.lookup_memory",
        about: "bytes of view states kept for queries for one key; 0 plans every such query",
        set: |c, t| bytes(t).map(|v| c.lookup_memory = v),
        get: |c| Some(show_bytes(c.lookup_memory)),
        secret: false,
    },
    Key {
        name: "limits.body",
        about: "largest HTTP body (also once decompressed) and COPY line",
        set: |c, t| bytes(t).map(|v| c.max_body = v),
        get: |c| Some(show_bytes(c.max_body)),
        secret: false,
    },
    Key {
        name: "limits.message",
        about: "largest Flight message",
        set: |c, t| bytes(t).map(|v| c.max_message = v),
        get: |c| Some(show_bytes(c.max_message)),
        secret: false,
    },
    Key {
        name: "limits.connections",
        about: "connections each door takes at a time",
        set: |c, t| count(t).map(|v| c.max_connections = v),
        get: |c| Some(c.max_connections.to_string()),
        secret: false,
    },
    Key {
        name: "segment.body",
        about: "largest request of the Segment API, also once decompressed",
        set: |c, t| bytes(t).map(|v| c.segment_body = v),
        get: |c| Some(show_bytes(c.segment_body)),
        secret: false,
    },
    Key {
        name: "segment.message",
        about: "largest event in a request of the Segment API",
        set: |c, t| bytes(t).map(|v| c.segment_message = v),
        get: |c| Some(show_bytes(c.segment_message)),
        secret: false,
    },
    Key {
        name: "jobs.compaction_interval",
        about: "time between looks for small files to merge; off for none",
        set: |c, t| interval(t).map(|v| c.jobs.compaction_interval = v),
        get: |c| Some(show_interval(c.jobs.compaction_interval)),
        secret: false,
    },
    Key {
        name: "jobs.compaction_files",
        about: "small files of one size that are merged into one",
        set: |c, t| count(t).map(|v| c.jobs.compaction_files = v.max(2)),
        get: |c| Some(c.jobs.compaction_files.to_string()),
        secret: false,
    },
    Key {
        name: "jobs.checkpoint_interval",
        about: "time between looks for logs that need a checkpoint; off for none",
        set: |c, t| interval(t).map(|v| c.jobs.checkpoint_interval = v),
        get: |c| Some(show_interval(c.jobs.checkpoint_interval)),
        secret: false,
    },
    Key {
        name: "jobs.log_cleanup_interval",
        about: "time between cleanings of the tables' logs; off for none",
        set: |c, t| interval(t).map(|v| c.jobs.log_cleanup_interval = v),
        get: |c| Some(show_interval(c.jobs.log_cleanup_interval)),
        secret: false,
    },
    Key {
        name: "jobs.log_retention",
        about: "how long commits stay in the tables' logs for time travel",
        set: |c, t| duration(t).map(|v| c.jobs.log_retention = v),
        get: |c| Some(show_duration(c.jobs.log_retention)),
        secret: false,
    },
    Key {
        name: "jobs.vacuum_interval",
        about: "time between vacuums of all tables; off for none",
        set: |c, t| interval(t).map(|v| c.jobs.vacuum_interval = v),
        get: |c| Some(show_interval(c.jobs.vacuum_interval)),
        secret: false,
    },
    Key {
        name: "jobs.vacuum_retention",
        about: "how long files that have left their table stay for time travel",
        set: |c, t| duration(t).map(|v| c.jobs.vacuum_retention = v),
        get: |c| Some(show_duration(c.jobs.vacuum_retention)),
        secret: false,
    },
    Key {
        name: "jobs.retention_interval",
        about: "time between looks for rows whose retention is over; off for none",
        set: |c, t| interval(t).map(|v| c.jobs.retention_interval = v),
        get: |c| Some(show_interval(c.jobs.retention_interval)),
        secret: false,
    },
    Key {
        name: "jobs.verify_interval",
        about: "time between comparisons of a view's state with its sources; off for none",
        set: |c, t| interval(t).map(|v| c.jobs.verify_interval = v),
        get: |c| Some(show_interval(c.jobs.verify_interval)),
        secret: false,
    },
    Key {
        name: "jobs.verify_keys",
        about: "keys of a view that are compared each time; 0 for none",
        set: |c, t| count(t).map(|v| c.jobs.verify_keys = v.min(1000)),
        get: |c| Some(c.jobs.verify_keys.to_string()),
        secret: false,
    },
];

/// One line per setting: the key and what it does.
pub fn reference() -> String {
    let mut out = String::new();
    for key in KEYS {
        out.push_str(&format!("{:<28}{}\n", key.name, key.about));
    }
    out
}

/// The TLS part, made when its first half arrives; `layers` checks that both halves did.
fn tls(config: &mut Config) -> &mut TlsConfig {
    config.tls.get_or_insert_with(|| TlsConfig {
        cert: PathBuf::new(),
        key: PathBuf::new(),
    })
}
