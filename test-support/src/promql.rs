//! The metrics and labels that `PromQL` expressions use, and those that programs export. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use promql_parser::{
    label::{MatchOp, Matcher},
    parser::{self, Expr, LabelModifier, VectorSelector, token},
    util::{ExprVisitor, walk_expr},
};

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
///
/// # Panics
///
/// The text is not a `PromQL` expression.
#[must_use]
pub fn used(expression: &str) -> BTreeSet<Used> {
    let parsed = parser::parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut found = Selectors::default();
    let Ok(_) = walk_expr(&mut found, &parsed);
    let Selectors { metrics, groupings, .. } = found;
    let with_groupings = |mut used: Used| {
        used.labels.extend(groupings.iter().cloned());
        used
    };
    metrics.into_iter().map(with_groupings).collect()
}

/// What an expression selects.
#[derive(Default)]
struct Selectors {
    metrics: Vec<Used>,
    groupings: BTreeSet<String>,
    functions: BTreeSet<String>,
}

impl Selectors {
    fn select(&mut self, selector: &VectorSelector) {
        let mut used =
            Used { metric: selector.name.clone().unwrap_or_default(), ..Used::default() };
        for Matcher { op, name, value } in &selector.matchers.matchers {
            used.labels.insert(name.clone());
            // A pattern or a negation names no value that there must be.
            if *op == MatchOp::Equal {
                used.values.insert((name.clone(), value.clone()));
            }
        }
        self.metrics.push(used);
    }

    fn group(&mut self, modifier: Option<&LabelModifier>) {
        let labels = modifier.into_iter().flat_map(|modifier| &modifier.labels().labels);
        self.groupings.extend(labels.cloned());
    }
}

impl ExprVisitor for Selectors {
    type Error = Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Self::Error> {
        match expression {
            Expr::VectorSelector(selector) => self.select(selector),
            Expr::MatrixSelector(matrix) => self.select(&matrix.vs),
            Expr::Call(call) => {
                self.functions.insert(call.func.name.to_owned());
            }
            Expr::Aggregate(aggregate) => self.group(aggregate.modifier.as_ref()),
            Expr::Binary(binary) => {
                let modifier = binary.modifier.as_ref();
                self.group(modifier.and_then(|modifier| modifier.matching.as_ref()));
                let kept = modifier.and_then(|modifier| modifier.card.labels());
                self.groupings.extend(kept.into_iter().flat_map(|labels| labels.labels.clone()));
            }
            _ => {}
        }
        Ok(true)
    }
}

/// A value above which an alert fires.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// The metrics that are compared with it.
    pub metrics: BTreeSet<String>,
    /// The functions that are applied to them.
    pub functions: BTreeSet<String>,
    /// The value.
    pub above: f64,
}

/// The limits in an expression: each number that something is greater than.
///
/// # Panics
///
/// The text is not a `PromQL` expression.
#[must_use]
pub fn limits(expression: &str) -> Vec<Limit> {
    let parsed = parser::parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let mut found = Limits::default();
    let Ok(_) = walk_expr(&mut found, &parsed);
    found.0
}

#[derive(Default)]
struct Limits(Vec<Limit>);

impl ExprVisitor for Limits {
    type Error = Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Self::Error> {
        if let Expr::Binary(binary) = expression
            && let Expr::NumberLiteral(number) = &*binary.rhs
            && binary.op.id() == token::T_GTR
        {
            let mut selected = Selectors::default();
            let Ok(_) = walk_expr(&mut selected, &binary.lhs);
            let metrics = selected.metrics.into_iter().map(|used| used.metric).collect();
            self.0.push(Limit { metrics, functions: selected.functions, above: number.val });
        }
        Ok(true)
    }
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
        let expression =
            r#"sum by (le, queue) (rate(a_bucket{outcome="dead",path=~"x|y",status!="200"}[5m]))"#;
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
    fn limits_are_the_numbers_that_metrics_are_compared_with() {
        let found = limits("max by (q) (a) > 100 and deriv(a[30m]) > 0 or b / c > 0.5 or d == 0");
        let limit = |metrics, functions, above| Limit {
            metrics: names(metrics),
            functions: names(functions),
            above,
        };
        let expected = [
            limit(&["a"], &[], 100.0),
            limit(&["a"], &["deriv"], 0.0),
            limit(&["b", "c"], &[], 0.5),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn exported_metrics_have_the_labels_of_all_their_series() {
        let scrape = "# HELP a_total Help {x=\"y\"}\na_total{q=\"1\",o=\"done\"} 5\n\
                      a_total{q=\"2\",p=\"x\"} 1\nb 1.5\n# EOF\n";
        let exported = exported(scrape);
        assert_eq!(exported.keys().collect::<Vec<_>>(), ["a_total", "b"]);
        assert_eq!(exported["a_total"].labels, names(&["o", "p", "q"]));
        assert!(exported["a_total"].values.contains(&("o".to_owned(), "done".to_owned())));
        assert!(exported["b"].labels.is_empty());
    }
}
