//! Names in NATS Streaming, as its server allows them.

/// Parses a cluster id, a client id, a queue group or a durable name.
pub(super) fn token(text: &str) -> Result<String, String> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !text.is_empty() && text.bytes().all(is_valid) {
        Ok(text.to_owned())
    } else {
        Err("use one or more of A-Z, a-z, 0-9, - and _".to_owned())
    }
}

/// Parses the name of a channel.
pub(super) fn channel(text: &str) -> Result<String, String> {
    let is_valid = |token: &str| {
        !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || "*>/\\".contains(c))
    };
    if text.split('.').all(is_valid) {
        Ok(text.to_owned())
    } else {
        Err("use a subject without wildcards, as faas-request or jobs.slow".to_owned())
    }
}

/// Returns the durable name that OpenFaaS's worker uses for a channel.
pub(super) fn durable_of(channel: &str) -> String {
    channel.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_the_server() {
        for good in ["faas", "faas-cluster", "a_B9"] {
            assert_eq!(token(good).as_deref(), Ok(good));
        }
        for bad in ["", "a.b", "a b", "a:b", "*"] {
            assert!(token(bad).is_err(), "{bad}");
        }
        for good in ["faas-request", "jobs.slow"] {
            assert_eq!(channel(good).as_deref(), Ok(good));
        }
        for bad in ["", "a.", ".a", "a..b", "a.*", ">", "a b"] {
            assert!(channel(bad).is_err(), "{bad}");
        }
        assert_eq!(durable_of("jobs.slow"), "jobs_slow");
    }
}
