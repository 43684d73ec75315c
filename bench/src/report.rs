//! Figures with what they were measured on: a table for people, JSON for comparison.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::cli::Common;
use crate::error::Result;
use crate::server;

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

impl Target {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(limit) => value <= limit,
            Self::Below(limit) => value < limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!(">= {}", number(least)),
            Self::AtMost(limit) => format!("<= {}", number(limit)),
            Self::Below(limit) => format!("< {}", number(limit)),
        }
    }
}

#[derive(Debug)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    target: Option<Target>,
}

/// How often a time fell into which range; `(up to seconds, how often)`.
#[derive(Debug)]
struct Histogram {
    name: String,
    counts: Vec<(f64, usize)>,
}

/// One measurement.
#[derive(Debug)]
pub(crate) struct Report {
    measure: &'static str,
    machine: Value,
    versions: Value,
    options: Map<String, Value>,
    figures: Vec<Figure>,
    histograms: Vec<Histogram>,
}

impl Report {
    pub(crate) fn new(measure: &'static str, common: &Common) -> Result<Self> {
        let program = server::program(common)?;
        let mut options = Map::new();
        for (key, value) in &common.settings {
            options.insert(format!("set {key}"), json!(value));
        }
        Ok(Self {
            measure,
            machine: machine(),
            versions: json!({
                "weir": said(&program, &["version"]),
                "git": said(Path::new("git"), &["describe", "--always", "--dirty"]),
                "rustc": said(Path::new("rustc"), &["--version"]),
                "kernel": file("/proc/sys/kernel/osrelease"),
            }),
            options,
            figures: Vec::new(),
            histograms: Vec::new(),
        })
    }

    /// Notes how it was measured.
    pub(crate) fn option(&mut self, name: &str, value: impl Into<Value>) {
        self.options.insert(name.to_owned(), value.into());
    }

    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure {
            name: name.into(),
            value,
            unit,
            target: None,
        });
    }

    /// How long things took, in seconds: ranks as figures, the whole as a histogram.
    pub(crate) fn times(&mut self, name: &str, mut seconds: Vec<f64>, targets: [Option<f64>; 2]) {
        seconds.sort_by(f64::total_cmp);
        let [p50, p99] = targets;
        let ranks = [
            ("p50", 0.5, p50),
            ("p90", 0.9, None),
            ("p99", 0.99, p99),
            ("p99.9", 0.999, None),
            ("max", 1.0, None),
        ];
        for (rank, share, limit) in ranks {
            let value = percentile(&seconds, share) * 1e3;
            self.figure(format!("{name}, {rank}"), value, "ms");
            if let Some(limit) = limit {
                self.target(Target::AtMost(limit));
            }
        }
        let mut counts = Vec::new();
        let mut rest = seconds.as_slice();
        let mut limit = 0.000_25;
        while !rest.is_empty() {
            let within = rest.partition_point(|s| *s <= limit);
            if within > 0 || !counts.is_empty() {
                counts.push((limit, within));
            }
            rest = rest.get(within..).unwrap_or_default();
            limit *= 2.0;
        }
        self.histograms.push(Histogram {
            name: name.to_owned(),
            counts,
        });
    }

    /// Says what the figure added last should be.
    pub(crate) fn target(&mut self, target: Target) {
        if let Some(figure) = self.figures.last_mut() {
            figure.target = Some(target);
        }
    }

    /// Prints the table and writes `bench-<measure>.json`.
    pub(crate) fn publish(&self, common: &Common) -> Result<()> {
        let file = server::directory(common)?.join(format!("bench-{}.json", self.measure));
        let text = serde_json::to_string_pretty(&self.json()).unwrap_or_default();
        std::fs::write(&file, text + "\n")?;
        let mut out = std::io::stdout().lock();
        out.write_all(self.table().as_bytes())?;
        writeln!(out, "written to {}", file.display())?;
        Ok(())
    }

    fn json(&self) -> Value {
        let figures: Vec<Value> = self
            .figures
            .iter()
            .map(|f| {
                json!({
                    "name": f.name, "value": f.value, "unit": f.unit,
                    "target": f.target.map(Target::text),
                    "met": f.target.map(|t| t.met(f.value)),
                })
            })
            .collect();
        let histograms: Vec<Value> = self
            .histograms
            .iter()
            .map(|h| json!({ "name": h.name, "up_to_seconds_and_count": h.counts }))
            .collect();
        json!({
            "measure": self.measure,
            "machine": self.machine,
            "versions": self.versions,
            "options": self.options,
            "load_after": file("/proc/loadavg"),
            "figures": figures,
            "histograms": histograms,
        })
    }

    fn table(&self) -> String {
        let options: Vec<String> = self
            .options
            .iter()
            .map(|(k, v)| format!("{k}={}", v.as_str().map_or(v.to_string(), str::to_owned)))
            .collect();
        let mut text = format!("{}  {}\n", self.measure, options.join(" "));
        let show = |key: &str| self.machine.get(key).map(Value::to_string);
        text.push_str(&format!(
            "machine  {} CPUs, load before {}\n",
            show("cpus").unwrap_or_default(),
            show("load").unwrap_or_default(),
        ));
        for figure in &self.figures {
            let verdict = figure.target.map_or(String::new(), |target| {
                let met = if target.met(figure.value) {
                    "met"
                } else {
                    "MISSED"
                };
                format!("   target {} {met}", target.text())
            });
            text.push_str(&format!(
                "  {:<40} {:>14} {:<8}{verdict}\n",
                figure.name,
                number(figure.value),
                figure.unit,
            ));
        }
        for histogram in &self.histograms {
            text.push_str(&histogram.text());
        }
        text
    }
}

impl Histogram {
    fn text(&self) -> String {
        let most = self
            .counts
            .iter()
            .map(|(_, n)| *n)
            .max()
            .unwrap_or(0)
            .max(1);
        let mut text = format!("  {}\n", self.name);
        for (limit, count) in &self.counts {
            let bar = "#".repeat((count * 50).div_ceil(most));
            text.push_str(&format!(
                "    <= {:>9.2} ms {count:>8} {bar}\n",
                limit * 1e3
            ));
        }
        text
    }
}

/// The value at a rank of sorted values.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * share).round();
    sorted.get(at as usize).copied().unwrap_or(f64::NAN)
}

/// As people write it: thousands apart, three digits of small ones.
fn number(value: f64) -> String {
    if value.abs() < 100.0 && value.fract() != 0.0 {
        return format!("{value:.3}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    if value < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}

fn machine() -> Value {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(": "))
        .map(|(_, model)| model.to_owned());
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .map(|rest| rest.trim().to_owned());
    json!({
        "cpu": model,
        "cpus": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": memory,
        "load": file("/proc/loadavg"),
    })
}

fn file(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

/// What a program prints; nothing when it is not there.
fn said(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| text.trim().to_owned())
        .filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(number(1_234_567.0), "1 234 567");
        assert_eq!(number(0.1234), "0.123");
        assert_eq!(number(-1200.0), "-1 200");
        assert_eq!(number(300.0), "300");
    }

    #[test]
    fn percentiles_are_ranks() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), 50.0);
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn histograms_count_everything_once() {
        let mut report = Report {
            measure: "test",
            machine: Value::Null,
            versions: Value::Null,
            options: Map::new(),
            figures: Vec::new(),
            histograms: Vec::new(),
        };
        report.times("t", vec![0.004, 0.000_1, 0.003, 0.1], [Some(5.0), None]);
        let counts = &report.histograms[0].counts;
        assert_eq!(counts.iter().map(|(_, n)| n).sum::<usize>(), 4);
        assert_eq!(counts[0], (0.000_25, 1));
        assert!(report.table().contains("target <= 5 met"));
    }

    #[test]
    fn targets_have_a_direction() {
        assert!(Target::Below(1.0).met(0.5));
        assert!(!Target::Below(1.0).met(1.0));
        assert!(Target::AtLeast(1.0).met(1.0));
    }
}
