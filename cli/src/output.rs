//! Prints the output of commands.

use std::collections::HashSet;

pub(crate) use asyncqueue_runtime::output::{print, print_bytes, print_error};
use clap::{ValueEnum, builder::PossibleValue};
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

/// The format of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListFormat {
    /// That of any value.
    Value(Format),
    /// Only the names, one a line.
    Names,
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

// === impl ListFormat ===

impl ListFormat {
    /// Returns whether it is for people, who need no table without rows.
    pub(crate) fn is_table(self) -> bool {
        matches!(self, Self::Value(format) if format.is_table())
    }
}

impl Default for ListFormat {
    fn default() -> Self {
        Self::Value(Format::default())
    }
}

impl ValueEnum for ListFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Value(Format::Table),
            Self::Value(Format::Wide),
            Self::Value(Format::Json),
            Self::Value(Format::Yaml),
            Self::Names,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Value(format) => format.to_possible_value(),
            Self::Names => Some(PossibleValue::new("name").help("Only the names, one a line")),
        }
    }
}

/// Prints a list in a format. `table` is its form for people. A name that several items have is
/// printed once.
pub(crate) fn print_list<T: Serialize>(
    format: ListFormat,
    items: &[T],
    name: impl Fn(&T) -> String,
    table: impl FnOnce(Format) -> String,
) -> anyhow::Result<()> {
    match format {
        ListFormat::Value(format) => print_value(format, &items, || table(format)),
        ListFormat::Names => Ok(print(&names(items.iter().map(name)))?),
    }
}

/// Formats names, one a line and each once.
pub(crate) fn names(names: impl IntoIterator<Item = String>) -> String {
    let mut seen = HashSet::new();
    let each_once = names.into_iter().filter(|name| seen.insert(name.clone()));
    each_once.map(|name| name + "\n").collect()
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
    fn each_name_is_one_line() {
        let all = names(["b", "a", "b"].map(str::to_owned));
        assert_eq!((all.as_str(), names([]).as_str()), ("b\na\n", ""));
    }

    #[test]
    fn a_list_has_the_formats_of_a_value_and_names() {
        let offered = |value: &[&str]| {
            value
                .iter()
                .map(|text| ListFormat::from_str(text, false))
                .collect::<Result<Vec<_>, _>>()
        };
        let formats = Format::value_variants();
        let texts: Vec<_> = formats.iter().filter_map(Format::to_possible_value).collect();
        let texts: Vec<&str> = texts.iter().map(PossibleValue::get_name).collect();
        let expected = formats.iter().copied().map(ListFormat::Value).collect();
        assert_eq!(offered(&texts), Ok(expected));
        assert_eq!(offered(&["name"]), Ok(vec![ListFormat::Names]));
        assert!(!ListFormat::Names.is_table() && ListFormat::default().is_table());
    }

    #[test]
    fn only_a_wide_table_has_all_columns() {
        assert_eq!(Format::Table.columns(3), 3);
        assert_eq!(Format::Wide.columns(3), usize::MAX);
    }
}
