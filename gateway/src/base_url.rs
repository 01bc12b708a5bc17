//! The targets of requests that are passed on: base URLs, to which paths are appended byte for
//! byte.

use std::{fmt, str::FromStr};

use asyncqueue::FunctionName;
use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

const FUNCTION_PLACEHOLDER: &str = "{function}";
const NAMESPACE_PLACEHOLDER: &str = "{namespace}";

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
pub struct FunctionUrlTemplate(String);

/// The target of a request that is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyTarget {
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
        let invalid = |rule: &str| BaseUrlError(rule.to_owned());
        let parts =
            text.parse::<Uri>().map_err(|error| BaseUrlError(error.to_string()))?.into_parts();
        let scheme = parts.scheme.ok_or_else(|| invalid("it has no scheme"))?;
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(invalid("its scheme is not http or https"));
        }
        let authority = parts.authority.ok_or_else(|| invalid("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(invalid("it contains credentials"));
        }
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        if path.query().is_some() {
            return Err(invalid("it has a query"));
        }
        Ok(Self { scheme, authority, prefix: path.path().trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

// === impl ProxyTarget ===

impl fmt::Display for ProxyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream => f.write_str("the gateway at upstream_url"),
            Self::Function(name) => write!(f, "function `{name}`"),
        }
    }
}

// === impl FunctionUrlTemplate ===

impl FunctionUrlTemplate {
    /// Returns the base URL of a function.
    pub fn expand(&self, function: &FunctionName) -> Result<BaseUrl, BaseUrlError> {
        fill_in(&self.0, function.name(), function.namespace()).parse()
    }
}

impl FromStr for FunctionUrlTemplate {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        // If the result is a URL for one function, it is one for all: names consist of letters,
        // digits, `-` and `_`.
        fill_in(text, "function", "namespace").parse::<BaseUrl>()?;
        Ok(Self(text.to_owned()))
    }
}

fn fill_in(template: &str, function: &str, namespace: &str) -> String {
    template.replace(FUNCTION_PLACEHOLDER, function).replace(NAMESPACE_PLACEHOLDER, namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(text: &str) -> BaseUrl {
        text.parse().unwrap()
    }

    #[test]
    fn path_is_appended_byte_for_byte() {
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
    fn base_url_needs_scheme_and_host() {
        for bad in ["", "h", "h:8080", "/path", "ftp://h", "http://", "http://u:p@h", "http://h/?q"]
        {
            assert!(bad.parse::<BaseUrl>().is_err(), "{bad}");
        }
        assert_eq!(base("http://h:1/p/").to_string(), "http://h:1/p");
    }

    #[test]
    fn function_url_is_built_from_the_name() {
        let template: FunctionUrlTemplate =
            "http://{function}.{namespace}.svc:8080".parse().unwrap();
        let function = FunctionName::new("Fig_let", "dev").unwrap();
        assert_eq!(template.expand(&function).unwrap().to_string(), "http://Fig_let.dev.svc:8080");
        assert!("{function}:8080".parse::<FunctionUrlTemplate>().is_err());
        // All functions have one address and differ in the path.
        let template: FunctionUrlTemplate =
            "http://gateway/function/{function}.{namespace}".parse().unwrap();
        let url = template.expand(&function).unwrap().join("/p", None).unwrap();
        assert_eq!(url.to_string(), "http://gateway/function/Fig_let.dev/p");
    }
}
