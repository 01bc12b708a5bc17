//! The targets of requests that are passed on: base URLs, to which paths are appended byte for
//! byte.

use std::{fmt, str::FromStr};

use asyncqueue::FunctionName;
use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

const FUNCTION: &str = "{function}";
const NAMESPACE: &str = "{namespace}";

/// An `http` or `https` URL with a host and an optional path, below which requests are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
    /// Empty, or begins with `/` and does not end with one.
    prefix: String,
}

/// Template of a function's base URL, with the placeholders `{function}` and `{namespace}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionUrl(String);

/// The receiver of a request that is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The gateway at `upstream_url`.
    Upstream,
    /// A function.
    Function(FunctionName),
}

/// Why a text is not a base URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; write it as http://host:port or https://host/path")]
pub struct BaseUrlError(String);

// === impl BaseUrl ===

impl BaseUrl {
    /// Returns the URL of a path and query below this one. Both are appended as they are.
    pub fn join(&self, path: &str, query: Option<&str>) -> Result<Uri, http::Error> {
        let path = if path.is_empty() { "/" } else { path };
        let mut text = format!("{}{path}", self.prefix);
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(PathAndQuery::try_from(text)?)
            .build()
    }
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        let refuse = |rule: &str| BaseUrlError(rule.to_owned());
        let parts =
            text.parse::<Uri>().map_err(|error| BaseUrlError(error.to_string()))?.into_parts();
        let scheme = parts.scheme.ok_or_else(|| refuse("it has no scheme"))?;
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(refuse("its scheme is not http or https"));
        }
        let authority = parts.authority.ok_or_else(|| refuse("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("it holds credentials"));
        }
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        if path.query().is_some() {
            return Err(refuse("it has a query"));
        }
        Ok(Self { scheme, authority, prefix: path.path().trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

// === impl Receiver ===

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream => f.write_str("the gateway at upstream_url"),
            Self::Function(name) => write!(f, "function `{name}`"),
        }
    }
}

// === impl FunctionUrl ===

impl FunctionUrl {
    /// Returns the base URL of a function.
    pub fn of(&self, function: &FunctionName) -> Result<BaseUrl, BaseUrlError> {
        expand(&self.0, function.name(), function.namespace()).parse()
    }
}

impl FromStr for FunctionUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        // If the result is a URL for one function, it is one for all: names consist of letters,
        // digits, `-` and `_`.
        expand(text, "function", "namespace").parse::<BaseUrl>()?;
        Ok(Self(text.to_owned()))
    }
}

fn expand(template: &str, function: &str, namespace: &str) -> String {
    template.replace(FUNCTION, function).replace(NAMESPACE, namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(text: &str) -> BaseUrl {
        text.parse().unwrap()
    }

    #[test]
    fn a_path_is_added_byte_for_byte() {
        let join = |base: &BaseUrl, path, query| base.join(path, query).unwrap().to_string();
        let host = base("http://h:8080");
        assert_eq!(join(&host, "", None), "http://h:8080/");
        assert_eq!(join(&host, "/", Some("")), "http://h:8080/?");
        assert_eq!(
            join(&host, "/a//b/../%2F%zz", Some("x=%2F&&")),
            "http://h:8080/a//b/../%2F%zz?x=%2F&&"
        );
        assert_eq!(join(&base("https://h/gw/"), "/a", None), "https://h/gw/a");
    }

    #[test]
    fn a_base_url_has_scheme_and_host_and_nothing_that_would_be_lost() {
        for bad in ["", "h", "h:8080", "/path", "ftp://h", "http://", "http://u:p@h", "http://h/?q"]
        {
            assert!(bad.parse::<BaseUrl>().is_err(), "{bad}");
        }
        assert_eq!(base("http://h:1/p/").to_string(), "http://h:1/p");
    }

    #[test]
    fn a_functions_url_follows_from_its_name() {
        let template: FunctionUrl = "http://{function}.{namespace}.svc:8080".parse().unwrap();
        let function = FunctionName::new("Fig_let", "dev").unwrap();
        assert_eq!(template.of(&function).unwrap().to_string(), "http://Fig_let.dev.svc:8080");
        assert!("{function}:8080".parse::<FunctionUrl>().is_err());
        // All functions have one address and differ in the path.
        let template: FunctionUrl =
            "http://gateway/function/{function}.{namespace}".parse().unwrap();
        let url = template.of(&function).unwrap().join("/p", None).unwrap();
        assert_eq!(url.to_string(), "http://gateway/function/Fig_let.dev/p");
    }
}
