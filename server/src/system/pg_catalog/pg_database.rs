//! `pg_database`: the one database there is.

use super::{DATABASE, SUPERUSER};
use crate::error::Result;
use crate::system::SystemContext;
use crate::system::frame::Frame;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    frame.row([
        ("oid", DATABASE.into()),
        ("datname", (&cx.database).into()),
        ("datdba", SUPERUSER.into()),
        ("encoding", 6.into()), // UTF8
        ("datlocprovider", "c".into()),
        ("datallowconn", true.into()),
        ("datconnlimit", (-1).into()),
        ("dattablespace", 1663.into()),
        ("datcollate", "C".into()),
        ("datctype", "C".into()),
    ])
}
