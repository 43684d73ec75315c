//! Materialized views: analysis, state runs, merge at read, refresh. Must not import `protocol` or `exec`.
