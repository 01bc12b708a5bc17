//! Asks a user to confirm an action, and checks that the confirmation comes from this user.

use std::sync::Arc;

use asyncqueue::FunctionName;
use axum::{
    body::to_bytes,
    extract::{FromRequest, FromRequestParts, Request},
};
use http::request::Parts;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::{Deserialize, de::DeserializeOwned};
use tracing::warn;

use super::{App, error::PageError, layout};
use crate::{actions::is_from_own_page, auth::User};

/// Maximum size of a form, in bytes.
const MAX_FORM: usize = 16 * 1024;

/// Name of the field that has the token of a form.
const TOKEN: &str = "token";

/// The user who looks at a page.
#[derive(Clone, Debug)]
pub(super) struct Viewer(pub(super) User);

/// The form of a user who has confirmed an action on a page of this console.
#[derive(Debug)]
pub(super) struct Confirmed<T> {
    pub(super) user: User,
    pub(super) form: T,
}

/// A question before an action.
#[derive(Debug)]
pub(super) struct Question {
    /// What will be done, as the title and as the label of the button.
    pub(super) title: String,
    pub(super) button: String,
    pub(super) explanation: Markup,
    /// Whether it can't be undone.
    pub(super) is_final: bool,
    /// What the user has to type, if that is asked for.
    pub(super) typed: Option<Typed>,
    /// Names and values that the form sends with it.
    pub(super) fields: Vec<(&'static str, String)>,
    /// Where the form is sent to.
    pub(super) path: String,
    /// Where a user goes who does not want it.
    pub(super) back: String,
}

/// A text that a user types to confirm what can't be undone.
#[derive(Clone, Debug)]
pub(super) struct Typed {
    /// Name of the field.
    pub(super) field: &'static str,
    pub(super) label: &'static str,
    pub(super) text: String,
}

#[derive(Deserialize)]
struct TokenField {
    token: String,
}

// === impl Question ===

impl Question {
    pub(super) fn render(&self, app: &App, Viewer(user): &Viewer) -> Markup {
        self.page(&app.actions.tokens.issue(user, &self.path, Timestamp::now()))
    }

    pub(super) fn page(&self, token: &str) -> Markup {
        let Self { title, button, explanation, is_final, typed, fields, path, back } = self;
        let content = html! {
            h1 { (title) }
            (explanation)
            @if *is_final { p.problem { "This can't be undone." } }
            form.question method="post" action=(path) {
                input type="hidden" name=(TOKEN) value=(token);
                @for (name, value) in fields {
                    input type="hidden" name=(name) value=(value);
                }
                @if let Some(Typed { field, label, text }) = typed {
                    label for="typed" { "To confirm, type " (label) ": " code { (text) } }
                    input #typed name=(field) required autocomplete="off" spellcheck="false";
                }
                button { (button) }
                a href=(back) { "Back, change nothing" }
            }
        };
        layout::page(title, &content)
    }
}

// === impl App ===

impl App {
    /// Checks that actions on calls of these functions are allowed.
    pub(super) fn check_allowed<'a>(
        &self,
        functions: impl IntoIterator<Item = Option<&'a FunctionName>>,
    ) -> Result<(), PageError> {
        let allowed = &self.actions.allowed;
        if allowed.is_off() {
            return Err(PageError::NotAllowed("The console only shows what is there.".to_owned()));
        }
        match functions.into_iter().find(|function| !allowed.permits(*function)) {
            None => Ok(()),
            Some(Some(function)) => Err(PageError::NotAllowed(format!(
                "The console changes no calls of functions in the namespace {}.",
                function.namespace()
            ))),
            Some(None) => Err(PageError::NotAllowed(
                "The console changes only calls of some functions, and the function of this one is \
                 not known."
                    .to_owned(),
            )),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Viewer {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, PageError> {
        parts.extensions.get().cloned().map(Self).ok_or(PageError::NotConfirmed)
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Confirmed<T> {
    type Rejection = PageError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, PageError> {
        let (mut parts, body) = request.into_parts();
        let Viewer(user) = Viewer::from_request_parts(&mut parts, app).await?;
        let path = parts.uri.path();
        let refused = |error: PageError, why: &str| {
            warn!(%user, path, "refused an action: {why}");
            error
        };
        app.check_allowed([]).map_err(|error| refused(error, "actions are off"))?;
        if !is_from_own_page(&parts.headers, parts.uri.authority()) {
            return Err(refused(PageError::NotConfirmed, "a page of another site has sent it"));
        }
        let form = to_bytes(body, MAX_FORM).await;
        let form = form.map_err(|_| PageError::NotValid("The form is too large.".to_owned()))?;
        let token: Option<TokenField> = serde_urlencoded::from_bytes(&form).ok();
        let is_valid = token.is_some_and(|TokenField { token }| {
            app.actions.tokens.is_valid(&token, &user, path, Timestamp::now())
        });
        if !is_valid {
            return Err(refused(PageError::NotConfirmed, "its form has no valid token"));
        }
        let form = serde_urlencoded::from_bytes(&form);
        let form =
            form.map_err(|error| PageError::NotValid(format!("The form is not valid: {error}.")))?;
        Ok(Self { user, form })
    }
}
