//! Bars, as SVG that is readable on a light and on a dark page.

use std::fmt::Write;

use super::table::Table;

/// What is shown of what a benchmark printed: a bar for each of these columns, in each row that has
/// them.
#[derive(Clone, Copy, Debug)]
pub struct Plot {
    /// The file, without its ending.
    pub name: &'static str,
    /// What stands above.
    pub title: &'static str,
    /// The benchmark.
    pub part: &'static str,
    /// A row, and what it is called here; none: all, by their own names.
    rows: &'static [(&'static str, &'static str)],
    /// A column, and what it is called here.
    columns: &'static [(&'static str, &'static str)],
}

/// All plots of the report.
pub const PLOTS: [Plot; 6] = [
    Plot {
        name: "gateway",
        title: "Calls stored a second, gateway",
        part: "gateway",
        rows: &[
            ("calls/s, 64 connections, 256 bytes", "64 connections, 256 bytes"),
            ("calls/s, 64 connections, 1024 bytes", "64 connections, 1 KiB"),
            ("calls/s, 256 connections, 256 bytes", "256 connections, 256 bytes"),
            ("calls/s, 256 connections, 1024 bytes", "256 connections, 1 KiB"),
        ],
        columns: &[
            ("gateway", "gateway"),
            ("limit", "limit"),
            ("limit with headers", "limit with headers"),
        ],
    },
    Plot {
        name: "worker",
        title: "Calls a second, worker",
        part: "worker",
        rows: &[("median", "")],
        columns: &[("worker, calls/s", "worker"), ("limit, calls/s", "limit")],
    },
    Plot {
        name: "operator",
        title: "Seconds until all queues are ready",
        part: "operator",
        rows: &[],
        columns: &[("all ready after, s", "queues"), ("limit, s", "queues, limit")],
    },
    Plot {
        name: "peers-submit",
        title: "Jobs stored a second, 64 clients",
        part: "peers",
        rows: &[],
        columns: &[("jobs stored/s", "")],
    },
    Plot {
        name: "peers-dispatch",
        title: "Jobs run a second, 64 at once",
        part: "peers",
        rows: &[],
        columns: &[("jobs run/s", "")],
    },
    Plot {
        name: "peers-latency",
        title: "Milliseconds from submit to arrival at the function",
        part: "peers",
        rows: &[],
        columns: &[("p50 from submit to arrival, ms", "p50"), ("p99, ms", "p99")],
    },
];

/// Pixels: of the whole, of what is left of the bars and right of them, and of a bar with what is
/// below it.
const WIDTH: f64 = 760.0;
const LEFT: f64 = 300.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 44.0;
const STEP: f64 = 26.0;
const BAR: f64 = 18.0;

/// Colours that stand out from white and from near-black alike, and text that follows the page.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}\
                     .title{font-weight:600;font-size:15px}\
                     .ours{fill:#2f81f7}.limit{fill:#8b949e}.peer{fill:#bf8700}\
                     @media(prefers-color-scheme:dark){text{fill:#e6edf3}}";

struct Bar {
    label: String,
    value: f64,
    class: &'static str,
}

impl Plot {
    /// The picture, if there is anything to show.
    #[must_use]
    pub fn svg(&self, printed: &str) -> Option<String> {
        let bars = self.bars(printed);
        let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
        if most <= 0.0 {
            return None;
        }
        let (mut drawn, mut y) = (String::new(), TOP);
        for Bar { label, value, class } in &bars {
            let (text, length) = (y + BAR - 5.0, (value / most * (WIDTH - LEFT - RIGHT)).max(1.0));
            let (before, after) = (LEFT - 8.0, LEFT + length + 6.0);
            let _ = write!(
                drawn,
                "<text x=\"{before}\" y=\"{text}\" text-anchor=\"end\">{}</text>\n\
                 <rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" \
                 height=\"{BAR}\" rx=\"2\"/>\n\
                 <text x=\"{after:.1}\" y=\"{text}\">{}</text>\n",
                escaped(label),
                grouped(*value)
            );
            y += STEP;
        }
        let title = escaped(self.title);
        Some(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" \
             viewBox=\"0 0 {WIDTH} {y}\" role=\"img\" aria-label=\"{title}\">\n\
             <style>{STYLE}</style>\n\
             <text class=\"title\" x=\"8\" y=\"24\">{title}</text>\n{drawn}</svg>\n"
        ))
    }

    fn bars(&self, printed: &str) -> Vec<Bar> {
        let mut bars = Vec::new();
        for table in Table::all(printed) {
            let rows: Vec<_> = match self.rows {
                [] => table.names().map(|name| (name, name)).collect(),
                rows => rows.to_vec(),
            };
            for (row, row_label) in rows {
                for (column, column_label) in self.columns {
                    let Some(value) = table.number(row, column) else { continue };
                    let label = format!("{row_label} {column_label}").trim().to_owned();
                    bars.push(Bar { label, value, class: self.class(row, column) });
                }
            }
        }
        bars
    }

    fn class(&self, row: &str, column: &str) -> &'static str {
        if column.starts_with("limit") {
            "limit"
        } else if self.part == "peers" && !row.starts_with("AsyncQueue") {
            "peer"
        } else {
            "ours"
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A number for people: three digits that count, thousands apart.
fn grouped(value: f64) -> String {
    if value < 100.0 {
        return format!("{value}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEERS: &str = "| | jobs stored/s | jobs run/s |\n|---|---|---|\n\
                         | AsyncQueue | 20000 (19000 to 21000) | 15000 |\n\
                         | R & D | 1250 (9 to 9) | 2 |\n";

    #[test]
    fn bars_are_as_long_as_their_values_and_of_the_colour_of_their_kind() {
        let plot = PLOTS.iter().find(|plot| plot.name == "peers-submit").unwrap();
        let svg = plot.svg(PEERS).unwrap();
        let length = WIDTH - LEFT - RIGHT;
        assert!(
            svg.contains(&format!("class=\"ours\" x=\"300\" y=\"44\" width=\"{length:.1}\"")),
            "{svg}"
        );
        assert!(
            svg.contains(&format!(
                "class=\"peer\" x=\"300\" y=\"70\" width=\"{:.1}\"",
                length / 16.0
            )),
            "{svg}"
        );
        assert!(svg.contains(">R &amp; D</text>"), "{svg}");
        assert!(svg.contains("prefers-color-scheme:dark"), "{svg}");
    }

    #[test]
    fn nothing_is_drawn_of_what_is_not_there() {
        let plot = PLOTS.iter().find(|plot| plot.name == "peers-latency").unwrap();
        assert_eq!(plot.svg(PEERS), None);
    }

    #[test]
    fn numbers_are_as_people_read_them() {
        assert_eq!(
            [0.25, 99.5, 100.0, 1250.0, 1_234_567.0].map(grouped),
            ["0.25", "99.5", "100", "1,250", "1,234,567"]
        );
    }
}
