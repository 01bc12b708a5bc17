//! Small charts, as SVG.

use maud::{Markup, html};

const WIDTH: u32 = 300;
const HEIGHT: u32 = 60;

/// Draws values over time, oldest first, as a line with the maximum and the last value as text. A
/// value that is unknown leaves a gap.
pub(crate) fn line(title: &str, unit: &str, values: &[Option<u32>]) -> Markup {
    let max = values.iter().flatten().copied().max();
    let last = values.last().copied().flatten();
    html! {
        figure.chart {
            figcaption { (title) }
            @if let (Some(max), true) = (max, values.len() > 1) {
                @let text = describe(last, max, unit);
                svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img"
                    preserveAspectRatio="none" {
                    title { (title) }
                    desc { (text) }
                    @for part in lines(values, max) {
                        polyline points=(part) fill="none" vector-effect="non-scaling-stroke" {}
                    }
                }
                p.note { (text) }
            } @else {
                p.note { "No samples yet." }
            }
        }
    }
}

fn describe(last: Option<u32>, max: u32, unit: &str) -> String {
    let last = last.map_or_else(|| "unknown".to_owned(), |last| format!("{last}{unit}"));
    format!("now {last}, at most {max}{unit}")
}

/// Returns the points of each part of the line that has no gap.
fn lines(values: &[Option<u32>], max: u32) -> Vec<String> {
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
            part.iter().filter_map(point).collect::<Vec<_>>().join(" ")
        })
        .filter(|points| !points.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_stays_in_its_box_and_has_gaps() {
        assert_eq!(lines(&[Some(0), Some(10), None, Some(5)], 10), ["0,59 100,1", "300,30"]);
        assert_eq!(lines(&[Some(0), Some(0)], 0), ["0,59 300,59"]);
        assert_eq!(lines(&[Some(u32::MAX)], u32::MAX), ["0,1"]);
    }

    #[test]
    fn chart_has_a_text_for_those_who_do_not_see_it() {
        let chart = line("Waiting", " s", &[Some(3), Some(1)]).into_string();
        assert!(chart.contains(r#"role="img""#), "{chart}");
        assert!(chart.contains("<title>Waiting</title><desc>now 1 s, at most 3 s</desc>"));
        assert!(line("Waiting", "", &[None, None]).into_string().contains("No samples yet."));
    }
}
