//! What the documents show: blocks of commands, files, and what is neither. Pure, but for the
//! reading of the documents.
//!
//! A block is indented by four spaces, or fenced. Blank lines divide an indented one: what stands
//! between two of them is one piece.

use serde_json::Value;
use test_support::documents::read;

/// What is shown as a command begins with one of these, or with the setting of a variable.
const PROGRAMS: [&str; 24] = [
    "asyncqueue-gateway",
    "asyncqueue-worker",
    "cargo",
    "cd",
    "cosign",
    "ctr",
    "curl",
    "docker",
    "export",
    "faas-cli",
    "git",
    "helm",
    "k3d",
    "kind",
    "kubectl",
    "make",
    "minikube",
    "nats",
    "nats-server",
    "python3",
    "sha256sum",
    "skopeo",
    "sudo",
    "systemctl",
];

/// Begins a line that a fence stands in.
const FENCE: &str = "```";

/// How far a block is indented.
const INDENT: &str = "    ";

/// A part of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The document, and the line that it begins at.
    pub(crate) place: Place,
    /// The heading that it is below.
    pub(crate) heading: String,
    /// Its lines, without the indentation of the block.
    pub(crate) text: String,
    pub(crate) kind: Kind,
}

/// Where something is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) document: String,
    pub(crate) line: usize,
}

/// What a piece is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Commands, each in one line, with what the document says of it in a comment.
    Commands(Vec<Command>),
    /// A file: its first line is a comment, and its name.
    File(String),
    /// Something in YAML.
    Yaml(Value),
    /// Anything else.
    Other,
}

/// A command, as a user is to type it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) comment: String,
}

/// What a document shows.
pub(crate) fn pieces_of(document: &str) -> Vec<Piece> {
    let text = read(document);
    // What a test writes from `--help` has the examples of docs/operations.md.
    let written = text.split("\n<!-- What follows is written by a test").next().unwrap_or_default();
    pieces(document, written)
}

pub(crate) fn pieces(document: &str, text: &str) -> Vec<Piece> {
    let (mut found, mut heading, mut fenced) = (Vec::<Piece>::new(), String::new(), false);
    let mut current: Option<(usize, Vec<&str>)> = None;
    // An empty line at the end closes what is open.
    for (number, line) in
        text.lines().chain([""]).enumerate().map(|(index, line)| (index + 1, line))
    {
        let is_fence = line.starts_with(FENCE);
        let shown = match (is_fence, fenced) {
            (true, _) => None,
            (false, true) => Some(line),
            (false, false) => line.strip_prefix(INDENT).filter(|line| !line.trim().is_empty()),
        };
        match (shown, &mut current) {
            (Some(shown), Some((_, lines))) => lines.push(shown),
            (Some(shown), None) => current = Some((number, vec![shown])),
            (None, _) => {
                if let Some((first, lines)) = current.take() {
                    let place = Place { document: document.to_owned(), line: first };
                    let kind = kind(first, &lines);
                    found.push(Piece {
                        place,
                        heading: heading.clone(),
                        text: lines.join("\n"),
                        kind,
                    });
                }
            }
        }
        fenced ^= is_fence;
        if !fenced && line.starts_with('#') {
            line.trim_start_matches('#').trim().clone_into(&mut heading);
        }
    }
    found
}

fn kind(first: usize, lines: &[&str]) -> Kind {
    let text = lines.join("\n");
    let is_yaml =
        |name: &str| name.rsplit_once('.').is_some_and(|(_, end)| matches!(end, "yaml" | "yml"));
    let is_file = |name: &&str| !name.contains(' ') && is_yaml(name);
    if let Some(name) = lines[0].strip_prefix("# ").filter(is_file) {
        return Kind::File(name.to_owned());
    }
    if is_command(lines[0]) {
        return Kind::Commands(commands(first, lines));
    }
    match serde_saphyr::from_str::<Value>(&text) {
        Ok(value) if value.is_object() => Kind::Yaml(value),
        _ => Kind::Other,
    }
}

fn is_command(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or_default();
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    PROGRAMS.contains(&word) || word.split_once('=').is_some_and(|(name, _)| is_name(name))
}

/// The commands in these lines, of which one may go over several.
fn commands(first: usize, lines: &[&str]) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    let mut goes_on = false;
    for (index, line) in lines.iter().enumerate() {
        let (text, comment) = without_comment(line);
        let (text, more) =
            text.strip_suffix('\\').map_or((text, false), |text| (text.trim_end(), true));
        match commands.last_mut().filter(|_| goes_on) {
            Some(command) => {
                command.text = format!("{} {}", command.text, text.trim());
                command.comment.push_str(comment);
            }
            None => commands.push(Command {
                line: first + index,
                text: text.to_owned(),
                comment: comment.to_owned(),
            }),
        }
        goes_on = more;
    }
    commands
}

/// A line, and the comment at its end.
fn without_comment(line: &str) -> (&str, &str) {
    let (text, comment) = line.split_once(" # ").unwrap_or((line, ""));
    (text.trim_end(), comment.trim())
}

// === impl Place ===

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.document, self.line)
    }
}

// === impl Command ===

impl Command {
    /// The status that the document says an answer has: its comment begins with it.
    pub(crate) fn status(&self) -> Option<&str> {
        let (number, _) = self.comment.split_at_checked(3)?;
        number.bytes().all(|byte| byte.is_ascii_digit()).then_some(number)
    }
}

#[test]
fn blocks_are_read_as_they_are_shown() {
    let text = concat!(
        "# Title\ntext\n\n",
        "    # a.yaml\n    a: 1\n\n",
        "    curl \\\n        -d hi http://h/x   # 202, at once\n",
        "    nats_url=nats://h asyncqueue-gateway\n\n",
        "## Below\n```python\nimport a\n\na()\n```\n",
        "    a: {b: 1}\n    \n    a ──> b\n",
    );
    let pieces = pieces("doc.md", text);
    let [file, commands, python, yaml, picture] = &pieces[..] else { panic!("{pieces:?}") };
    assert_eq!(
        (file.kind.clone(), file.text.as_str()),
        (Kind::File("a.yaml".to_owned()), "# a.yaml\na: 1")
    );
    let Kind::Commands(listed) = &commands.kind else { panic!("{commands:?}") };
    let texts: Vec<_> = listed
        .iter()
        .map(|command| (command.line, command.text.as_str(), command.status()))
        .collect();
    assert_eq!(
        texts,
        [
            (7, "curl -d hi http://h/x", Some("202")),
            (9, "nats_url=nats://h asyncqueue-gateway", None)
        ]
    );
    assert_eq!((commands.heading.as_str(), yaml.heading.as_str()), ("Title", "Below"));
    assert_eq!((&python.kind, &picture.kind), (&Kind::Other, &Kind::Other));
    assert!(matches!(yaml.kind, Kind::Yaml(_)));
    assert_eq!(yaml.place.to_string(), "doc.md:17");
}
