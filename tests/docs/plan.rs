//! From what a document shows to what is typed. Pure.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    documents::{Command, Kind, Piece, pieces_of},
    known::{Around, ELSEWHERE, How, NOTHING, PLACEHOLDERS, REPEATED, SERVERS, around},
};

/// The version that the documents name, which is that of this project.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is to be done for a document.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The files that it shows, each with its path.
    pub(crate) files: Vec<(String, String)>,
    /// What is typed, as tests/docs/shell reads it.
    pub(crate) steps: String,
    /// What is not typed, and why.
    pub(crate) not_run: Vec<String>,
}

/// How a command is run elsewhere, if it is.
pub(crate) fn elsewhere(command: &Command) -> Option<&'static How> {
    ELSEWHERE.iter().find(|(begins_with, _)| begins(command, begins_with)).map(|(_, how)| how)
}

/// Whether a command begins so. A text with a space at its end is a command of its own, or one with
/// more words.
pub(crate) fn begins(command: &Command, with: &str) -> bool {
    command.text.starts_with(with) || command.text == with.trim_end()
}

/// Whether a value is an object of Kubernetes, or the spec of a queue.
pub(crate) fn is_object(value: &Value) -> bool {
    value["kind"].is_string() || value.as_object().is_some_and(|fields| fields.keys().eq(["spec"]))
}

/// What is to be done for the pieces of a document. `images` are those of this project as the
/// cluster has them, by name.
pub(crate) fn plan(document: &str, pieces: &[Piece], images: &[(&str, String)]) -> Plan {
    let mut plan = Plan::default();
    let repeated = repeated(document);
    for piece in pieces.iter().filter(|piece| !repeated.contains(&piece.text)) {
        let place = piece.place.to_string();
        match &piece.kind {
            Kind::File(name) => {
                let name = filled_in(name, images);
                plan.files.push((name.clone(), filled_in(&piece.text, images)));
                if let Some(folder) = name.strip_suffix("kustomization.yaml") {
                    plan.step(&place, &format!("kubectl kustomize ./{folder}"), "", "");
                }
            }
            Kind::Yaml(value) if is_object(value) => {
                let object = filled_in(&object(value), images);
                plan.step(
                    &place,
                    &format!("kubectl apply --dry-run=server -f - <<'END'\n{object}\nEND"),
                    "",
                    "",
                );
            }
            Kind::Commands(commands) => {
                for command in commands {
                    plan.command(document, &place, command, images);
                }
            }
            Kind::Yaml(_) | Kind::Other => {}
        }
    }
    plan
}

/// What a document repeats of another, which is run there.
fn repeated(document: &str) -> Vec<String> {
    let (repeating, of) = REPEATED;
    let pieces = if document == repeating { pieces_of(of) } else { Vec::new() };
    pieces.into_iter().map(|piece| piece.text).collect()
}

/// An object in JSON. What is a spec alone is that of a queue.
fn object(value: &Value) -> String {
    if value["kind"].is_string() {
        return value.to_string();
    }
    let metadata = serde_json::json!({ "name": "of-a-document", "namespace": "openfaas" });
    serde_json::json!({
        "apiVersion": "asyncqueue.io/v1alpha1", "kind": "AsyncQueue", "metadata": metadata,
        "spec": value["spec"],
    })
    .to_string()
}

/// A text with what is here in the place of what is the user's own.
fn filled_in(text: &str, images: &[(&str, String)]) -> String {
    let mut text = text.to_owned();
    for (placeholder, value) in PLACEHOLDERS {
        text = text.replace(placeholder, value);
    }
    for (name, tag) in images {
        let registry = format!("registry.example.com/{name}");
        text = text.replace(
            &format!("{registry}, newTag: {VERSION}"),
            &format!("{name}, newTag: '{tag}'"),
        );
        text = text.replace(&format!("{registry}:{VERSION}"), &format!("{name}:{tag}"));
    }
    text
}

/// A word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

// === impl Plan ===

impl Plan {
    fn command(
        &mut self,
        document: &str,
        place: &str,
        command: &Command,
        images: &[(&str, String)],
    ) {
        let around =
            around().find(|around| around.document == document && begins(command, around.command));
        if let (Some(how), None) = (elsewhere(command), around) {
            self.not_run.push(match how {
                How::Not(reason) => format!("NOT RUN: {}: {reason}", command.text),
                How::Test(folder, name) => format!("run by {folder}: {name}: {}", command.text),
                How::Script(path, _) => format!("run by {path}: {}", command.text),
            });
            return;
        }
        let Around { before, prints, after, .. } = around.unwrap_or(&NOTHING);
        for (text, prints) in *before {
            self.step("before it", text, prints, "");
        }
        let text = filled_in(&command.text, images);
        let is_server = text.split(' ').any(|word| SERVERS.contains(&word));
        let text = if is_server { format!("{text} &") } else { text };
        self.step(place, &text, prints, command.status().unwrap_or_default());
        for (text, prints) in *after {
            self.step("after it", text, prints, "");
        }
    }

    fn step(&mut self, place: &str, command: &str, prints: &str, status: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(
            self.steps,
            "step {} {} {} {}",
            quoted(place),
            quoted(command),
            quoted(prints),
            quoted(status)
        );
    }
}

#[test]
fn a_document_becomes_files_and_steps() {
    use crate::documents::pieces;
    let text = concat!(
        "    # kustomization.yaml\n",
        "    images: [{name: asyncqueue, newName: registry.example.com/asyncqueue, \
         newTag: VERSION}]\n\n",
        "    kubectl apply -k .\n",
        "    curl -d 'it is' http://h   # 202\n",
        "    nats-server -sd /var/lib/asyncqueue\n\n",
        "    spec: {replicas: 2}\n",
    );
    let text = text.replace("VERSION", VERSION);
    let plan = plan("a.md", &pieces("a.md", &text), &[("asyncqueue", "7".to_owned())]);
    let [(name, file)] = &plan.files[..] else { panic!("{plan:?}") };
    assert_eq!(name, "kustomization.yaml");
    assert!(file.ends_with("newName: asyncqueue, newTag: '7'}]"), "{file}");
    let steps: Vec<_> = plan.steps.lines().collect();
    assert_eq!(steps[0], "step 'a.md:1' 'kubectl kustomize ./' '' ''");
    assert_eq!(steps[1], "step 'a.md:4' 'kubectl apply -k .' '' ''");
    assert_eq!(steps[2], r"step 'a.md:4' 'curl -d '\''it is'\'' http://h' '' '202'");
    assert_eq!(steps[3], "step 'a.md:4' 'nats-server -sd store &' '' ''");
    assert!(
        steps[5].contains(r#""kind":"AsyncQueue""#)
            && steps[5].contains(r#""spec":{"replicas":2}"#),
        "{steps:?}"
    );
}
