//! Converts the description of the gateway to JSON, with the version of this build. A gateway that
//! did so when it starts would need a megabyte more.

use std::{env, error::Error, fs, path::Path};

use serde_json::Value;

const SOURCE: &str = "openapi.yaml";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    let mut description: Value = serde_saphyr::from_str(&fs::read_to_string(SOURCE)?)?;
    let info = description.get_mut("info").and_then(Value::as_object_mut);
    let info = info.ok_or("openapi.yaml has no info")?;
    info.insert("version".to_owned(), env::var("CARGO_PKG_VERSION")?.into());
    let converted = Path::new(&env::var("OUT_DIR")?).join("openapi.json");
    fs::write(converted, serde_json::to_vec(&description)?)?;
    Ok(())
}
