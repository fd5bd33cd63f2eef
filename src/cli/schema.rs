//! `innkeeper schema`: the JSON Schema of the policy document, for editors.

use std::process::ExitCode;

use super::print;
use crate::policy::Policy;

/// Prints it to standard output.
pub fn run() -> ExitCode {
    print(&render());
    ExitCode::SUCCESS
}

/// The schema as indented JSON that ends with a line break.
pub fn render() -> String {
    let json = serde_json::to_string_pretty(&Policy::schema());
    json.expect("a JSON value always becomes text") + "\n"
}
