//! Draws stat panels and time series as Grafana places and colours them, as SVG. Pure.

use std::fmt::Write;

use test_support::monitoring::Panel;

use super::prometheus::Range;

/// A line of a panel.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// Time in seconds since 1970, and value.
    pub(super) points: Vec<(f64, f64)>,
}

/// A rectangle, in pixels.
#[derive(Clone, Copy, Debug)]
struct Area {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// Pixels of a unit of the grid, and between panels.
const COLUMN: f64 = 55.0;
const ROW: f64 = 30.0;
const GAP: f64 = 8.0;
/// Around the lines of a panel: what stands above, below and left of them.
const TITLE: f64 = 30.0;
const LEGEND: f64 = 36.0;
const AXIS: f64 = 62.0;

/// Lines that a legend names; the others are counted.
const NAMED_LINES: usize = 4;
/// Horizontal lines of the grid of a panel, next to that at zero.
const GRID_LINES: u32 = 3;

const LINE_COLORS: [&str; 8] =
    ["#3b7dd8", "#d9822b", "#3a9d5d", "#c23b5e", "#7d56c2", "#1798a3", "#8a6d3b", "#6b7280"];

const MEBIBYTE: f64 = 1024.0 * 1024.0;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1f2328}\
                     .title{font-weight:600;font-size:13px}.row{font-weight:600;font-size:16px}\
                     .small{font-size:11px;fill:#57606a}\
                     .value{font-weight:600;font-size:26px;fill:#fff}.on{fill:#fff;font-size:12px}\
                     .panel{fill:#fff;stroke:#d0d7de}.grid{stroke:#eaeef2}\
                     .limit{stroke-dasharray:6 4;stroke-width:1.5}\
                     polyline{fill:none;stroke-width:1.5}";

/// The dashboard with these lines, which are of this period.
pub(super) fn draw(panels: &[(&Panel, Vec<Line>)], range: Range) -> String {
    let bottom = panels.iter().map(|(panel, _)| panel.grid_pos.y + panel.grid_pos.h).max();
    let (width, height) = (24.0 * COLUMN + GAP, f64::from(bottom.unwrap_or_default()) * ROW + GAP);
    let mut drawn = String::new();
    for (panel, lines) in panels {
        let area = Area::of(panel);
        drawn += &match panel.r#type.as_str() {
            "row" => text("row", area.x + 4.0, area.y + 16.0, &panel.title),
            "stat" => stat(panel, lines, area),
            _ => time_series(panel, lines, area, range),
        };
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"The dashboard\">\n\
         <style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#f6f8fa\"/>\n{drawn}\
         </svg>\n"
    )
}

/// A panel with one number, on the colour of its threshold.
fn stat(panel: &Panel, lines: &[Line], area: Area) -> String {
    let last = lines.first().and_then(|line| line.points.last()).map(|(_, value)| *value);
    let color = last.map_or("#57606a", |value| color(panel, value));
    let shown = last.map_or_else(|| "No data".to_owned(), |value| format(panel, value));
    let mut drawn = area.rect(&format!("fill=\"{color}\""));
    drawn += &text("title on", area.x + 8.0, area.y + 20.0, &panel.title);
    drawn + &text("value", area.x + 8.0, area.y + area.height - 24.0, &shown)
}

/// A panel with a line for each series.
fn time_series(panel: &Panel, lines: &[Line], area: Area, range: Range) -> String {
    let plot = Area {
        x: area.x + AXIS,
        y: area.y + TITLE,
        width: area.width - AXIS - 10.0,
        height: area.height - TITLE - LEGEND - 16.0,
    };
    let mut lines = lines.to_vec();
    lines.sort_by(|a, b| b.most().total_cmp(&a.most()));
    let most = scale(lines.first().map_or(0.0, Line::most), panel);
    let x = |time: f64| plot.x + (time - range.start) / (range.end - range.start) * plot.width;
    let y = |value: f64| plot.y + plot.height - value / most * plot.height;

    let mut drawn = area.rect("class=\"panel\"");
    drawn += &text("title", area.x + 8.0, area.y + 19.0, &panel.title);
    for number in 0..=GRID_LINES {
        let value = most * f64::from(number) / f64::from(GRID_LINES);
        drawn += &horizontal("class=\"grid\"", &plot, y(value));
        drawn += &label_at_end(plot.x - 6.0, y(value) + 4.0, &format(panel, value));
    }
    drawn += &times(&plot, range);
    for threshold in panel.thresholds().filter(|threshold| *threshold <= most) {
        let style = format!("class=\"limit\" stroke=\"{}\"", color(panel, threshold));
        drawn += &horizontal(&style, &plot, y(threshold));
    }
    for (line, color) in lines.iter().zip(LINE_COLORS.iter().cycle()) {
        // A gap in the values is a gap in the line.
        for part in line.points.split(|(_, value)| !value.is_finite()) {
            let points = part.iter().fold(String::new(), |mut points, (time, value)| {
                let _ = write!(points, "{:.0},{:.1} ", x(*time), y(*value));
                points
            });
            let _ = writeln!(drawn, "<polyline stroke=\"{color}\" points=\"{}\"/>", points.trim());
        }
    }
    drawn + &legend(&lines, area)
}

/// The names of the lines, in two columns.
fn legend(lines: &[Line], area: Area) -> String {
    let mut drawn = String::new();
    for (index, (line, color)) in lines.iter().zip(LINE_COLORS).take(NAMED_LINES).enumerate() {
        let column = if index % 2 == 0 { 0.0 } else { area.width / 2.0 - 8.0 };
        let (x, y) = (area.x + 10.0 + column, area.y + area.height - LEGEND + 10.0);
        let y = if index < 2 { y } else { y + 16.0 };
        let _ = writeln!(
            drawn,
            "<rect x=\"{x:.0}\" y=\"{:.0}\" width=\"12\" height=\"3\" fill=\"{color}\"/>",
            y - 5.0
        );
        let more = lines.len().saturating_sub(NAMED_LINES);
        let is_last = index + 1 == NAMED_LINES && more > 0;
        let name = if is_last { format!("{}, {more} more", line.name) } else { line.name.clone() };
        drawn += &text("small", x + 17.0, y, &name);
    }
    drawn
}

/// The minutes since the start, below the lines.
fn times(plot: &Area, range: Range) -> String {
    let minutes = (range.end - range.start) / 60.0;
    let mut drawn = String::new();
    for part in [0.0, 0.25, 0.5, 0.75] {
        let at = format!("{:.1} min", minutes * part);
        drawn += &text("small", plot.x + plot.width * part, plot.y + plot.height + 15.0, &at);
    }
    drawn
}

/// The greatest value of an axis: a round number, and never nothing.
fn scale(most: f64, panel: &Panel) -> f64 {
    let unit = panel.field_config.defaults.unit.as_str();
    if unit == "percentunit" && most > 0.5 {
        return 1.0;
    }
    if unit == "bytes" {
        return MEBIBYTE * rounded_up(most / MEBIBYTE);
    }
    let least = panel.thresholds().next().unwrap_or(1.0);
    rounded_up(if most > 0.0 { most } else { least })
}

/// A round number that is not less.
fn rounded_up(most: f64) -> f64 {
    let power = 10_f64.powf(most.log10().floor());
    let steps = [1.2, 1.5, 2.1, 3.0, 4.5, 6.0, 7.5, 9.0, 12.0];
    let round = steps.into_iter().find(|step| most <= step * power).unwrap_or(12.0);
    round * power
}

/// The colour of a value of a panel.
fn color(panel: &Panel, value: f64) -> &'static str {
    let mut steps = panel.field_config.defaults.thresholds.steps.iter();
    let reached = steps.rfind(|step| step.value.is_none_or(|least| least <= value));
    match reached.map(|step| step.color.as_str()) {
        Some("green") => "#2f8f4e",
        Some("red") => "#cf3a3a",
        _ => "#3b7dd8",
    }
}

/// A value with its unit.
fn format(panel: &Panel, value: f64) -> String {
    match panel.field_config.defaults.unit.as_str() {
        "percentunit" => format!("{} %", rounded(value * 100.0)),
        "s" if value >= 120.0 => format!("{} min", rounded(value / 60.0)),
        "s" if value < 1.0 && value > 0.0 => format!("{} ms", rounded(value * 1e3)),
        "s" => format!("{} s", rounded(value)),
        "bytes" => format!("{} MiB", rounded(value / MEBIBYTE)),
        "reqps" | "ops" => format!("{}/s", rounded(value)),
        _ => rounded(value),
    }
}

/// A number with two digits that count at least, and no zeros at its end.
fn rounded(value: f64) -> String {
    let digits = match value {
        0.1..1.0 => 2,
        ..0.1 => 4,
        1.0..10.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

fn text(class: &str, x: f64, y: f64, text: &str) -> String {
    format!("<text class=\"{class}\" x=\"{x:.0}\" y=\"{y:.0}\">{}</text>\n", escaped(text))
}

fn label_at_end(x: f64, y: f64, text: &str) -> String {
    let text = escaped(text);
    format!("<text class=\"small\" x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"end\">{text}</text>\n")
}

fn horizontal(style: &str, plot: &Area, y: f64) -> String {
    let (left, right) = (plot.x, plot.x + plot.width);
    format!("<line {style} x1=\"{left:.0}\" x2=\"{right:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\n")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

// === impl Line ===

impl Line {
    /// Its greatest value.
    fn most(&self) -> f64 {
        let values = self.points.iter().map(|(_, value)| *value);
        values.filter(|value| value.is_finite()).fold(0.0, f64::max)
    }
}

// === impl Area ===

impl Area {
    fn of(panel: &Panel) -> Self {
        let place = panel.grid_pos;
        Self {
            x: f64::from(place.x).mul_add(COLUMN, GAP),
            y: f64::from(place.y).mul_add(ROW, GAP),
            width: f64::from(place.w).mul_add(COLUMN, -GAP),
            height: f64::from(place.h).mul_add(ROW, -GAP),
        }
    }

    fn rect(self, style: &str) -> String {
        let Self { x, y, width, height } = self;
        format!(
            "<rect {style} x=\"{x:.0}\" y=\"{y:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
             rx=\"3\"/>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use test_support::monitoring::dashboard;

    use super::*;

    const RANGE: Range = Range { start: 0.0, end: 60.0 };

    fn panel(title: &str) -> Panel {
        dashboard().panels.into_iter().find(|panel| panel.title == title).unwrap()
    }

    fn line(values: &[f64]) -> Line {
        let points = values.iter().enumerate();
        let points = points.map(|(at, value)| (f64::from(u32::try_from(at).unwrap()), *value));
        Line { name: "a<b".to_owned(), points: points.collect() }
    }

    #[test]
    fn a_stat_has_the_colour_of_its_threshold() {
        let panel = panel("Oldest call");
        for (value, color, shown) in [
            (3599.0, "#2f8f4e", "60 min"),
            (3600.0, "#cf3a3a", "60 min"),
            (2.5, "#2f8f4e", "2.5 s"),
        ] {
            let drawn = draw(&[(&panel, vec![line(&[value])])], RANGE);
            assert!(drawn.contains(color) && drawn.contains(&format!(">{shown}<")), "{drawn}");
        }
        assert!(draw(&[(&panel, vec![])], RANGE).contains(">No data<"));
    }

    #[test]
    fn a_line_ends_where_its_values_do_and_a_threshold_is_drawn_in_range() {
        let panel = panel("Waiting calls by queue");
        let drawn = draw(&[(&panel, vec![line(&[0.0, f64::NAN, 120.0])])], RANGE);
        assert_eq!(drawn.matches("<polyline").count(), 2, "{drawn}");
        assert!(drawn.contains("class=\"limit\"") && drawn.contains(">a&lt;b<"), "{drawn}");
        let drawn = draw(&[(&panel, vec![line(&[9.0])])], RANGE);
        assert!(!drawn.contains("class=\"limit\""), "{drawn}");
    }
}
