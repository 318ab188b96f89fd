//! Tests of quorate's real programs.
