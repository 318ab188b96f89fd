//! Where a server listens for clients: a host and a port, as users write them and as redirects
//! name them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The longest host name, in bytes (RFC 1035).
pub const HOST_BYTES_MAX: usize = 253;

/// A host and a port. The host is a name or an IP address, one of version 6 without brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

/// What was given is no address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is not of the form host:port")]
pub struct AddressError {
    pub text: String,
}

impl Address {
    /// The address of `port` on `host`.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        Self { host, port }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError {
            text: text.to_owned(),
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        if bracketed.is_none() && host.contains(':') {
            return Err(error());
        }
        let host = bracketed.unwrap_or(host);
        let usable = (1..=HOST_BYTES_MAX).contains(&host.len())
            && host.bytes().all(|byte| byte.is_ascii_graphic());
        match port.parse() {
            Ok(port) if usable && port != 0 => Ok(Self::new(host, port)),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_was_read() {
        for text in ["127.0.0.1:9000", "localhost:1", "[::1]:65535", "a-b.c:80"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}:1", "h".repeat(HOST_BYTES_MAX + 1));
        for text in [
            "", "a", ":1", "a:", "a:0", "a:65536", "a:x", "::1:9", "a b:1", &long,
        ] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
        let longest = format!("{}:1", "h".repeat(HOST_BYTES_MAX));
        assert!(longest.parse::<Address>().is_ok());
    }
}
