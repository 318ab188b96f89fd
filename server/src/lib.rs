//! One server of a quorate cluster.
