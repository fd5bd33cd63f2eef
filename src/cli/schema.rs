//! `innkeeper schema`: the JSON Schema of the policy document, for editors.

use crate::policy::Policy;

/// The schema as indented JSON that ends with a line break.
pub fn render() -> String {
    let json = serde_json::to_string_pretty(&Policy::schema());
    json.expect("a JSON value always becomes text") + "\n"
}
