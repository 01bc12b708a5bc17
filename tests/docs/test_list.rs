//! The tests and scenarios of this project, as the test binaries list them, for documents and
//! tables that name some.

use std::{process::Command, sync::LazyLock};

use serde_json::Value;
use test_support::{bad_inputs, cluster::repository, tools::output};

use crate::known::{ELSEWHERE, How};

/// What `tests/run` compiles. With the same packages in each command, nothing is compiled twice.
const PACKAGES: [&[&str]; 2] =
    [&["--workspace", "--exclude=asyncqueue-tests"], &["--package=asyncqueue-tests"]];

/// Variables that cargo sets for a test. Build scripts depend on some of them: with these, cargo
/// would compile crates again.
const VARIABLES_OF_A_TEST: [&str; 4] =
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

/// All tests and scenarios.
pub(crate) struct TestList {
    tests: Vec<ListedTest>,
    /// The names of the scenarios of `make chaos`.
    scenarios: Vec<String>,
    /// The tests that its table of faults names.
    named_by_chaos: Vec<(String, String)>,
}

struct ListedTest {
    /// The path of its file in the repository, without the extension.
    file: String,
    name: String,
}

pub(crate) static TEST_LIST: LazyLock<TestList> = LazyLock::new(TestList::read);

impl TestList {
    fn read() -> Self {
        let mut list =
            Self { tests: Vec::new(), scenarios: Vec::new(), named_by_chaos: Vec::new() };
        for binary in PACKAGES.iter().flat_map(|packages| binaries(packages)) {
            let text = output(Command::new(&binary.executable).arg("--list"));
            let lines = text.lines();
            if binary.folder == "tests/chaos" {
                for line in lines {
                    match line.split('\t').collect::<Vec<_>>()[..] {
                        ["scenario", name] => list.scenarios.push(name.to_owned()),
                        ["test", path, name] => {
                            list.named_by_chaos.push((path.to_owned(), name.to_owned()));
                        }
                        _ => {}
                    }
                }
                continue;
            }
            for path in lines.filter_map(|line| line.strip_suffix(": test")) {
                let (module, name) = path.rsplit_once("::").unwrap_or(("", path));
                let file = format!("{}/{}/", binary.folder, module.replace("::", "/"));
                list.tests.push(ListedTest { file, name: name.to_owned() });
            }
        }
        list
    }

    /// Returns whether there is a test of this name.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.tests.iter().any(|test| test.name == name)
    }

    /// Returns whether there is a scenario of this name.
    pub(crate) fn has_scenario(&self, name: &str) -> bool {
        self.scenarios.iter().any(|scenario| scenario == name)
    }

    /// Returns whether this file, or a file in this folder, has a test of this name.
    pub(crate) fn has_test(&self, path: &str, name: &str) -> bool {
        let path = path.strip_suffix(".rs").unwrap_or(path);
        let path = path.strip_suffix("/main").unwrap_or(path);
        let folder = format!("{path}/");
        self.tests.iter().any(|test| test.name == name && test.file.starts_with(&folder))
    }
}

/// A program that runs tests.
struct Binary {
    executable: String,
    /// The folder of its sources in the repository.
    folder: String,
}

/// Compiles the test binaries of these packages, if they are not compiled yet.
fn binaries(packages: &[&str]) -> Vec<Binary> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let is_of_a_test =
        |name: &str| VARIABLES_OF_A_TEST.iter().any(|begins| name.starts_with(begins));
    for (name, _) in std::env::vars().filter(|(name, _)| is_of_a_test(name)) {
        cargo.env_remove(name);
    }
    cargo
        .args(["test", "--locked", "--no-run", "--quiet", "--message-format=json"])
        .args(packages)
        .current_dir(repository());
    let root = repository().canonicalize().unwrap();
    let messages = output(&mut cargo);
    let messages = messages.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    messages
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| {
            let executable = message["executable"].as_str()?.to_owned();
            let source = std::path::Path::new(message["target"]["src_path"].as_str()?);
            let folder = source.parent()?.strip_prefix(&root).ok()?.to_str()?.to_owned();
            Some(Binary { executable, folder })
        })
        .collect()
}

#[test]
fn tests_named_in_tables_exist() {
    let commands = ELSEWHERE.iter().filter_map(|(_, how)| match how {
        How::Test(path, name) => Some((*path, *name)),
        How::Script(..) | How::Not(_) => None,
    });
    let inputs: Vec<_> = bad_inputs::elsewhere().collect();
    let inputs = inputs.iter().map(|row| (row.folder, row.test));
    let faults = TEST_LIST.named_by_chaos.iter().map(|(path, name)| (path.as_str(), name.as_str()));
    let missing: Vec<_> = commands
        .chain(inputs)
        .chain(faults)
        .filter(|(path, name)| !TEST_LIST.has_test(path, name))
        .collect();
    assert!(missing.is_empty(), "no such test: {missing:#?}");
}
