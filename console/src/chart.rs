//! Small charts, as SVG.

use maud::{Markup, html};

use crate::history::{Percentiles, millis};

const WIDTH: u32 = 300;
const HEIGHT: u32 = 60;

/// Lengths of a dash and of the gap after it, which distinguish a line from one without.
const DASHES: &str = "4 3";

/// Values over time, oldest first. A value that is unknown leaves a gap.
type Values = [Option<u32>];

/// Draws values over time as a line, with the maximum and the last value as text.
pub(crate) fn line(title: &str, unit: &str, values: &Values) -> Markup {
    let Some(max) = max_of_line(values) else { return figure(title, "No samples yet.", None) };
    let last = values.last().copied().flatten();
    let last = last.map_or_else(|| "unknown".to_owned(), |last| format!("{last}{unit}"));
    let text = format!("now {last}, at most {max}{unit}");
    figure(title, &text, Some(&html! { (polylines(values, max, None)) }))
}

/// Draws the durations of invocations over time as two lines, with the highest and the last ones as
/// text.
pub(crate) fn durations(samples: &[Option<Percentiles>]) -> Markup {
    let title = "Duration of invocations: p95, and p50 (dashed)";
    let of = |value: fn(&Percentiles) -> u32| -> Vec<_> {
        samples.iter().map(|sample| sample.as_ref().map(value)).collect()
    };
    let p50 = of(|percentiles| percentiles.p50.get());
    let p95 = of(|percentiles| percentiles.p95.get());
    let Some(max) = max_of_line(&p95) else {
        return figure(title, "No invocation has ended in this time.", None);
    };
    let last = samples.last().copied().flatten().map_or_else(
        || "now none".to_owned(),
        |last| format!("now p50 {}, p95 {}", millis(last.p50.get()), millis(last.p95.get())),
    );
    let text = format!("{last}; at most {}", millis(max));
    let lines = html! { (polylines(&p50, max, Some(DASHES))) (polylines(&p95, max, None)) };
    figure(title, &text, Some(&lines))
}

/// Draws a chart with its description; `None`: there is nothing to draw.
fn figure(title: &str, text: &str, lines: Option<&Markup>) -> Markup {
    html! {
        figure.chart {
            figcaption { (title) }
            @if let Some(lines) = lines {
                svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img"
                    preserveAspectRatio="none" {
                    title { (title) }
                    desc { (text) }
                    (lines)
                }
            }
            p.note { (text) }
        }
    }
}

/// Returns the highest value of a line; `None` if there is no line to draw.
fn max_of_line(values: &Values) -> Option<u32> {
    values.iter().flatten().copied().max().filter(|_| values.len() > 1)
}

fn polylines(values: &Values, max: u32, dashes: Option<&str>) -> Markup {
    html! {
        @for part in parts(values, max) {
            polyline points=(part) fill="none" stroke-linecap="round" stroke-dasharray=[dashes]
                vector-effect="non-scaling-stroke" {}
        }
    }
}

/// Returns the points of each part of the line that has no gap. A part of one point has it twice,
/// so that it is drawn as a dot.
fn parts(values: &Values, max: u32) -> Vec<String> {
    let last = u64::try_from(values.len()).unwrap_or(u64::MAX).saturating_sub(1).max(1);
    let x = |index: usize| {
        u64::try_from(index).unwrap_or(u64::MAX).saturating_mul(u64::from(WIDTH)) / last
    };
    let y = |value: u32| {
        let drawn = u64::from(HEIGHT - 2) * u64::from(value) / u64::from(max.max(1));
        u64::from(HEIGHT - 1) - drawn
    };
    let indexed: Vec<_> = values.iter().copied().enumerate().collect();
    indexed
        .split(|(_, value)| value.is_none())
        .map(|part| {
            let point = |&(index, value): &(usize, Option<u32>)| {
                value.map(|value| format!("{},{}", x(index), y(value)))
            };
            part.iter().filter_map(point).collect::<Vec<_>>()
        })
        .filter_map(|points| match points.as_slice() {
            [] => None,
            [point] => Some(format!("{point} {point}")),
            _ => Some(points.join(" ")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn percentiles(p50: u32, p95: u32) -> Option<Percentiles> {
        Some(Percentiles { p95: NonZeroU32::new(p95)?, p50: NonZeroU32::new(p50)? })
    }

    #[test]
    fn line_stays_in_its_box_and_has_gaps() {
        let values = [Some(0), Some(10), None, Some(5)];
        assert_eq!(parts(&values, 10), ["0,59 100,1", "300,30 300,30"]);
        assert_eq!(parts(&[Some(0), Some(0)], 0), ["0,59 300,59"]);
        assert_eq!(parts(&[Some(u32::MAX)], u32::MAX), ["0,1 0,1"]);
    }

    #[test]
    fn chart_has_a_text_for_those_who_do_not_see_it() {
        let chart = line("Waiting", " s", &[Some(3), Some(1)]).into_string();
        assert!(chart.contains(r#"role="img""#), "{chart}");
        assert!(chart.contains("<title>Waiting</title><desc>now 1 s, at most 3 s</desc>"));
        let empty = line("Waiting", "", &[None, None]).into_string();
        assert!(empty.contains("No samples yet.") && !empty.contains("<svg"), "{empty}");
    }

    #[test]
    fn durations_are_two_lines_of_one_scale() {
        let chart = durations(&[percentiles(100, 200), percentiles(150, 2_000)]).into_string();
        assert!(chart.contains("<desc>now p50 150ms, p95 2s; at most 2s</desc>"), "{chart}");
        for points in ["0,57 300,55", "0,54 300,1"] {
            assert!(chart.contains(&format!(r#"points="{points}""#)), "{chart}");
        }
        assert_eq!(chart.matches("stroke-dasharray").count(), 1, "{chart}");
        let idle = durations(&[percentiles(100, 200), None]).into_string();
        assert!(idle.contains("now none; at most 200ms"), "{idle}");
        let none = durations(&[None, None]).into_string();
        assert!(none.contains("No invocation has ended") && !none.contains("<svg"), "{none}");
    }
}
