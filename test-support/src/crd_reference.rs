//! The reference of the `AsyncQueue`, from its definition in `crds/asyncqueues.yaml`, which is
//! written from the operator's types. `docs/crd.md` is this document.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::documents::read;

/// Columns of a line of text.
const COLUMNS: usize = 120;

/// Fields of `spec.worker` that are those of a Pod. Kubernetes documents what is in them.
const OF_PODS: [&str; 6] = [
    "affinity",
    "env",
    "imagePullSecrets",
    "resources",
    "tolerations",
    "topologySpreadConstraints",
];

/// The pattern of a duration.
const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$";

/// The document.
#[must_use]
pub fn document() -> String {
    let definition: Value =
        serde_saphyr::from_str(&read("crds/asyncqueues.yaml")).expect("it is YAML");
    let (names, version) = (&definition["spec"]["names"], &definition["spec"]["versions"][0]);
    let schema = &version["schema"]["openAPIV3Schema"];
    let mut text = String::from(HEAD);
    // Writing to a string does not fail, here and below.
    let _ = writeln!(
        text,
        "\n| | |\n|---|---|\n| `apiVersion` | `{}/{}` |\n| `kind` | `{}` |\n| names for kubectl | \
         {} |\n| category | {} |\n| scope | {} |",
        string(&definition["spec"]["group"]),
        string(&version["name"]),
        string(&names["kind"]),
        codes([&names["plural"], &names["singular"]].into_iter().chain(list(&names["shortNames"]))),
        codes(list(&names["categories"])),
        string(&definition["spec"]["scope"]),
    );
    write_paragraphs(&mut text, schema);
    write_rules(&mut text, "An object", schema);
    for part in ["spec", "status"] {
        write_section(&mut text, part, &schema["properties"][part]);
    }
    write_columns(&mut text, &version["additionalPrinterColumns"]);
    text
}

/// Writes the fields of an object, and then those of its parts, each in a section.
fn write_section(text: &mut String, path: &str, schema: &Value) {
    let _ = writeln!(text, "\n## {path}");
    write_paragraphs(text, schema);
    let parts: Vec<_> =
        properties(schema).into_iter().filter(|(name, field)| is_part(path, name, field)).collect();
    let _ = writeln!(
        text,
        "\n| field | type | default | limits | description |\n|---|---|---|---|---|"
    );
    for (name, field) in properties(schema) {
        if is_part(path, name, field) {
            let section = format!("{path}.{name}");
            let anchor = section.replace('.', "").to_lowercase();
            let _ = writeln!(
                text,
                "| `{name}` | [object](#{anchor}) | | | {} |",
                first_sentence(&prose(&field["description"]))
            );
        } else {
            write_field(text, path, name, field, is_required(schema, name));
        }
    }
    write_rules(text, &format!("`{path}`"), schema);
    for (name, field) in parts {
        write_section(text, &format!("{path}.{name}"), field);
    }
}

/// Writes the row of a field, and those of the fields in it.
fn write_field(text: &mut String, path: &str, name: &str, field: &Value, required: bool) {
    let _ = writeln!(
        text,
        "| `{name}` | {} | {} | {} | {} |",
        type_of(field),
        field.get("default").map(|default| format!("`{default}`")).unwrap_or_default(),
        limits(field, required),
        prose(&field["description"]),
    );
    if is_of_pods(path, name) {
        return;
    }
    let (inner, suffix) = if field["items"]["properties"].is_object() {
        (&field["items"], "[]")
    } else {
        (field, "")
    };
    for (inner_name, inner_field) in properties(inner) {
        let name = format!("{name}{suffix}.{inner_name}");
        write_field(text, path, &name, inner_field, is_required(inner, inner_name));
    }
}

fn write_paragraphs(text: &mut String, schema: &Value) {
    for paragraph in string(&schema["description"]).split("\n\n") {
        let _ = writeln!(text, "\n{}", wrapped(&escaped(paragraph)));
    }
}

/// Writes the rules of a whole object, which compare fields with each other.
fn write_rules(text: &mut String, what: &str, schema: &Value) {
    let rules = messages(schema);
    if rules.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n| {what} is refused, with this message |\n|---|");
    for rule in rules {
        let _ = writeln!(text, "| {rule} |");
    }
}

fn write_columns(text: &mut String, columns: &Value) {
    let _ = write!(
        text,
        "\n## Columns of kubectl get\n\nColumns marked as wide are shown by `kubectl get aq -o \
         wide`.\n\n| column | field | description |\n|---|---|---|\n"
    );
    for column in list(columns) {
        let wide = if column["priority"].as_u64().unwrap_or(0) > 0 { " (wide)" } else { "" };
        let _ = writeln!(
            text,
            "| {}{wide} | `{}` | {} |",
            string(&column["name"]),
            string(&column["jsonPath"]).trim_start_matches('.'),
            prose(&column["description"]),
        );
    }
}

/// Whether a field is an object with a section of its own.
fn is_part(path: &str, name: &str, field: &Value) -> bool {
    path == "spec" && field["properties"].is_object() && !is_of_pods(path, name)
}

fn is_of_pods(path: &str, name: &str) -> bool {
    path == "spec.worker" && OF_PODS.contains(&name)
}

fn is_required(schema: &Value, name: &str) -> bool {
    list(&schema["required"]).any(|other| other == name)
}

fn type_of(field: &Value) -> String {
    if field["x-kubernetes-int-or-string"] == true {
        return "quantity".to_owned();
    }
    match (string(&field["type"]), string(&field["format"])) {
        ("array", _) => format!("list of {}", type_of(&field["items"])),
        ("object", _) if field["additionalProperties"].is_object() => {
            format!("map to {}", type_of(&field["additionalProperties"]))
        }
        ("string", "date-time") => "time".to_owned(),
        ("string", _) if field["pattern"] == DURATION => "duration".to_owned(),
        (kind, _) => kind.to_owned(),
    }
}

/// What the API server accepts: the messages of the rules, and what the schema says without one.
fn limits(field: &Value, required: bool) -> String {
    let mut limits = Vec::new();
    if required {
        limits.push("required".to_owned());
    }
    if field["enum"].is_array() {
        limits.push(codes(list(&field["enum"])));
    }
    if let Some(range) = range(field, "minimum", "maximum") {
        limits.push(range);
    }
    limits
        .extend(range(&field["items"], "minimum", "maximum").map(|range| format!("each {range}")));
    for (most, what) in [("maxItems", "items"), ("maxProperties", "entries")] {
        limits.extend(field[most].as_u64().map(|most| format!("at most {most} {what}")));
    }
    let rules = messages(field);
    if rules.is_empty() {
        let lengths = range(field, "minLength", "maxLength");
        limits.extend(lengths.map(|range| format!("{range} characters")));
        let pattern = field["pattern"].as_str();
        limits.extend(pattern.map(|pattern| format!("`{}`", pattern.replace('|', "\\|"))));
    }
    limits.extend(rules);
    limits.join("; ")
}

fn range(field: &Value, least: &str, most: &str) -> Option<String> {
    // The numbers are whole, but JSON may have them as 1.0.
    match (field[least].as_f64(), field[most].as_f64()) {
        (Some(least), Some(most)) => Some(format!("{least:.0} to {most:.0}")),
        (Some(least), None) => Some(format!("at least {least:.0}")),
        (None, Some(most)) => Some(format!("at most {most:.0}")),
        (None, None) => None,
    }
}

/// The messages of the rules of a part of the schema.
fn messages(schema: &Value) -> Vec<String> {
    let rules = list(&schema["x-kubernetes-validations"]);
    rules.map(|rule| prose(&rule["message"])).collect()
}

fn properties(schema: &Value) -> Vec<(&str, &Value)> {
    let fields = schema["properties"].as_object().into_iter().flat_map(Map::iter);
    fields.map(|(name, field)| (name.as_str(), field)).collect()
}

/// These names as code, in one line.
fn codes<'a>(names: impl Iterator<Item = &'a Value>) -> String {
    names.map(|name| format!("`{}`", string(name))).collect::<Vec<_>>().join(", ")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A text in one line, for a table.
fn prose(value: &Value) -> String {
    escaped(&string(value).split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A text in which nothing is Markdown.
fn escaped(text: &str) -> String {
    text.replace('<', "\\<").replace('*', "\\*").replace('|', "\\|")
}

fn first_sentence(text: &str) -> &str {
    text.find(". ").map_or(text, |end| &text[..=end])
}

/// A paragraph in lines of at most [`COLUMNS`].
fn wrapped(paragraph: &str) -> String {
    let mut lines = vec![String::new()];
    for word in paragraph.split_whitespace() {
        let last = lines.last_mut().expect("there is one");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= COLUMNS {
            let _ = write!(last, " {word}");
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

const HEAD: &str = "\
# AsyncQueue reference

For everyone who writes an AsyncQueue, the resource that describes a queue: all its fields, with
their types, defaults and limits. [README.md](../README.md#the-asyncqueue) has an example, and
`kubectl explain asyncqueue.spec` shows the same texts.
[bad-inputs.md](bad-inputs.md#asyncqueues-at-admission) has examples of what is refused.

A duration is written as `200ms`, `90s`, `15m` or `1h30m`. A quantity is a number of bytes, such as
`1000`, `256Ki` or `5Gi`. This page is generated from
[crds/asyncqueues.yaml](../crds/asyncqueues.yaml).
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_shows_the_definition() {
        crate::documents::assert_generated(
            "docs/crd.md",
            &document(),
            "--package=test-support crd_reference",
        );
    }

    #[test]
    fn limits_are_those_of_rules_and_schema() {
        let limits = |field: &str| limits(&serde_saphyr::from_str(field).unwrap(), false);
        assert_eq!(limits("{type: integer, minimum: 1.0, maximum: 10}"), "1 to 10");
        assert_eq!(limits("{type: string, enum: [File, Memory]}"), "`File`, `Memory`");
        assert_eq!(
            limits("{type: string, maxLength: 9, pattern: a|b}"),
            "at most 9 characters; `a\\|b`"
        );
        let rule = "{type: string, maxLength: 9, x-kubernetes-validations: [{message: a *}]}";
        assert_eq!(limits(rule), "a \\*");
        assert_eq!(
            limits("{type: array, maxItems: 3, items: {minimum: 1}}"),
            "each at least 1; at most 3 items"
        );
    }

    #[test]
    fn a_paragraph_is_wrapped() {
        let text = "word ".repeat(60);
        let lines: Vec<_> = wrapped(&text).lines().map(str::len).collect();
        assert_eq!(lines, [119, 119, 59]);
    }
}
