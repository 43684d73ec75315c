//! The figures of `weir demo --once`, each beside what it must be.

use std::time::Instant;

use super::{Demo, say};
use crate::error::{Error, Result};

struct Figure {
    what: &'static str,
    sql: &'static str,
    /// The text it must be, or for a number the least it may be.
    must: Must,
}

enum Must {
    Be(&'static str),
    Reach(f64),
}

const FIGURES: [Figure; 8] = [
    Figure {
        what: "events",
        sql: "SELECT count(*) FROM events",
        must: Must::Be("31106"),
    },
    Figure {
        what: "sessions with a 30-minute gap",
        sql: "SELECT count(*) FROM sessions",
        must: Must::Be("3605"),
    },
    Figure {
        what: "users in the feature view",
        sql: "SELECT count(*) FROM user_features",
        must: Must::Be("600"),
    },
    Figure {
        what: "view minus its query, in rows",
        sql: "SELECT count(*) FROM (SELECT user_id, events, purchases, last_seen_at FROM user_features EXCEPT \
              SELECT user_id, count(*), count(*) FILTER (WHERE event = 'purchase'), max(ts) FROM events GROUP BY user_id) AS d",
        must: Must::Be("0"),
    },
    Figure {
        what: "users who put into the cart",
        sql: "SELECT count(*) FROM checkout_funnel WHERE step >= 2",
        must: Must::Be("480"),
    },
    Figure {
        what: "CDNOW customers",
        sql: "SELECT count(*) FROM customers",
        must: Must::Be("23570"),
    },
    Figure {
        what: "CDNOW total",
        sql: "SELECT sum(amount) FROM purchases",
        must: Must::Be("2500315.63"),
    },
    Figure {
        what: "churn model AUC on the hold-out",
        sql: "SELECT auc FROM ml_evaluate('churn', 'churn_holdout')",
        must: Must::Reach(0.83),
    },
];

/// Prints the report.
///
/// # Errors
/// When a figure is not what it must be.
pub(super) async fn print(demo: &Demo, started: Instant) -> Result<()> {
    say("\nweir demo: report\n");
    let mut wrong = 0;
    for figure in &FIGURES {
        let value = demo.value(figure.sql).await?;
        let (right, wanted) = match &figure.must {
            Must::Be(text) => (value == *text, format!("= {text}")),
            Must::Reach(least) => (
                value.parse::<f64>().is_ok_and(|v| v >= *least),
                format!(">= {least}"),
            ),
        };
        if !right {
            wrong += 1;
        }
        let mark = if right { "ok" } else { "WRONG" };
        say(&format!(
            "  {:<34} {:>20}   must be {wanted:<14} {mark}\n",
            figure.what, value
        ));
    }
    say(&format!(
        "  finished after {:.1} s\n",
        started.elapsed().as_secs_f64()
    ));
    match wrong {
        0 => Ok(()),
        n => Err(Error::Internal(format!(
            "{n} figures of the demo are wrong"
        ))),
    }
}
