//! memcached's text protocol, in both directions; bytes in, bytes out.
