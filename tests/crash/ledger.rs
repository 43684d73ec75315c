//! The books: what was sent, what was acknowledged, and how a reading compares.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

/// What one producer did.
#[derive(Default)]
struct Account {
    /// Requests in order: their numbers, and whether they were acknowledged. They follow each other
    /// without gaps from 0.
    requests: Vec<(Range<i64>, bool)>,
}

/// The books of all producers.
#[derive(Default)]
pub(crate) struct Ledger {
    accounts: Mutex<BTreeMap<String, Account>>,
}

/// A request on its way.
pub(crate) struct Request {
    producer: String,
    index: usize,
    /// The numbers of its rows.
    pub(crate) rows: Range<i64>,
}

impl Ledger {
    /// Writes down that `size` rows of a producer are about to be sent, and gives them numbers.
    pub(crate) fn send(&self, producer: &str, size: i64) -> Request {
        let mut accounts = self.accounts.lock().unwrap();
        let requests = &mut accounts.entry(producer.to_owned()).or_default().requests;
        let from = requests.last().map_or(0, |(rows, _)| rows.end);
        let rows = from..from + size;
        requests.push((rows.clone(), false));
        Request {
            producer: producer.to_owned(),
            index: requests.len() - 1,
            rows,
        }
    }

    /// Writes down that the server acknowledged a request.
    pub(crate) fn acknowledge(&self, request: &Request) {
        let mut accounts = self.accounts.lock().unwrap();
        let account = accounts.get_mut(&request.producer).unwrap();
        account.requests[request.index].1 = true;
    }

    /// How many rows were acknowledged.
    pub(crate) fn acknowledged(&self) -> i64 {
        let accounts = self.accounts.lock().unwrap();
        let requests = accounts.values().flat_map(|a| &a.requests);
        requests
            .filter(|(_, acknowledged)| *acknowledged)
            .map(|(rows, _)| rows.end - rows.start)
            .sum()
    }

    /// What each producer sent, and what of it was acknowledged, in words.
    pub(crate) fn figures(&self) -> String {
        let accounts = self.accounts.lock().unwrap();
        let all = accounts.iter().map(|(name, account)| {
            let rows = |all: bool| -> i64 {
                let counted = account.requests.iter().filter(|(_, told)| all || *told);
                counted.map(|(rows, _)| rows.end - rows.start).sum()
            };
            format!("{name} {} {}", rows(true), rows(false))
        });
        all.collect::<Vec<_>>().join(", ")
    }

    /// Compares rows read, in log order, with the books. The error says what is untrue.
    pub(crate) fn compare(&self, read: impl Iterator<Item = (String, i64)>) -> Result<(), String> {
        let mut by_producer: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (producer, seq) in read {
            by_producer.entry(producer).or_default().push(seq);
        }
        let accounts = self.accounts.lock().unwrap();
        if let Some(stranger) = by_producer.keys().find(|p| !accounts.contains_key(*p)) {
            return Err(format!("rows of \"{stranger}\", who never sent any"));
        }
        for (producer, account) in accounts.iter() {
            let seqs = by_producer.remove(producer).unwrap_or_default();
            compare_one(account, &seqs).map_err(|e| format!("{producer}: {e}"))?;
        }
        Ok(())
    }
}

fn compare_one(account: &Account, seqs: &[i64]) -> Result<(), String> {
    if let Some(pair) = seqs.windows(2).find(|pair| pair[0] >= pair[1]) {
        let fault = if pair[0] == pair[1] {
            "is there twice"
        } else {
            "stands out of order"
        };
        return Err(format!("row {} after row {} {fault}", pair[1], pair[0]));
    }
    let mut rest = seqs;
    for (rows, acknowledged) in &account.requests {
        let there = rest.iter().take_while(|seq| rows.contains(seq)).count();
        rest = &rest[there..];
        let size = usize::try_from(rows.end - rows.start).unwrap();
        if there != size && *acknowledged {
            return Err(format!(
                "acknowledged rows {rows:?}: {there} of {size} are there"
            ));
        }
        if there != size && there != 0 {
            return Err(format!(
                "rows {rows:?} of one request: only {there} of {size} are there"
            ));
        }
    }
    match rest.first() {
        Some(seq) => Err(format!("row {seq} was never sent")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books() -> Ledger {
        let ledger = Ledger::default();
        let first = ledger.send("p", 2);
        ledger.acknowledge(&first);
        ledger.send("p", 2);
        let third = ledger.send("p", 1);
        ledger.acknowledge(&third);
        ledger
    }

    fn says(seqs: &[i64]) -> Result<(), String> {
        books().compare(seqs.iter().map(|seq| ("p".to_owned(), *seq)))
    }

    #[test]
    fn an_unanswered_request_may_be_there_or_not() {
        assert_eq!(says(&[0, 1, 4]), Ok(()));
        assert_eq!(says(&[0, 1, 2, 3, 4]), Ok(()));
    }

    #[test]
    fn every_fault_is_found() {
        assert!(says(&[0, 4]).unwrap_err().contains("acknowledged"));
        assert!(says(&[0, 1]).unwrap_err().contains("acknowledged"));
        assert!(says(&[0, 1, 2, 4]).unwrap_err().contains("one request"));
        assert!(says(&[0, 1, 1, 4]).unwrap_err().contains("twice"));
        assert!(says(&[1, 0, 4]).unwrap_err().contains("order"));
        assert!(says(&[0, 1, 4, 5]).unwrap_err().contains("never sent"));
        let stranger = books().compare(std::iter::once(("q".to_owned(), 0)));
        assert!(stranger.unwrap_err().contains("never sent"));
    }
}
