//! Formats tables, and the sizes and ages in their cells.

use std::time::Duration;

/// Spaces between two columns.
const GAP: usize = 3;

/// The content of a cell without a value.
pub(crate) const EMPTY_CELL: &str = "-";

/// Formats a value that may be unknown.
pub(crate) fn cell_or_empty(value: Option<impl ToString>) -> String {
    value.map_or_else(|| EMPTY_CELL.to_owned(), |value| value.to_string())
}

/// Formats a heading and rows. Each column is as wide as its widest cell. The last column may have
/// any length.
pub(crate) fn render<const COLUMNS: usize>(
    heading: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    render_first(COLUMNS, heading, rows)
}

/// The same, with only the first columns.
pub(crate) fn render_first<const COLUMNS: usize>(
    shown: usize,
    heading: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let mut lines = vec![heading.map(str::to_owned)];
    lines.extend(rows.into_iter().map(|row| row.map(|cell| printable(&cell))));
    let mut widths = [0; COLUMNS];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    lines.iter().map(|line| aligned(line.iter().zip(widths).take(shown))).collect()
}

/// Formats names and values, one pair a line.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.chars().count() + 1).max().unwrap_or_default();
    fields
        .iter()
        .map(|(name, value)| aligned([(&format!("{name}:"), width), (&printable(value), 0)]))
        .collect()
}

/// Formats a line of cells, each padded to its width.
fn aligned<'a>(cells: impl IntoIterator<Item = (&'a String, usize)>) -> String {
    let padded = cells.into_iter().map(|(cell, width)| format!("{cell:<0$}", width + GAP));
    format!("{}\n", padded.collect::<Vec<_>>().concat().trim_end())
}

/// Replaces control characters, so that a text stays on one line and can't control the terminal:
/// parts of it come from clients and functions.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Formats a number of bytes, to about three digits.
pub(crate) fn size(bytes: usize) -> String {
    // Below ten of a unit, the smaller unit is more precise.
    match bytes {
        0..10_240 => bytes.to_string(),
        10_240..10_485_760 => format!("{}Ki", bytes >> 10),
        _ => format!("{}Mi", bytes >> 20),
    }
}

/// Formats a duration, to two or three digits.
pub(crate) fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_blanks() {
        let rows = [["a", "1", "x"], ["größe", "22", ""]].map(|row| row.map(str::to_owned));
        let table = render(["NAME", "N", "WHY"], rows);
        assert_eq!(table, "NAME    N    WHY\na       1    x\ngröße   22\n");
        assert_eq!(render(["A", "B"], []), "A   B\n");
        let rows = [["1", "2"].map(str::to_owned)];
        assert_eq!(render_first(1, ["A", "B"], rows), "A\n1\n");
    }

    #[test]
    fn values_are_aligned() {
        let fields = fields(&[("A", "1".to_owned()), ("Long", String::new())]);
        assert_eq!(fields, "A:      1\nLong:\n");
    }

    #[test]
    fn control_characters_in_cells_are_replaced() {
        let table = render(["A"], [["x\u{1b}[31m\ny".to_owned()]]);
        assert_eq!(table, "A\nx\u{fffd}[31m\u{fffd}y\n");
    }

    #[test]
    fn sizes_and_ages_are_short() {
        assert_eq!([0, 10_239, 10_240, 10_485_760].map(size), ["0", "10239", "10Ki", "10Mi"]);
        let ages = [0, 119, 120, 7_200, 172_800].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["0s", "119s", "2m", "2h", "2d"]);
    }
}
