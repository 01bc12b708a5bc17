//! Markdown tables, read again.

/// A table of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// All tables of a text.
    #[must_use]
    pub fn all(text: &str) -> Vec<Self> {
        let mut tables = Vec::new();
        let mut inside = false;
        for line in text.lines() {
            let Some(cells) = cells(line) else {
                inside = false;
                continue;
            };
            match tables.last_mut() {
                Some(Self { rows, .. }) if inside => rows.push(cells),
                _ => tables.push(Self { columns: cells, rows: Vec::new() }),
            }
            inside = true;
        }
        for table in &mut tables {
            // The line below the columns.
            table.rows.retain(|cells| !cells.iter().all(|cell| cell.starts_with("---")));
        }
        tables
    }

    /// The first column's cells.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().filter_map(|cells| cells.first().map(String::as_str))
    }

    /// The number in a row whose first cell is `row`, and in the first column whose name ends in
    /// `column`.
    #[must_use]
    pub fn number(&self, row: &str, column: &str) -> Option<f64> {
        let column = self.columns.iter().position(|name| name.ends_with(column))?;
        let cells = self.rows.iter().find(|cells| cells.first().is_some_and(|name| name == row))?;
        number(cells.get(column)?)
    }
}

/// The number in any table of a text.
#[must_use]
pub fn find(text: &str, row: &str, column: &str) -> Option<f64> {
    Table::all(text).iter().find_map(|table| table.number(row, column))
}

fn cells(line: &str) -> Option<Vec<String>> {
    let cells = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(cells.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// The number that a cell begins with: what comes after it is a unit or a range.
fn number(cell: &str) -> Option<f64> {
    cell.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "words\n\n\
                        | | a | in 30 s: b |\n|---|---|---|\n| x | 1 (0 to 2) | 2.5 % |\n\n\
                        | c |\n|---|\n| 7 |\n";

    #[test]
    fn each_table_is_found_with_its_numbers() {
        let tables = Table::all(TEXT);
        assert_eq!(tables.len(), 2);
        assert_eq!(tables[0].names().collect::<Vec<_>>(), ["x"]);
        assert_eq!(find(TEXT, "x", "a"), Some(1.0));
        assert_eq!(find(TEXT, "x", ": b"), Some(2.5));
        assert_eq!(find(TEXT, "7", "c"), Some(7.0));
    }

    #[test]
    fn missing_cells_have_no_number() {
        assert_eq!(find(TEXT, "y", "a"), None);
        assert_eq!(find(TEXT, "x", "z"), None);
        assert_eq!(find("| a |\n|---|\n| text |\n", "text", "a"), None);
    }
}
