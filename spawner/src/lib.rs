//! Starts a whole local quorate cluster.
