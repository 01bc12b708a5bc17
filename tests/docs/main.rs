//! Every command in README.md, in docs/ and in manifests/README.md is run, or said to be run
//! elsewhere; every object in them is one that the API server takes; and the names in them are
//! those of the programs.
//!
//! An unknown command fails, so that none can be added that is not run.

#![allow(clippy::unwrap_used, clippy::panic)]

mod annotations;
mod compose;
mod contract;
mod demo;
mod diagrams;
mod documents;
mod facts;
mod known;
mod migration;
mod odd_input;
mod openfaas;
mod plan;
mod run;
mod supported_versions;
mod systemd;
mod test_list;

use test_support::{
    cluster::{installation::Restored, repository},
    documents::paths,
};

use crate::{
    documents::{Kind, pieces_of},
    known::{ELSEWHERE, How, PICTURES, SESSIONS, Session, around},
    plan::{elsewhere, is_object},
};

#[test]
fn every_block_is_known() {
    let mut unknown = Vec::new();
    let mut pictures: Vec<_> = PICTURES.iter().collect();
    for document in paths() {
        let session = SESSIONS.iter().find(|(known, _)| *known == document);
        for piece in pieces_of(&document) {
            let is_picture =
                |(of, begins): &(&str, &str)| *of == document && piece.text.starts_with(begins);
            let is_run = match &piece.kind {
                Kind::Commands(commands) => {
                    session.is_some() || commands.iter().all(|command| elsewhere(command).is_some())
                }
                Kind::File(_) => session.is_some(),
                Kind::Yaml(value) if is_object(value) => {
                    session.is_some_and(|(_, session)| session.has_cluster())
                }
                Kind::Yaml(_) | Kind::Other => false,
            };
            if !is_run && !PICTURES.iter().any(is_picture) {
                unknown.push(format!("{} is not run by any test:\n{}", piece.place, piece.text));
            }
            pictures.retain(|picture| !is_picture(picture));
        }
    }
    assert!(
        unknown.is_empty(),
        "tests/docs/known.rs says what is run where\n{}",
        unknown.join("\n")
    );
    assert!(pictures.is_empty(), "no document shows these any more: {pictures:?}");
}

#[test]
fn commands_marked_as_run_elsewhere_are_run_there() {
    let documents = paths();
    let commands: Vec<_> = documents
        .iter()
        .flat_map(|document| pieces_of(document))
        .filter_map(|piece| match piece.kind {
            Kind::Commands(commands) => {
                Some(commands.into_iter().map(move |c| (piece.place.document.clone(), c)))
            }
            _ => None,
        })
        .flatten()
        .collect();
    for (begins, how) in ELSEWHERE {
        let shown = commands.iter().any(|(_, command)| plan::begins(command, begins));
        assert!(shown, "no document shows `{begins}` any more");
        match how {
            // `test_list` checks that it is there.
            How::Test(..) => {}
            How::Script(path, text) => {
                let script = std::fs::read_to_string(repository().join(path)).unwrap();
                assert!(script.contains(text), "{path} does not run `{text}`");
            }
            How::Not(reason) => println!("NOT RUN: {begins}: {reason}"),
        }
    }
    for around in around() {
        let is_shown = |(document, command): &(String, documents::Command)| {
            document == around.document && plan::begins(command, around.command)
        };
        assert!(
            commands.iter().any(is_shown),
            "{} does not show `{}` any more",
            around.document,
            around.command
        );
    }
    for (document, _) in SESSIONS {
        assert!(documents.iter().any(|path| path == document), "there is no {document}");
    }
}

#[test]
fn commands_of_machines_without_kubernetes_are_run() {
    run::documents(Session::Alone);
}

#[test]
fn commands_of_the_cluster_are_run() {
    let _restored = Restored;
    run::documents(Session::Cluster);
    // The last document has removed all that there was.
    demo::comes_and_goes();
}

#[test]
fn commands_of_the_cluster_migrate_an_openfaas_and_back() {
    let _restored = Restored;
    let _emptied = run::Emptied::of_asyncqueue();
    run::documents(Session::OpenFaas);
}
