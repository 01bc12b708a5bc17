//! What all pages have in common.

use std::{fmt::Display, time::Duration};

use asyncqueue::Rounded;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};
use serde::Serialize;

use crate::{assets, overview::seconds, paging::Page};

/// Settings of htmx: it adds no styles and evaluates no text, which the policy of the pages does
/// not allow.
const HTMX_CONFIG: &str = r#"{"includeIndicatorStyles":false,"allowEval":false,
"selfRequestsOnly":true,"historyEnabled":false}"#;

/// Renders a page that does not change.
pub(crate) fn page(title: &str, content: &Markup) -> Markup {
    document(
        title,
        &html! {
            (heading())
            main id="content" { (content) }
        },
    )
}

/// Renders a page that is refreshed while it is visible.
pub(crate) fn live(title: &str, path: &str, content: &Markup) -> Markup {
    document(
        title,
        &html! {
            (heading())
            main id="content" data-live hx-get=(path) hx-trigger="refresh" hx-select="#content"
                hx-swap="outerHTML" { (content) }
            p #stale .problem role="status" hidden {
                "The page could not be refreshed: it shows what was there before."
            }
        },
    )
}

/// Renders a page for someone who is not logged in.
pub(crate) fn bare(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " - AsyncQueue" }
            }
            body { h1 { (title) } (content) }
        }
    }
}

fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="htmx-config" content=(HTMX_CONFIG);
                title { (title) " - AsyncQueue" }
                link rel="icon" href=(assets::path(assets::ICON));
                link rel="stylesheet" href=(assets::path(assets::STYLE));
                script src=(assets::path(assets::HTMX)) defer {}
                script src=(assets::path(assets::SCRIPT)) defer {}
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                (body)
                footer { "AsyncQueue " (asyncqueue_runtime::VERSION) }
            }
        }
    }
}

fn heading() -> Markup {
    html! {
        header {
            nav aria-label="Pages" {
                ul {
                    li { a href="/" { "Queues" } }
                    li { a href="/?sort=dead" { "Dead letters" } }
                    li { a href="/batches" { "Batches" } }
                }
            }
            form action="/search" role="search" {
                label for="search" { "Call id" }
                input #search name="id" required maxlength="128" size="36" autocomplete="off"
                    spellcheck="false";
                button { "Find" }
            }
        }
    }
}

/// Renders a time. A script shows it in the zone of the viewer.
pub(crate) fn time(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (format!("{at:.0}")) } }
}

/// Renders a text of the library, and the times in it in the zone of the viewer.
pub(crate) fn text(text: &str) -> Markup {
    let part = |word: &str| {
        let bare = word.trim_end_matches([':', ',', '.', ';', ')']);
        html! {
            @match bare.parse::<Timestamp>() {
                Ok(at) => { (time(at)) (word[bare.len()..]) }
                Err(_) => (word),
            }
        }
    };
    html! {
        @for (number, word) in text.split(' ').enumerate() {
            @if number > 0 { " " }
            (part(word))
        }
    }
}

/// Renders a time and how long ago it is.
pub(crate) fn time_and_age(at: Timestamp, now: Timestamp) -> Markup {
    html! { (time(at)) " (" (age(at, now)) " ago)" }
}

/// Returns how long ago a time is, in one or two units.
pub(crate) fn age(at: Timestamp, now: Timestamp) -> String {
    Rounded(Duration::from_secs(seconds(at, now))).to_string()
}

/// Renders a number, or a dash if it is not known.
pub(crate) fn known(number: Option<impl ToString>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// Returns a number and its noun, which gets an `s` unless the number is 1.
pub(crate) fn count<N: Copy + Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let ending = if number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

/// Renders a list of names and values.
pub(crate) fn fields(fields: &[(&str, Markup)]) -> Markup {
    html! {
        dl {
            @for (name, value) in fields {
                dt { (name) }
                dd { (value) }
            }
        }
    }
}

/// Returns a path with query parameters.
pub(crate) fn with_query(path: &str, parameters: &impl Serialize) -> String {
    match serde_urlencoded::to_string(parameters) {
        Ok(query) if !query.is_empty() => format!("{path}?{query}"),
        _ => path.to_owned(),
    }
}

/// Renders the links to the other pages of a list.
pub(crate) fn pages(page: Page, link: impl Fn(usize) -> String) -> Markup {
    let (before, after) = page.neighbours();
    html! {
        @if page.pages > 1 {
            nav aria-label="Pages of this list" {
                ul {
                    @if let Some(before) = before { li { a href=(link(before)) { "Previous" } } }
                    li { "Page " (page.number) " of " (page.pages) }
                    @if let Some(after) = after { li { a href=(link(after)) { "Next" } } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_readable_without_a_script() {
        let at: Timestamp = "2026-11-24T10:00:00.123Z".parse().unwrap();
        assert_eq!(
            time(at).into_string(),
            r#"<time datetime="2026-11-24T10:00:00.123Z">2026-11-24T10:00:00Z</time>"#
        );
    }

    #[test]
    fn times_within_a_text_are_recognised() {
        let shown = text("dead since 2026-11-30T09:14:47Z: answered <500>").into_string();
        assert_eq!(
            shown,
            "dead since <time datetime=\"2026-11-30T09:14:47Z\">2026-11-30T09:14:47Z</time>: \
             answered &lt;500&gt;"
        );
        assert_eq!(text("2026 calls, ").into_string(), "2026 calls, ");
    }

    #[test]
    fn noun_is_plural_unless_the_number_is_one() {
        assert_eq!(count(0_usize, "worker"), "0 workers");
        assert_eq!(count(1_u64, "dead letter"), "1 dead letter");
        assert_eq!(count(2_u32, "dead letter"), "2 dead letters");
    }

    #[test]
    fn text_is_escaped_in_titles_and_fields() {
        let page = page("<script>", &fields(&[("x", html! { ("<script>") })])).into_string();
        assert!(!page.contains("<script>"), "{page}");
    }
}
