//! Parses the path of a request into what it names.

/// What the path of a request names. All texts are slices of the path, byte for byte as the client
/// sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// `/async-function/NAME[/path]`: calls of a function, to be stored.
    Queue(Call<'a>),
    /// `/function/NAME[/path]`: a function, to be invoked at once.
    Function(Call<'a>),
    /// Anything else.
    Other,
}

/// A function and what follows its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// `NAME` or `NAME.NAMESPACE`, not checked. May be empty.
    pub function: &'a str,
    /// Empty, or beginning with `/`.
    pub path: &'a str,
}

// === impl Resource ===

impl<'a> Resource<'a> {
    /// Parses a path.
    #[must_use]
    pub fn of(path: &'a str) -> Self {
        if let Some(call) = Call::below(path, "/async-function") {
            Self::Queue(call)
        } else if let Some(call) = Call::below(path, "/function") {
            Self::Function(call)
        } else {
            Self::Other
        }
    }

    /// Returns the name for the label of a metric: one of a few, whatever clients send.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Queue(_) => "/async-function",
            Self::Function(_) => "/function",
            Self::Other => "other",
        }
    }
}

impl<'a> Call<'a> {
    fn below(path: &'a str, root: &str) -> Option<Self> {
        let rest = match path.strip_prefix(root)? {
            "" => "",
            rest => rest.strip_prefix('/')?,
        };
        let (function, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Some(Self { function, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_function_and_what_follows_is_left_as_it_is() {
        let call = |function, path| Call { function, path };
        for (path, expected) in [
            ("/async-function/figlet", Resource::Queue(call("figlet", ""))),
            ("/async-function/figlet/", Resource::Queue(call("figlet", "/"))),
            (
                "/async-function/figlet.dev//a/../b%2Fc",
                Resource::Queue(call("figlet.dev", "//a/../b%2Fc")),
            ),
            ("/async-function/", Resource::Queue(call("", ""))),
            ("/async-function", Resource::Queue(call("", ""))),
            ("/async-function//p", Resource::Queue(call("", "/p"))),
            ("/function/figlet/p", Resource::Function(call("figlet", "/p"))),
            ("/async-functions/figlet", Resource::Other),
            ("/functional", Resource::Other),
            ("/", Resource::Other),
            ("", Resource::Other),
            ("*", Resource::Other),
        ] {
            assert_eq!(Resource::of(path), expected, "{path}");
        }
    }
}
