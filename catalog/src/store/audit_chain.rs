//! The hash chain over audit rows: each hash covers its row and the hash before it. Pure functions;
//! where the rows are kept is the store's business.

use sha2::{Digest, Sha256};

use crate::{AuditOutcome, AuditRow};

/// Names the encoding under the hash; another encoding gets another name.
const FORMAT: &[u8] = b"weir-audit-1";

/// The hash of a row as its `prev_hash` and other fields stand, in lower-case hexadecimal.
pub fn hash(row: &AuditRow) -> String {
    let mut bytes = Canonical::default();
    bytes.field(FORMAT);
    bytes.field(row.prev_hash.as_bytes());
    bytes.int(row.seq);
    bytes.int(row.at_micros);
    bytes.field(row.session.as_bytes());
    bytes.field(row.door.as_bytes());
    bytes.field(row.role.as_bytes());
    bytes.field(row.command.as_bytes());
    bytes.field(row.statement.as_bytes());
    bytes.count(row.objects.len());
    for object in &row.objects {
        bytes.field(object.as_bytes());
    }
    bytes.count(usize::from(row.rows.is_some()));
    if let Some(rows) = row.rows {
        bytes.int(rows);
    }
    bytes.field(match row.outcome {
        AuditOutcome::Ok => b"ok",
        AuditOutcome::Error => b"error",
    });
    bytes.count(usize::from(row.sqlstate.is_some()));
    if let Some(state) = &row.sqlstate {
        bytes.field(state.as_bytes());
    }
    hex(&Sha256::digest(&bytes.0))
}

/// Checks the rows of a whole log, from its first.
///
/// # Errors
/// The `seq` at which the chain breaks: of the changed row, or of the first one that is missing.
pub fn verify(rows: &[AuditRow]) -> Result<(), i64> {
    verify_from(0, "", rows)
}

/// Checks the rows that follow the row `last`, so that a long log can be read in pieces.
///
/// # Errors
/// As [`verify`].
pub fn verify_after(last: &AuditRow, rows: &[AuditRow]) -> Result<(), i64> {
    verify_from(last.seq, &last.hash, rows)
}

fn verify_from<'a>(mut seq: i64, mut prev: &'a str, rows: &'a [AuditRow]) -> Result<(), i64> {
    for row in rows {
        seq += 1;
        if row.seq != seq || row.prev_hash != prev || row.hash != hash(row) {
            return Err(seq);
        }
        prev = &row.hash;
    }
    Ok(())
}

/// Bytes that read back one way only: every field has its length before it.
#[derive(Default)]
struct Canonical(Vec<u8>);

impl Canonical {
    fn count(&mut self, n: usize) {
        self.0.extend_from_slice(&(n as u64).to_be_bytes());
    }

    fn int(&mut self, v: i64) {
        self.0.extend_from_slice(&v.to_be_bytes());
    }

    fn field(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        // writing to a String cannot fail
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Bytes of hexadecimal text.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(n: i64) -> Vec<AuditRow> {
        let mut prev = String::new();
        (1..=n)
            .map(|seq| {
                let mut row = AuditRow {
                    seq,
                    at_micros: seq * 10,
                    session: "s".to_owned(),
                    door: "pg".to_owned(),
                    role: "weir".to_owned(),
                    command: "SELECT".to_owned(),
                    statement: "select ?".to_owned(),
                    objects: vec!["public.t".to_owned()],
                    rows: Some(1),
                    outcome: AuditOutcome::Ok,
                    sqlstate: None,
                    prev_hash: prev.clone(),
                    hash: String::new(),
                };
                row.hash = hash(&row);
                prev.clone_from(&row.hash);
                row
            })
            .collect()
    }

    #[test]
    fn every_field_is_covered() {
        let edits: [fn(&mut AuditRow); 12] = [
            |r| r.at_micros += 1,
            |r| r.session.push('x'),
            |r| r.door.push('x'),
            |r| r.role.push('x'),
            |r| r.command.push('x'),
            |r| r.statement.push('x'),
            |r| r.objects.push(String::new()),
            |r| r.rows = None,
            |r| r.outcome = AuditOutcome::Error,
            |r| r.sqlstate = Some(String::new()),
            |r| r.prev_hash.push('0'),
            |r| r.seq += 1,
        ];
        for edit in edits {
            let mut rows = chain(3);
            edit(&mut rows[1]);
            assert_eq!(verify(&rows), Err(2));
        }
    }

    #[test]
    fn text_moved_between_fields_shows() {
        let mut rows = chain(1);
        rows[0].door = "pgw".to_owned();
        rows[0].role = "eir".to_owned();
        assert_eq!(verify(&rows), Err(1));
    }

    #[test]
    fn missing_and_swapped_rows_show() {
        let rows = chain(4);
        assert_eq!(verify(&rows), Ok(()));
        assert_eq!(verify_after(&rows[1], &rows[2..]), Ok(()));
        let mut gap = rows.clone();
        gap.remove(1);
        assert_eq!(verify(&gap), Err(2));
        let mut swapped = rows;
        swapped.swap(2, 3);
        assert_eq!(verify(&swapped), Err(3));
    }

    #[test]
    fn hex_reads_back() {
        assert_eq!(unhex(&hex(&[0, 127, 255])), Some(vec![0, 127, 255]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
        assert_eq!(unhex("é"), None);
    }
}
