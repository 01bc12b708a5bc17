//! `values.yaml` and the tables of `README.md` of the chart are written from `values.schema.json`,
//! which has the description and the default of each value.

use std::{env, fmt::Write, fs};

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

use crate::{chart_examples, support::manifests};

/// How the files are written.
const COMMAND: &str =
    "WRITE_DOCUMENT=1 cargo test --package=asyncqueue-tests --test=manifests chart_";

/// Maximum width of comments in `values.yaml`.
const WIDTH: usize = 100;

/// A value of the chart, or a group of values, in the order of the file.
#[derive(Clone, Debug, Default, Deserialize)]
struct Schema {
    description: Option<String>,
    default: Option<Value>,
    #[serde(default)]
    properties: IndexMap<String, Schema>,
    #[serde(rename = "$ref")]
    reference: Option<String>,
    #[serde(default)]
    definitions: IndexMap<String, Schema>,
}

/// A line of `README.md`: a value, or the group that the values after it belong to.
struct Row {
    path: String,
    description: String,
    default: Option<Value>,
}

// === impl Schema ===

impl Schema {
    fn read() -> Self {
        let text = fs::read_to_string(manifests().join("helm/values.schema.json")).unwrap();
        let root: Self = serde_json::from_str(&text).unwrap();
        root.resolved(&root.definitions)
    }

    /// Replaces references by what they refer to. What stands next to a reference wins.
    fn resolved(&self, definitions: &IndexMap<String, Self>) -> Self {
        let referenced = self.reference.as_ref().map(|reference| {
            let name = reference.strip_prefix("#/definitions/").unwrap();
            definitions[name].resolved(definitions)
        });
        let mut resolved = referenced.unwrap_or_default();
        resolved.description = self.description.clone().or(resolved.description);
        resolved.default = self.default.clone().or(resolved.default);
        for (name, property) in &self.properties {
            resolved.properties.insert(name.clone(), property.resolved(definitions));
        }
        resolved
    }

    /// The values and groups below this, in the order of the file. `global` is Helm's own.
    fn values(&self) -> impl Iterator<Item = (&String, &Self)> {
        self.properties.iter().filter(|(name, _)| *name != "global")
    }

    /// Appends a row for each value and each described group below this.
    fn rows(&self, path: &str, rows: &mut Vec<Row>) {
        for (name, value) in self.values() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            assert!(
                value.default.is_none() || value.description.is_some(),
                "{path} has no description in values.schema.json"
            );
            if let Some(description) = value.description.clone() {
                rows.push(Row { path: path.clone(), description, default: value.default.clone() });
            }
            if value.default.is_none() {
                assert!(
                    !value.properties.is_empty(),
                    "{path} has no default in values.schema.json"
                );
                value.rows(&path, rows);
            }
        }
    }

    /// Appends the values below this as YAML with comments.
    fn write_yaml(&self, indent: usize, text: &mut String) {
        let margin = " ".repeat(indent);
        for (name, value) in self.values() {
            if indent == 0 {
                text.push('\n');
            }
            for line in
                wrapped(value.description.as_deref().unwrap_or_default(), WIDTH - indent - 2)
            {
                writeln!(text, "{margin}# {line}").unwrap();
            }
            if let Some(default) = &value.default {
                write_default(name, default, &margin, text);
            } else {
                writeln!(text, "{margin}{name}:").unwrap();
                value.write_yaml(indent + 2, text);
            }
        }
    }
}

/// Appends a default: an object with a line for each field, all else as JSON, which YAML contains.
fn write_default(name: &str, default: &Value, margin: &str, text: &mut String) {
    match default {
        Value::Object(fields) if !fields.is_empty() => {
            writeln!(text, "{margin}{name}:").unwrap();
            for (field, value) in fields {
                write_default(field, value, &format!("{margin}  "), text);
            }
        }
        value => writeln!(text, "{margin}{name}: {value}").unwrap(),
    }
}

/// Breaks a text into lines of at most this width.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn values_yaml() -> String {
    let mut text = format!(
        "# Values of the chart with their defaults. Written from values.schema.json by\n#     {}\n",
        COMMAND.replace(" --package", " \\\n#         --package")
    );
    Schema::read().write_yaml(0, &mut text);
    text
}

fn values_table() -> String {
    let mut rows = Vec::new();
    Schema::read().rows("", &mut rows);
    let mut text = "| value | what it sets | default |\n|---|---|---|\n".to_owned();
    for Row { path, description, default } in rows {
        let (description, default) = (
            description.replace('|', "\\|"),
            default.map_or(String::new(), |default| format!("`{default}`")),
        );
        writeln!(text, "| `{path}` | {description} | {default} |").unwrap();
    }
    text
}

fn examples_table() -> String {
    let mut text = "| file | what it shows |\n|---|---|\n".to_owned();
    for example in chart_examples::all() {
        let (file, description) = (example.file_name(), example.description());
        writeln!(text, "| [{file}](ci/{file}) | {description} |").unwrap();
    }
    text
}

/// Replaces what is between the comments `<!-- NAME -->` and `<!-- /NAME -->`.
fn with_part(document: &str, name: &str, content: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->\n"));
    let (before, rest) = document.split_once(&begin).unwrap();
    let (_, after) = rest.split_once(&end).unwrap();
    format!("{before}{begin}\n{content}\n{end}{after}")
}

/// Compares a file of the chart with its expected content, or writes it.
fn assert_written(file: &str, expected: &str) {
    let path = manifests().join("helm").join(file);
    if env::var_os("WRITE_DOCUMENT").is_some() {
        fs::write(&path, expected).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(written == expected, "manifests/helm/{file} differs from its sources: {COMMAND}");
}

#[test]
fn values_yaml_has_the_defaults_of_the_schema() {
    assert_written("values.yaml", &values_yaml());
}

#[test]
fn readme_lists_all_values_and_examples() {
    let readme = fs::read_to_string(manifests().join("helm/README.md")).unwrap();
    let readme = with_part(&readme, "examples", &examples_table());
    assert_written("README.md", &with_part(&readme, "values", &values_table()));
}

#[test]
fn long_texts_are_wrapped_between_words() {
    assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
    assert_eq!(wrapped("indivisible", 3), ["indivisible"]);
    assert!(wrapped("", 7).is_empty());
}
