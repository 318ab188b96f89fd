//! The members that a cluster starts with, and the settings.
