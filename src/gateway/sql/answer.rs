//! Writes results as Neon's proxy does.

use serde_json::json;

use super::request::Mode;
use super::value::{Kind, push_string};
use crate::sql::{Column, ResultSet, Row, Tag};

/// The answer to a single statement.
pub(super) fn single(results: &[ResultSet], modes: &[Mode]) -> Vec<u8> {
    let mut out = Vec::new();
    for (result, mode) in results.iter().zip(modes) {
        push_result(&mut out, result, *mode);
    }
    out
}

/// The answer to a batch.
pub(super) fn batch(results: &[ResultSet], modes: &[Mode]) -> Vec<u8> {
    let mut out = br#"{"results":["#.to_vec();
    for (index, (result, mode)) in results.iter().zip(modes).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_result(&mut out, result, *mode);
    }
    out.extend_from_slice(b"]}");
    out
}

/// How the rows of one result are written.
pub(super) struct Writer {
    columns: Vec<Written>,
    arrays: bool,
}

/// A column as it is written: its name as JSON, and what its values are.
struct Written {
    name: Vec<u8>,
    kind: Kind,
    /// Whether another column of the same name follows. An object has one of each name: the last.
    hidden: bool,
}

impl Writer {
    pub(super) fn new(columns: &[Column], mode: Mode) -> Self {
        let written = columns.iter().enumerate().map(|(index, column)| {
            let mut name = Vec::new();
            push_string(&mut name, &column.name);
            let kind = if mode.raw_text { Kind::Text } else { Kind::of(column.type_oid) };
            let hidden = columns[index + 1..].iter().any(|other| other.name == column.name);
            Written { name, kind, hidden }
        });
        Self { columns: written.collect(), arrays: mode.arrays }
    }

    /// Writes a row: an array, or an object by the columns' names.
    pub(super) fn push(&self, out: &mut Vec<u8>, row: &Row) {
        out.push(if self.arrays { b'[' } else { b'{' });
        let mut first = true;
        for (column, value) in self.columns.iter().zip(row.values()) {
            if column.hidden && !self.arrays {
                continue;
            }
            if !first {
                out.push(b',');
            }
            first = false;
            if !self.arrays {
                out.extend_from_slice(&column.name);
                out.push(b':');
            }
            match value {
                Some(text) => column.kind.push(out, text),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.push(if self.arrays { b']' } else { b'}' });
    }
}

/// What a statement did: `"command":"INSERT","rowCount":1`.
pub(super) fn push_tag(out: &mut Vec<u8>, tag: &Tag) {
    out.extend_from_slice(br#""command":"#);
    push_string(out, tag.command());
    let rows = tag.rows().map_or_else(|| "null".to_owned(), |rows| rows.to_string());
    out.extend_from_slice(br#","rowCount":"#);
    out.extend_from_slice(rows.as_bytes());
}

fn push_result(out: &mut Vec<u8>, result: &ResultSet, mode: Mode) {
    let fields: Vec<_> = result.columns.iter().map(field).collect();
    out.extend_from_slice(br#"{"fields":"#);
    out.extend_from_slice(json!(fields).to_string().as_bytes());
    out.extend_from_slice(br#","rows":["#);
    let writer = Writer::new(&result.columns, mode);
    for (index, row) in result.rows.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        writer.push(out, row);
    }
    out.extend_from_slice(b"],");
    push_tag(out, &result.tag);
    out.extend_from_slice(br#","rowAsArray":"#);
    out.extend_from_slice(mode.arrays.to_string().as_bytes());
    out.push(b'}');
}

fn field(column: &Column) -> serde_json::Value {
    json!({
        "name": column.name,
        "dataTypeID": column.type_oid,
        "tableID": column.table,
        "columnID": column.number,
        "dataTypeSize": column.type_size,
        "dataTypeModifier": column.type_modifier,
        "format": "text",
    })
}
