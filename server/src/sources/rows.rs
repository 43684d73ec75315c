//! Messages → accepted rows. What does not fit is found by halving, so a bad message among many good
//! ones costs a few more looks at its neighbours.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use catalog::Relation;

use crate::engine::scope::Scope;
use crate::error::{Error, Result};
use crate::exec::ingest;
use crate::kafka::decode::Decoder;
use crate::kafka::messages::Messages;

/// What became of messages.
#[derive(Debug, Default)]
pub(super) struct Sifted {
    /// Rows of those that fit.
    pub(super) rows: Vec<RecordBatch>,
    /// Those that do not, by their place, and why.
    pub(super) bad: Vec<(usize, Error)>,
}

/// Makes rows of one table.
pub(super) struct Sieve<'a> {
    pub(super) scope: &'a Arc<Scope>,
    pub(super) relation: &'a Relation,
    pub(super) schema: SchemaRef,
    pub(super) decoder: &'a mut Decoder,
}

impl Sieve<'_> {
    /// Looks at all messages.
    ///
    /// # Errors
    /// Whatever is not a message's fault.
    pub(super) fn sift(&mut self, messages: &Messages) -> Result<Sifted> {
        let mut sifted = Sifted::default();
        let all = 0..messages.len();
        if !all.is_empty() {
            self.range(messages, all, &mut sifted)?;
        }
        Ok(sifted)
    }

    /// Stops at the first message that does not fit: the rows before it, and it.
    pub(super) fn until_bad(&mut self, messages: &Messages) -> Result<Sifted> {
        let whole = 0..messages.len();
        let e = match self.accept(messages, whole.clone()) {
            Ok(rows) => {
                return Ok(Sifted {
                    rows,
                    bad: Vec::new(),
                });
            }
            Err(e) if is_data(&e) => e,
            Err(e) => return Err(e),
        };
        // good up to here, bad before there
        let (mut good, mut bad, mut why) = (0, messages.len(), e);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            match self.accept(messages, good..middle) {
                Ok(_) => good = middle,
                Err(e) if is_data(&e) => (bad, why) = (middle, e),
                Err(e) => return Err(e),
            }
        }
        // the last look may have been at more than this one
        if let Err(e) = self.accept(messages, good..bad) {
            why = e;
        }
        let rows = match good {
            0 => Vec::new(),
            good => self.accept(messages, 0..good)?,
        };
        Ok(Sifted {
            rows,
            bad: vec![(good, why)],
        })
    }

    fn range(
        &mut self,
        messages: &Messages,
        range: Range<usize>,
        sifted: &mut Sifted,
    ) -> Result<()> {
        match self.accept(messages, range.clone()) {
            Ok(mut rows) => sifted.rows.append(&mut rows),
            Err(e) if !is_data(&e) => return Err(e),
            Err(e) if range.len() == 1 => sifted.bad.push((range.start, e)),
            Err(_) => {
                let middle = range.start + range.len() / 2;
                self.range(messages, range.start..middle, sifted)?;
                self.range(messages, middle..range.end, sifted)?;
            }
        }
        Ok(())
    }

    fn accept(&mut self, messages: &Messages, range: Range<usize>) -> Result<Vec<RecordBatch>> {
        let batches = self.decoder.decode(messages, range, &self.schema)?;
        ingest::accept(self.scope, self.relation, batches)
    }
}

/// True for what is wrong with data, not with the server or the table.
fn is_data(e: &Error) -> bool {
    let state = e.state().0;
    ["22", "23"].contains(&&state[..2]) || ["42703", "42701", "42804", "0A000"].contains(&state)
}
