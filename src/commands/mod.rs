//! One file, one subcommand.
