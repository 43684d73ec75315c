//! Tables whose rows never change: `pg_am`, `pg_collation`, `pg_language`, `pg_tablespace`.

use super::SUPERUSER;
use super::pg_class::HEAP;
use crate::error::Result;
use crate::system::frame::Frame;

pub(super) fn pg_am(frame: &mut Frame) -> Result<()> {
    frame.row([
        ("oid", HEAP.into()),
        ("amname", "heap".into()),
        ("amhandler", "heap_tableam_handler".into()),
        ("amtype", "t".into()),
    ])
}

pub(super) fn pg_collation(frame: &mut Frame) -> Result<()> {
    for (oid, name, provider) in [(100, "default", "d"), (950, "C", "c")] {
        frame.row([
            ("oid", oid.into()),
            ("collname", name.into()),
            ("collnamespace", 11.into()),
            ("collowner", SUPERUSER.into()),
            ("collprovider", provider.into()),
            ("collisdeterministic", true.into()),
            ("collencoding", (-1).into()),
            ("collcollate", "C".into()),
            ("collctype", "C".into()),
        ])?;
    }
    Ok(())
}

pub(super) fn pg_language(frame: &mut Frame) -> Result<()> {
    for (oid, name, trusted) in [(12, "internal", false), (14, "sql", true)] {
        frame.row([
            ("oid", oid.into()),
            ("lanname", name.into()),
            ("lanowner", SUPERUSER.into()),
            ("lanpltrusted", trusted.into()),
        ])?;
    }
    Ok(())
}

pub(super) fn pg_tablespace(frame: &mut Frame) -> Result<()> {
    for (oid, name) in [(1663, "pg_default"), (1664, "pg_global")] {
        frame.row([
            ("oid", oid.into()),
            ("spcname", name.into()),
            ("spcowner", SUPERUSER.into()),
        ])?;
    }
    Ok(())
}
