//! Quorate's replicated state: a pure function of the log.
