//! The dashboard with real metrics: a Prometheus scrapes gateway, workers and operator under load,
//! and answers the queries of all panels.
//!
//! `make dashboard-picture` runs the same load for longer, and draws `docs/dashboard.svg`.

use std::{env, fs, process::Command, time::Duration};

use test_support::{
    cluster::repository,
    monitoring::{Dashboard, Panel, dashboard},
    tools::output,
    wait::until,
};
use tokio::time::{Instant, sleep};

use self::{
    draw::{Line, draw},
    prometheus::{Prometheus, Range},
    stage::Stage,
};

mod draw;
mod prometheus;
mod stage;

/// The source of the picture, and the picture.
const SOURCE: &str = "manifests/monitoring/dashboard.json";
const PICTURE: &str = "docs/dashboard.svg";

/// Variable that has the picture drawn, with the seconds of load that it shows.
const SECONDS: &str = "dashboard_picture_seconds";

/// In the place of Grafana's `$__rate_interval`, with a scrape each second. Workers count what is
/// submitted every ten seconds.
const RATE_INTERVAL: &str = "30s";

/// The lines of a panel.
async fn lines(prometheus: &Prometheus, panel: &Panel, range: Range) -> Vec<Line> {
    let mut lines = Vec::new();
    for target in &panel.targets {
        let series = prometheus.query(&target.expression(RATE_INTERVAL), range).await;
        let named = series.into_iter().map(|series| Line {
            name: series.named(&target.legend_format),
            points: series.points,
        });
        lines.extend(named);
    }
    lines
}

/// The titles and queries of panels whose queries return no number.
async fn without_data(prometheus: &Prometheus, dashboard: &Dashboard) -> Vec<String> {
    let mut missing = Vec::new();
    for panel in &dashboard.panels {
        for target in &panel.targets {
            let query = target.expression(RATE_INTERVAL);
            let series = prometheus.query(&query, Range::now()).await;
            let mut points = series.iter().flat_map(|series| &series.points);
            if !points.any(|(_, value)| value.is_finite()) {
                missing.push(format!("{}: {query}", panel.title));
            }
        }
    }
    missing
}

#[tokio::test]
async fn every_query_of_the_dashboard_has_real_data() {
    let (stage, dashboard) = (Stage::start().await, dashboard());
    let load = stage.load();
    let mut missing = Vec::new();
    let all = until("all panels have data", async || {
        missing = without_data(&stage.prometheus, &dashboard).await;
        missing.is_empty().then_some(())
    });
    let all = tokio::time::timeout(Duration::from_secs(25), all);
    tokio::select! {
        all = all => assert!(all.is_ok(), "no data:\n{}", missing.join("\n")),
        () = load => {}
    }
    if let Ok(seconds) = env::var(SECONDS) {
        draw_picture(&stage, &dashboard, seconds.parse().expect(SECONDS)).await;
    }
}

/// Draws the dashboard after so many seconds of load.
async fn draw_picture(stage: &Stage, dashboard: &Dashboard, seconds: u64) {
    let started = Instant::now();
    tokio::select! {
        () = stage.load() => {}
        () = sleep(Duration::from_secs(seconds)) => {}
    }
    let range = Range::last(started.elapsed());
    let mut panels = Vec::new();
    for panel in &dashboard.panels {
        panels.push((panel, lines(&stage.prometheus, panel, range).await));
    }
    let printed = output(Command::new("sha256sum").arg(repository().join(SOURCE)));
    let digest = printed.split_whitespace().next().unwrap();
    let comment = format!("<!-- made from {SOURCE} with the SHA-256 {digest} -->\n");
    fs::write(repository().join(PICTURE), draw(&panels, range) + &comment).unwrap();
}
