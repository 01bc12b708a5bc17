//! The expressions in `manifests/monitoring`.

use std::fs;

use serde::Deserialize;
use serde_json::Value;

use crate::cluster::repository;

/// The alerts, each as an entry of a rule file.
#[must_use]
pub fn alerts() -> Vec<Value> {
    let rule: Value = serde_saphyr::from_str(&read("alerts.yaml")).expect("the alerts are YAML");
    let groups = rule["spec"]["groups"].as_array().expect("groups of alerts");
    groups.iter().flat_map(|group| group["rules"].as_array().expect("alerts")).cloned().collect()
}

/// The dashboard.
#[derive(Clone, Debug, Deserialize)]
pub struct Dashboard {
    /// What stands above it.
    pub title: String,
    /// Its panels, from top to bottom.
    pub panels: Vec<Panel>,
}

/// A panel of the dashboard.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Panel {
    /// `row`, `stat` or `timeseries`.
    pub r#type: String,
    /// What stands above it.
    pub title: String,
    /// What it shows; empty for a row.
    #[serde(default)]
    pub description: String,
    /// Where it is.
    pub grid_pos: GridPos,
    /// Its unit and its thresholds.
    #[serde(default)]
    pub field_config: FieldConfig,
    /// Its queries; none for a row.
    #[serde(default)]
    pub targets: Vec<Target>,
}

/// Where a panel is, in units of a grid that is 24 wide.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct GridPos {
    /// Height.
    pub h: u32,
    /// Width.
    pub w: u32,
    /// From the left.
    pub x: u32,
    /// From the top.
    pub y: u32,
}

/// How a panel shows values.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct FieldConfig {
    /// The same for all of its series.
    pub defaults: Defaults,
}

/// How a panel shows a value.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Defaults {
    /// A unit, as Grafana names it.
    #[serde(default)]
    pub unit: String,
    /// The values from which its colour is another one.
    #[serde(default)]
    pub thresholds: Thresholds,
}

/// The thresholds of a panel.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Thresholds {
    /// From the lowest on.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// A threshold, with the colour of values that are not less.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    /// The colour.
    pub color: String,
    /// The threshold; `None` for the colour of all values below the others.
    pub value: Option<f64>,
}

/// A query of a panel.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// The query, with Grafana's variables.
    pub expr: String,
    /// What its series are called, with labels in braces.
    pub legend_format: String,
}

/// The dashboard, as it ships.
///
/// # Panics
///
/// It is not a dashboard.
#[must_use]
pub fn dashboard() -> Dashboard {
    serde_json::from_str(&read("dashboard.json")).expect("the dashboard is JSON")
}

/// The queries of the dashboard, of all queues.
#[must_use]
pub fn dashboard_expressions() -> Vec<String> {
    let panels = dashboard().panels.into_iter();
    panels.flat_map(|panel| panel.targets).map(|target| target.expression("5m")).collect()
}

// === impl Panel ===

impl Panel {
    /// Its thresholds.
    pub fn thresholds(&self) -> impl Iterator<Item = f64> {
        self.field_config.defaults.thresholds.steps.iter().filter_map(|step| step.value)
    }
}

// === impl Target ===

impl Target {
    /// The query of all queues, as Grafana sends it: with a value in the place of each variable.
    /// It matches no series without the label, as the choice of one queue would not.
    #[must_use]
    pub fn expression(&self, rate_interval: &str) -> String {
        let expression = self.expr.replace("$__rate_interval", rate_interval);
        expression.replace("$namespace", ".+").replace("$queue", ".+")
    }
}

fn read(name: &str) -> String {
    fs::read_to_string(repository().join("manifests/monitoring").join(name))
        .expect("a file of this project")
}
