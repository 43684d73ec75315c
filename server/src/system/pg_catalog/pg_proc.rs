//! `pg_proc`: the functions that weir adds to SQL. Their argument and result types are documented
//! in words, so `pg_get_function_arguments` answers with those.

use super::{SUPERUSER, WEIR, pg_type};
use crate::error::Result;
use crate::system::frame::Frame;
use crate::system::{FunctionInfo, SystemContext};

/// Oids of functions begin here, below those of users' objects.
const FIRST: u32 = 15000;
/// Those of the input and output functions of types.
const IO_FIRST: u32 = 14000;

pub(super) fn fill(frame: &mut Frame, cx: &SystemContext) -> Result<()> {
    for (oid, function) in all(cx) {
        frame.row([
            ("oid", oid.into()),
            ("proname", (&function.name).into()),
            ("pronamespace", WEIR.into()),
            ("proowner", SUPERUSER.into()),
            ("prolang", 12.into()),
            ("procost", 1.0.into()),
            ("prokind", function.kind.to_string().into()),
            ("provolatile", "i".into()),
            ("proparallel", "s".into()),
            ("prosrc", (&function.name).into()),
        ])?;
    }
    // the functions that pg_type names, which clients join with
    for (oid, name) in (IO_FIRST..FIRST).zip(pg_type::io_functions()) {
        frame.row([
            ("oid", oid.into()),
            ("proname", name.into()),
            ("pronamespace", 11.into()),
            ("proowner", SUPERUSER.into()),
            ("prolang", 12.into()),
            ("procost", 1.0.into()),
            ("prokind", "f".into()),
            ("proisstrict", true.into()),
            ("provolatile", "i".into()),
            ("proparallel", "s".into()),
            ("pronargs", 1.into()),
            ("prosrc", name.into()),
        ])?;
    }
    Ok(())
}

/// The function with that oid.
pub(crate) fn function(cx: &SystemContext, oid: u32) -> Option<&FunctionInfo> {
    all(cx).find(|(o, _)| *o == oid).map(|(_, f)| f)
}

/// The oid of the function of that name.
pub(crate) fn function_oid(cx: &SystemContext, name: &str) -> Option<u32> {
    all(cx).find(|(_, f)| f.name == name).map(|(oid, _)| oid)
}

fn all(cx: &SystemContext) -> impl Iterator<Item = (u32, &FunctionInfo)> {
    (FIRST..16384).zip(&cx.functions)
}
