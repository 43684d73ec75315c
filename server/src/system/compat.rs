//! Rewrites of statements that mention system tables.
