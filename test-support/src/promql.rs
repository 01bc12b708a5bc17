//! The metrics and labels that `PromQL` expressions use, next to those that programs export. Pure.
//!
//! No parser of the whole language, which promtool is: names, matchers and groupings are all that
//! is looked for.

use std::collections::{BTreeMap, BTreeSet};

/// What stands before a list of labels that group or match results.
const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// What stands between expressions.
const OPERATORS: [&str; 4] = ["and", "or", "unless", "bool"];

/// A metric that an expression reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Used {
    /// Its name.
    pub metric: String,
    /// The labels it is expected to have.
    pub labels: BTreeSet<String>,
    /// The labels that are expected to have this very value.
    pub values: BTreeSet<(String, String)>,
}

/// A metric that a program exports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// The labels of all its series.
    pub labels: BTreeSet<String>,
    /// The values of these labels.
    pub values: BTreeSet<(String, String)>,
}

/// The metrics that an expression reads. Labels that results are grouped by count for all of them.
#[must_use]
pub fn used(expression: &str) -> BTreeSet<Used> {
    let (mut found, mut groupings) = (Vec::new(), BTreeSet::new());
    let mut rest = expression;
    while let Some(start) =
        rest.find(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '[' || c == '"')
    {
        rest = &rest[start..];
        if let Some(range) = rest.strip_prefix('[') {
            rest = after(range, ']');
            continue;
        }
        if let Some(text) = rest.strip_prefix('"') {
            rest = after(text, '"');
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, next) = rest.split_at(end);
        rest = next.trim_start();
        if GROUPINGS.contains(&word) {
            if let Some((labels, next)) =
                rest.strip_prefix('(').and_then(|list| list.split_once(')'))
            {
                groupings.extend(labels.split(',').map(|label| label.trim().to_owned()));
                rest = next;
            }
        } else if let Some((matchers, next)) =
            rest.strip_prefix('{').and_then(|list| list.split_once('}'))
        {
            found.push(matched(word, matchers));
            rest = next;
        } else if !is_function(rest) && !OPERATORS.contains(&word) {
            found.push(Used { metric: word.to_owned(), ..Used::default() });
        }
    }
    for used in &mut found {
        used.labels.extend(groupings.iter().filter(|label| !label.is_empty()).cloned());
    }
    found.into_iter().collect()
}

/// The metrics in what a program answers to a scrape.
/// <https://prometheus.io/docs/specs/om/open_metrics_spec/>
#[must_use]
pub fn exported(scrape: &str) -> BTreeMap<String, Exported> {
    let mut exported = BTreeMap::<String, Exported>::new();
    for line in scrape.lines().filter(|line| !line.starts_with('#')) {
        let end = line.find(['{', ' ']).unwrap_or(line.len());
        let metric = exported.entry(line[..end].to_owned()).or_default();
        let labels = line[end..].strip_prefix('{').and_then(|rest| rest.rsplit_once('}'));
        // No value of ours has a comma or a quote in it.
        for (label, value) in
            labels.into_iter().flat_map(|(labels, _)| labels.split(',')).filter_map(pair)
        {
            metric.labels.insert(label.clone());
            metric.values.insert((label, value));
        }
    }
    exported
}

/// Whether a word that this follows is a function or an aggregation: `rate (…)`, `sum by (…)`.
fn is_function(next: &str) -> bool {
    next.starts_with('(') || GROUPINGS.iter().any(|grouping| next.starts_with(grouping))
}

fn after(text: &str, end: char) -> &str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}

fn matched(metric: &str, matchers: &str) -> Used {
    let mut used = Used { metric: metric.to_owned(), ..Used::default() };
    for matcher in matchers.split(',').filter(|matcher| !matcher.trim().is_empty()) {
        let end = matcher.find(['=', '!']).unwrap_or(matcher.len());
        used.labels.insert(matcher[..end].trim().to_owned());
        // A pattern or a negation names no value that there must be.
        used.values.extend(pair(matcher).filter(|_| matcher[end..].starts_with("=\"")));
    }
    used
}

/// A label and its value, as in `label="value"`.
fn pair(text: &str) -> Option<(String, String)> {
    let (label, value) = text.split_once('=')?;
    Some((label.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(labels: &[&str]) -> BTreeSet<String> {
        labels.iter().map(|&label| label.to_owned()).collect()
    }

    #[test]
    fn metrics_are_found_among_functions_operators_and_ranges() {
        let expression = "max by (queue) (a_total) > 100 and deriv(b[30m]) > 0 or c == 0 unless d";
        let found: Vec<_> = used(expression).into_iter().map(|used| used.metric).collect();
        assert_eq!(found, ["a_total", "b", "c", "d"]);
    }

    #[test]
    fn labels_are_those_of_matchers_and_groupings() {
        let expression = r#"sum by (le, queue) (rate(a_bucket{outcome="dead",path=~"x|y",status!="200"}[$__rate_interval]))"#;
        let found = used(expression).into_iter().next().unwrap();
        assert_eq!(found.labels, names(&["le", "outcome", "path", "queue", "status"]));
        assert_eq!(found.values, [("outcome".to_owned(), "dead".to_owned())].into());
    }

    #[test]
    fn a_grouping_counts_for_all_metrics_of_an_expression() {
        let found = used("sum by (q) (a) / ignoring (q) group_left sum(b)");
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|used| used.labels == names(&["q"])), "{found:?}");
    }

    #[test]
    fn exported_metrics_have_the_labels_of_all_their_series() {
        let scrape = "# HELP a_total Help {x=\"y\"}\na_total{q=\"1\",o=\"done\"} 5\na_total{q=\"2\",p=\"x\"} 1\nb 1.5\n# EOF\n";
        let exported = exported(scrape);
        assert_eq!(exported.keys().collect::<Vec<_>>(), ["a_total", "b"]);
        assert_eq!(exported["a_total"].labels, names(&["o", "p", "q"]));
        assert!(exported["a_total"].values.contains(&("o".to_owned(), "done".to_owned())));
        assert!(exported["b"].labels.is_empty());
    }
}
