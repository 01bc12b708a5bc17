//! Parses the path of a request into its route.

use http::Uri;

/// The route of a request. All texts are slices of the path, byte for byte as the client sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/async-function/NAME[/path]`: calls of a function, to be stored.
    AsyncFunction(FunctionPath<'a>),
    /// `/async-batch[/ID]`: a batch of calls. The id takes the place of the function's name.
    AsyncBatch(FunctionPath<'a>),
    /// `/function/NAME[/path]`: a function, to be invoked at once.
    Function(FunctionPath<'a>),
    /// Anything else.
    Other,
}

/// A function's name and the path that follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FunctionPath<'a> {
    /// `NAME` or `NAME.NAMESPACE`, not checked. May be empty.
    pub function: &'a str,
    /// Empty, or begins with `/`.
    pub path: &'a str,
}

/// The URI of a request. Its path is parsed once.
#[derive(Clone, Debug)]
pub(crate) struct RequestTarget {
    uri: Uri,
    root: Root,
    /// Where the function's name begins and ends in the path.
    function_start: usize,
    function_end: usize,
}

/// What a path begins with.
#[derive(Clone, Copy, Debug)]
enum Root {
    AsyncFunction,
    AsyncBatch,
    Function,
    Other,
}

// === impl Route ===

impl<'a> Route<'a> {
    /// Parses a path.
    #[must_use]
    pub fn parse(path: &'a str) -> Self {
        if let Some(function_path) = FunctionPath::strip_root(path, "/async-function") {
            Self::AsyncFunction(function_path)
        } else if let Some(batch_path) = FunctionPath::strip_root(path, "/async-batch") {
            Self::AsyncBatch(batch_path)
        } else if let Some(function_path) = FunctionPath::strip_root(path, "/function") {
            Self::Function(function_path)
        } else {
            Self::Other
        }
    }

    /// Returns the value of the metric label `path`: one of a fixed set.
    #[must_use]
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::AsyncFunction(_) => "/async-function",
            Self::AsyncBatch(_) => "/async-batch",
            Self::Function(_) => "/function",
            Self::Other => "other",
        }
    }
}

// === impl FunctionPath ===

impl<'a> FunctionPath<'a> {
    fn strip_root(path: &'a str, root: &str) -> Option<Self> {
        let rest = match path.strip_prefix(root)? {
            "" => "",
            rest => rest.strip_prefix('/')?,
        };
        let (function, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Some(Self { function, path })
    }
}

// === impl RequestTarget ===

impl RequestTarget {
    /// Parses the path of a URI.
    #[must_use]
    pub(crate) fn parse(uri: Uri) -> Self {
        let path = uri.path();
        let (root, function_path) = match Route::parse(path) {
            Route::AsyncFunction(function_path) => (Root::AsyncFunction, function_path),
            Route::AsyncBatch(batch_path) => (Root::AsyncBatch, batch_path),
            Route::Function(function_path) => (Root::Function, function_path),
            Route::Other => (Root::Other, FunctionPath::default()),
        };
        let function_end = path.len() - function_path.path.len();
        let function_start = function_end - function_path.function.len();
        Self { uri, root, function_start, function_end }
    }

    /// Returns the route.
    pub(crate) fn route(&self) -> Route<'_> {
        match self.root {
            Root::AsyncFunction => Route::AsyncFunction(self.function_path()),
            Root::AsyncBatch => Route::AsyncBatch(self.function_path()),
            Root::Function => Route::Function(self.function_path()),
            Root::Other => Route::Other,
        }
    }

    /// Returns the function's name and the path that follows it. Both are empty if the route names
    /// no function.
    pub(crate) fn function_path(&self) -> FunctionPath<'_> {
        let (head, path) = self.path().split_at(self.function_end);
        FunctionPath { function: &head[self.function_start..], path }
    }

    /// Returns the whole path.
    pub(crate) fn path(&self) -> &str {
        self.uri.path()
    }

    /// Returns the query, without its `?`.
    pub(crate) fn query(&self) -> Option<&str> {
        self.uri.query()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_split_into_function_and_unchanged_rest() {
        let function_path = |function, path| FunctionPath { function, path };
        for (path, expected) in [
            ("/async-function/figlet", Route::AsyncFunction(function_path("figlet", ""))),
            ("/async-function/figlet/", Route::AsyncFunction(function_path("figlet", "/"))),
            (
                "/async-function/figlet.dev//a/../b%2Fc",
                Route::AsyncFunction(function_path("figlet.dev", "//a/../b%2Fc")),
            ),
            ("/async-function/", Route::AsyncFunction(function_path("", ""))),
            ("/async-function", Route::AsyncFunction(function_path("", ""))),
            ("/async-function//p", Route::AsyncFunction(function_path("", "/p"))),
            ("/function/figlet/p", Route::Function(function_path("figlet", "/p"))),
            ("/async-batch", Route::AsyncBatch(function_path("", ""))),
            ("/async-batch/b-1", Route::AsyncBatch(function_path("b-1", ""))),
            ("/async-batches", Route::Other),
            ("/async-functions/figlet", Route::Other),
            ("/functional", Route::Other),
            ("/", Route::Other),
            ("*", Route::Other),
        ] {
            assert_eq!(Route::parse(path), expected, "{path}");
            assert_eq!(RequestTarget::parse(path.parse().unwrap()).route(), expected, "{path}");
        }
        assert_eq!(Route::parse(""), Route::Other);
    }
}
