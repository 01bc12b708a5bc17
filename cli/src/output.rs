//! Prints the output of commands.

pub(crate) use asyncqueue_runtime::output::{print, print_bytes, print_error};
use clap::ValueEnum;
use serde::Serialize;

/// The format of what a command shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table.
    #[default]
    Table,
    /// A table with more columns, where there are more.
    Wide,
    /// JSON.
    Json,
    /// YAML, with the fields of JSON.
    Yaml,
}

// === impl Format ===

impl Format {
    /// Returns whether it is for people, who need no table without rows.
    pub(crate) fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }

    /// Returns how many of the columns of a table are printed, of which so many are for all.
    pub(crate) fn columns(self, narrow: usize) -> usize {
        if self == Self::Wide { usize::MAX } else { narrow }
    }
}

/// Prints a value in a format. `table` is its form for people.
pub(crate) fn print_value(
    format: Format,
    value: &impl Serialize,
    table: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    match format {
        Format::Table | Format::Wide => Ok(print(&table())?),
        Format::Json => print_json(value),
        Format::Yaml => print_yaml(value),
    }
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(print(&format!("{}\n", serde_json::to_string_pretty(value)?))?)
}

/// Prints a value as YAML.
pub(crate) fn print_yaml(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(print(&yaml(value)?)?)
}

fn yaml(value: &impl Serialize) -> anyhow::Result<String> {
    // By way of JSON, so that both have the same fields.
    let yaml = serde_saphyr::to_string(&serde_json::to_value(value)?)?;
    Ok(format!("{}\n", yaml.trim_end()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_has_the_fields_and_types_of_json() {
        let value = json!([{ "queue": "jobs", "workers": null, "pending": 3, "version": "1.0" }]);
        let text = yaml(&value).unwrap();
        assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&text).unwrap(), value, "{text}");
        assert!(text.contains("queue: jobs\n"), "{text}");
    }

    #[test]
    fn only_a_wide_table_has_all_columns() {
        assert_eq!(Format::Table.columns(3), 3);
        assert_eq!(Format::Wide.columns(3), usize::MAX);
    }
}
