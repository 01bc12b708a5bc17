//! The CRDs of the Prometheus operator, for what is there for it.

use std::process::Command;

use serde_json::Value;

use super::kubectl;
use crate::tools::output;

/// The module that has them.
const MODULE: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";

/// Installs the CRDs of `PodMonitor` and `PrometheusRule`, and returns when objects can be created.
///
/// # Panics
///
/// If the module can't be loaded, or the API server refuses a CRD.
pub fn install_crds() {
    let module = output(Command::new("go").args(["mod", "download", "-json", MODULE]));
    let module: Value = serde_json::from_str(&module).expect("go prints JSON");
    let folder = module["Dir"].as_str().expect("the module has a folder");
    for kind in ["podmonitors", "prometheusrules"] {
        let file =
            format!("{folder}/example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml");
        let _ = kubectl(&["apply", "--server-side", "-f", &file]);
        let crd = format!("crd/{kind}.monitoring.coreos.com");
        let _ = kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &crd]);
    }
}
