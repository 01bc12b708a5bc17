//! The limits of one function in a queue with lanes, and how often it has its turn.

use serde::{Deserialize, Serialize};

use super::rate::{MAX_RATE, Rate};

/// Maximum number of open invocations, of a queue or of a function.
pub const MAX_CONCURRENCY: u32 = 1_000_000;

/// Annotation: maximum number of open invocations of the function, over all workers.
pub const MAX_INFLIGHT: &str = "asyncqueue.io/max-inflight";
/// Annotation: number of calls of one turn.
pub const WEIGHT: &str = "asyncqueue.io/weight";
/// Annotation: how many invocations of the function start in a second, over all workers.
pub const RATE: &str = "asyncqueue.io/rate";

/// Maximum of [`FunctionLimits::weight`].
pub const MAX_WEIGHT: u32 = 100;

/// Separates the two numbers of a rate in an annotation.
const RATE_SEPARATOR: char = '/';

/// A function's own limits. `None`: as its queue says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionLimits {
    /// Maximum number of invocations that all workers together have open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_inflight: Option<u32>,
    /// Number of calls of one turn, while calls of other functions wait. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// How many invocations all workers together start in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

/// A limit of a function is not valid. The error names field, value, rule and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FunctionLimitsError {
    /// The number of open invocations is out of range.
    #[error("maxInflight `{0}` is not valid: use 1 to {MAX_CONCURRENCY}")]
    MaxInflight(u32),
    /// The weight is out of range.
    #[error("weight `{0}` is not valid: use 1 to {MAX_WEIGHT}")]
    Weight(u32),
    /// A number of the rate is out of range.
    #[error("rate.{0} `{1}` is not valid: use 1 to {MAX_RATE}")]
    Rate(&'static str, u32),
}

// === impl FunctionLimits ===

impl FunctionLimits {
    /// Reads the annotations that `get` returns. Values that can't be read or are out of range are
    /// left out, and described in the second part, with the rule.
    #[must_use]
    pub fn from_annotations<'a>(get: impl Fn(&str) -> Option<&'a str>) -> (Self, Vec<String>) {
        let mut invalid = Vec::new();
        let mut read = |name: &str, rule: String, parse: &dyn Fn(&str) -> Option<Self>| {
            let Some(text) = get(name).map(str::trim) else { return Self::default() };
            let limits = parse(text).filter(|limits| limits.check().is_ok());
            limits.unwrap_or_else(|| {
                invalid.push(format!("{name} `{text}` (use {rule})"));
                Self::default()
            })
        };
        let max_inflight = read(MAX_INFLIGHT, format!("1 to {MAX_CONCURRENCY}"), &|text| {
            Some(Self { max_inflight: Some(text.parse().ok()?), ..Self::default() })
        });
        let weight = read(WEIGHT, format!("1 to {MAX_WEIGHT}"), &|text| {
            Some(Self { weight: Some(text.parse().ok()?), ..Self::default() })
        });
        let rule =
            format!("a number a second, or one with a burst, as 10/20, each 1 to {MAX_RATE}");
        let rate = read(RATE, rule, &|text| {
            Some(Self { rate: Some(parse_rate(text)?), ..Self::default() })
        });
        (max_inflight.or(&weight).or(&rate), invalid)
    }

    /// Refuses values that are out of range.
    pub fn check(&self) -> Result<(), FunctionLimitsError> {
        let outside = |value: Option<u32>, max| value.filter(|value| !(1..=max).contains(value));
        if let Some(max) = outside(self.max_inflight, MAX_CONCURRENCY) {
            return Err(FunctionLimitsError::MaxInflight(max));
        }
        if let Some(weight) = outside(self.weight, MAX_WEIGHT) {
            return Err(FunctionLimitsError::Weight(weight));
        }
        let invalid = self.rate.and_then(|rate| rate.invalid_field());
        invalid.map_or(Ok(()), |(field, value)| Err(FunctionLimitsError::Rate(field, value)))
    }

    /// Returns whether no limit is present.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns these limits, completed by the others.
    #[must_use]
    pub fn or(self, others: &Self) -> Self {
        Self {
            max_inflight: self.max_inflight.or(others.max_inflight),
            weight: self.weight.or(others.weight),
            rate: self.rate.or(others.rate),
        }
    }
}

/// Reads `10`, or `10/20` with a burst.
fn parse_rate(text: &str) -> Option<Rate> {
    let (per_second, burst) = match text.split_once(RATE_SEPARATOR) {
        Some((per_second, burst)) => (per_second, Some(burst.trim().parse().ok()?)),
        None => (text, None),
    };
    Some(Rate { per_second: per_second.trim().parse().ok()?, burst })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &str)]) -> (FunctionLimits, Vec<String>) {
        FunctionLimits::from_annotations(|name| {
            annotations.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
        })
    }

    #[test]
    fn annotations_of_a_function_are_read() {
        let (limits, invalid) = read(&[(MAX_INFLIGHT, "10"), (WEIGHT, " 3\n"), (RATE, "5/20")]);
        let rate = Some(Rate { per_second: 5, burst: Some(20) });
        assert_eq!(limits, FunctionLimits { max_inflight: Some(10), weight: Some(3), rate });
        assert!(invalid.is_empty());
        let (limits, _) = read(&[(RATE, "5")]);
        assert_eq!(limits.rate, Some(Rate { per_second: 5, burst: None }));
        assert_eq!(read(&[]), (FunctionLimits::default(), Vec::new()));
    }

    #[test]
    fn invalid_annotations_are_left_out_and_named_with_the_rule() {
        let (limits, invalid) =
            read(&[(MAX_INFLIGHT, "0"), (WEIGHT, "101"), (RATE, "5/0"), ("other", "x")]);
        assert!(limits.is_empty());
        assert_eq!(
            invalid,
            [
                "asyncqueue.io/max-inflight `0` (use 1 to 1000000)",
                "asyncqueue.io/weight `101` (use 1 to 100)",
                "asyncqueue.io/rate `5/0` (use a number a second, or one with a burst, as 10/20, \
                 each 1 to 100000)",
            ]
        );
        for (name, text) in
            [(MAX_INFLIGHT, "many"), (WEIGHT, "-1"), (RATE, "/"), (RATE, "1/"), (RATE, "0.5")]
        {
            let (limits, invalid) = read(&[(name, text), (WEIGHT, "2")]);
            assert!(invalid.len() == 1 || name == WEIGHT, "{text}: {invalid:?}");
            assert!(limits.max_inflight.is_none() && limits.rate.is_none(), "{text}");
        }
    }

    #[test]
    fn limits_read_back_as_they_were_written() {
        let rate = Some(Rate { per_second: 5, burst: None });
        let limits = FunctionLimits { max_inflight: Some(10), weight: Some(3), rate };
        let json = r#"{"maxInflight":10,"weight":3,"rate":{"perSecond":5}}"#;
        assert_eq!(serde_json::to_string(&limits).unwrap(), json);
        assert_eq!(serde_json::from_str::<FunctionLimits>(json).unwrap(), limits);
        assert_eq!(serde_json::to_string(&FunctionLimits::default()).unwrap(), "{}");
    }
}
