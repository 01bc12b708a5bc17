//! A real Prometheus.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    net::SocketAddr,
    process::Command,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{
    loopback::{at, free_port},
    program::Program,
    raw, tools,
    wait::until,
};

/// A Prometheus that scrapes each second, ended when it is dropped.
pub(super) struct Prometheus {
    addr: SocketAddr,
    _process: Program,
    _folder: TempDir,
}

/// A period, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) start: f64,
    pub(super) end: f64,
}

/// A series of a result.
#[derive(Clone, Debug)]
pub(super) struct Series {
    labels: BTreeMap<String, String>,
    /// Time and value.
    pub(super) points: Vec<(f64, f64)>,
}

// === impl Range ===

impl Range {
    /// The points of a range.
    const POINTS: f64 = 150.0;

    /// This moment.
    pub(super) fn now() -> Self {
        Self::last(Duration::ZERO)
    }

    /// The period that ends now.
    pub(super) fn last(duration: Duration) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let end = now.as_secs_f64();
        Self { start: end - duration.as_secs_f64(), end }
    }

    fn step(self) -> f64 {
        ((self.end - self.start) / Self::POINTS).max(1.0)
    }
}

// === impl Series ===

impl Series {
    /// Its name: the legend of a panel with its labels in the place of their names.
    pub(super) fn named(&self, legend: &str) -> String {
        let labels = self.labels.iter();
        labels.fold(legend.to_owned(), |name, (label, value)| {
            name.replace(&format!("{{{{{label}}}}}"), value)
        })
    }

    fn from_json(series: &Value) -> Self {
        let labels = serde_json::from_value(series["metric"].clone()).unwrap();
        let points = series["values"].as_array().unwrap().iter().map(|point| {
            let value: f64 = point[1].as_str().unwrap().parse().unwrap();
            (point[0].as_f64().unwrap(), value)
        });
        Self { labels, points: points.collect() }
    }
}

// === impl Prometheus ===

impl Prometheus {
    /// Starts one that scrapes these programs, as pods of these namespaces.
    pub(super) async fn start(programs: &[(&str, SocketAddr)]) -> Self {
        let folder = TempDir::with_prefix("asyncqueue-prometheus-").unwrap();
        let targets: Vec<_> = programs
            .iter()
            .map(|(namespace, addr)| {
                json!({ "targets": [addr.to_string()], "labels": { "namespace": namespace } })
            })
            .collect();
        let config = json!({
            "global": { "scrape_interval": "1s" },
            "scrape_configs": [{ "job_name": "asyncqueue", "static_configs": targets }],
        });
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config.to_string()).unwrap();
        let addr = at(free_port());
        let mut command = Command::new(tools::program("prometheus", "prometheus"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .arg("--log.level=error");
        let process = Program::start_other("prometheus", &mut command);
        until("Prometheus is ready", async || {
            let answer = raw::try_request(addr, "GET", "/-/ready", &[], b"").await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        Self { addr, _process: process, _folder: folder }
    }

    /// The result of a query.
    pub(super) async fn query(&self, query: &str, range: Range) -> Vec<Series> {
        let encoded = query.bytes().fold(String::new(), |mut encoded, byte| {
            let _ = write!(encoded, "%{byte:02X}");
            encoded
        });
        let (Range { start, end }, step) = (range, range.step());
        let body = format!("query={encoded}&start={start}&end={end}&step={step}");
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let path = "/api/v1/query_range";
        let answer = raw::request(self.addr, "POST", path, &headers, body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        answer.json()["data"]["result"].as_array().unwrap().iter().map(Series::from_json).collect()
    }
}
