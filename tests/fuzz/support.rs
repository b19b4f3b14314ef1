//! What the targets borrow of the tests.

#[allow(dead_code, reason = "scripts are parsed by tests only")]
#[path = "../support/flow_script.rs"]
pub mod flow_script;
