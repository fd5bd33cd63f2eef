//! A JSON object on a line, written field by field.
//!
//! Each request has one. A serialiser looks for what to escape in every byte of every name, formats
//! through layers, and takes three times as long; values that do need escaping are left to it.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::address::Peer;

/// Room for the record of an ordinary request, bytes.
const ORDINARY: usize = 640;

/// The line so far. Names are ours and need no escaping.
pub(super) struct JsonLine(String);

impl JsonLine {
    pub(super) fn begin() -> Self {
        let mut line = String::with_capacity(ORDINARY);
        line.push('{');
        Self(line)
    }

    pub(super) fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        // No early exit, so that it is done many bytes at a time.
        if value.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
            self.0.push('"');
            self.0.push_str(value);
            self.0.push('"');
        } else {
            self.0.push_str(&serde_json::Value::from(value).to_string());
        }
    }

    /// Nothing, where there is no value.
    pub(super) fn maybe(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// For a value that shows itself as a text without anything to escape.
    pub(super) fn shown(&mut self, name: &'static str, value: impl Display) {
        self.name(name);
        write!(self.0, "\"{value}\"").expect("writing to a String cannot fail");
    }

    pub(super) fn peer(&mut self, name: &'static str, peer: Peer) {
        self.name(name);
        self.0.push('"');
        peer.push_to(&mut self.0);
        self.0.push('"');
    }

    pub(super) fn number(&mut self, name: &'static str, value: impl itoa::Integer) {
        self.name(name);
        self.0.push_str(itoa::Buffer::new().format(value));
    }

    /// Down to microseconds, which is as fine as anyone reads.
    pub(super) fn milliseconds(&mut self, name: &'static str, duration: Duration) {
        let microseconds = (duration.as_nanos() + 500) / 1000;
        self.number(name, microseconds / 1000);
        let fraction = 1000 + microseconds % 1000;
        self.0.push('.');
        self.0.push_str(&itoa::Buffer::new().format(fraction)[1..]);
    }

    pub(super) fn flag(&mut self, name: &'static str, value: bool) {
        self.name(name);
        self.0.push_str(if value { "true" } else { "false" });
    }

    /// A list of objects, each filled by `write`.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        values: impl IntoIterator<Item = T>,
        write: impl Fn(&mut Self, T),
    ) {
        self.name(name);
        self.0.push('[');
        for (index, value) in values.into_iter().enumerate() {
            self.0.push_str(if index == 0 { "{" } else { ",{" });
            write(self, value);
            self.0.push('}');
        }
        self.0.push(']');
    }

    /// The object with the line's end.
    pub(super) fn end(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }

    fn name(&mut self, name: &'static str) {
        self.0.push_str(if self.0.ends_with('{') { "\"" } else { ",\"" });
        self.0.push_str(name);
        self.0.push_str("\":");
    }
}

/// Whether a byte of a text stands for itself in JSON (RFC 8259, section 7).
fn is_plain(byte: u8) -> bool {
    byte >= b' ' && byte != b'"' && byte != b'\\'
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_line_is_what_a_serialiser_would_say() {
        let mut line = JsonLine::begin();
        line.text("plain", "a/ä");
        line.text("escaped", "a\"b\\c\n\u{1}");
        line.maybe("absent", None);
        line.shown("shown", 7);
        line.peer("peer", "192.0.2.1:9".parse().unwrap());
        line.number("number", u64::MAX);
        for (name, nanoseconds) in [("none", 0), ("little", 1_499), ("much", 61_000_000_500)] {
            line.milliseconds(name, Duration::from_nanos(nanoseconds));
        }
        line.flag("flag", true);
        line.text("brace", "{");
        line.list("list", ["\"", "{"], |line, text| {
            line.text("a", text);
            line.number("b", 1);
        });
        line.list("none", [0; 0], |line, number| line.number("a", number));
        let line = line.end();
        let expected = json!({
            "plain": "a/ä", "escaped": "a\"b\\c\n\u{1}", "shown": "7", "peer": "192.0.2.1:9",
            "number": u64::MAX, "none": 0.0, "little": 0.001, "much": 61_000.001, "flag": true,
            "brace": "{", "list": [{ "a": "\"", "b": 1 }, { "a": "{", "b": 1 }], "none": [],
        });
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected, "{line}");
        assert!(line.ends_with("}\n") && line.lines().count() == 1);
    }
}
