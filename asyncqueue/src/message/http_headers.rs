//! Encodes HTTP headers in NATS headers: one `Async-Header: name: value` each.
//!
//! The value of an HTTP header may hold any byte, but that of a NATS header only text. So every
//! byte of a value outside printable ASCII, and `%` itself, is written as `%XX`. A client's header
//! is always the *value* of a NATS header, never a NATS header itself: no client can set
//! `Nats-Rollup` and the like.

use std::borrow::Cow;

use async_nats::{HeaderMap as NatsHeaders, HeaderName as NatsHeaderName};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

use super::{DecodeError, invalid};

/// Name of the NATS header that holds one HTTP header.
pub(super) const H_HEADER: &str = "Async-Header";

/// Bytes of a header's value that are escaped: controls and `%` (non-ASCII always is).
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// Adds a line for each HTTP header.
pub(crate) fn append(nats: &mut NatsHeaders, http: &HeaderMap) {
    for (name, value) in http {
        // Long enough if nothing is escaped, which is true of nearly every header.
        let mut line = String::with_capacity(name.as_str().len() + 2 + value.len());
        line.push_str(name.as_str());
        line.push_str(": ");
        line.extend(percent_encode(value.as_bytes(), ESCAPED));
        nats.append(NatsHeaderName::from_static(H_HEADER), line);
    }
}

/// Reads the lines that `append` wrote.
pub fn read(nats: &NatsHeaders) -> Result<HeaderMap, DecodeError> {
    let mut headers = HeaderMap::new();
    for line in nats.get_all(NatsHeaderName::from_static(H_HEADER)) {
        let (name, value) = read_line(line.as_str())?;
        headers.try_append(name, value).map_err(|e| invalid(H_HEADER, "…", e))?;
    }
    Ok(headers)
}

fn read_line(line: &str) -> Result<(HeaderName, HeaderValue), DecodeError> {
    let rule = "write it as `name: value` with non-ASCII as %XX";
    let (name, value) = line.split_once(':').ok_or_else(|| invalid(H_HEADER, "…", rule))?;
    let name = name.parse().map_err(|e| invalid(H_HEADER, name, e))?;
    let decoded: Cow<'_, [u8]> = percent_decode_str(value.trim_start()).into();
    // Whitespace around a value does not belong to it (RFC 9110, 5.5), even if it was escaped.
    let value = trim_blanks(&decoded);
    let value = HeaderValue::from_bytes(value).map_err(|e| invalid(H_HEADER, "…", e))?;
    Ok((name, value))
}

fn trim_blanks(value: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let begin = value.iter().position(is_text).unwrap_or(value.len());
    let end = value.iter().rposition(is_text).map_or(begin, |last| last + 1);
    &value[begin..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_header_value_survives(
            value in prop::collection::vec(
                prop_oneof![Just(b'\t'), b' '..=b'~', 0x80..=0xff_u8],
                0..64,
            )
        ) {
            // HTTP itself trims the ends of a value.
            let value = HeaderValue::from_bytes(value.trim_ascii()).unwrap();
            let mut http = HeaderMap::new();
            http.append("x-any", value.clone());
            http.append("x-any", value);
            let mut nats = NatsHeaders::new();
            append(&mut nats, &http);
            prop_assert_eq!(read(&nats).unwrap(), http);
        }
    }
}
