//! Captures in files and on standard input.
