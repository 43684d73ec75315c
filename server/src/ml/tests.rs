//! The models through training, storage and SQL.
