//! What a statement answers: columns, rows and the command tag, as the server sent them.

use std::io;

use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::{DataRowBody, RowDescriptionBody};

use super::WireError;

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, not always unique.
    pub name: String,
    /// The table that it comes from, or 0.
    pub table: u32,
    /// Its number in that table, or 0.
    pub number: i16,
    /// The OID of its type.
    pub type_oid: u32,
    /// The type's size in bytes; negative where values differ.
    pub type_size: i16,
    /// The type's modifier, or -1.
    pub type_modifier: i32,
}

/// A row, in PostgreSQL's text format.
#[derive(Debug, Clone)]
pub struct Row(DataRowBody);

/// All that one statement answered.
#[derive(Debug)]
pub struct ResultSet {
    /// The columns; none for a statement without rows.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: Vec<Row>,
    /// What was done.
    pub tag: Tag,
}

/// A command tag, such as `INSERT 0 5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

impl Column {
    pub(super) fn read(body: &RowDescriptionBody) -> io::Result<Vec<Self>> {
        let fields = body.fields().map(|field| {
            Ok(Self {
                name: field.name().to_owned(),
                table: field.table_oid(),
                number: field.column_id(),
                type_oid: field.type_oid(),
                type_size: field.type_size(),
                type_modifier: field.type_modifier(),
            })
        });
        fields.collect()
    }
}

impl Row {
    /// Takes a row that has `columns` values, each of them text.
    pub(super) fn read(body: DataRowBody, columns: usize) -> Result<Self, WireError> {
        let row = Self(body);
        let mut ranges = row.0.ranges();
        let mut count = 0;
        while let Some(range) = ranges.next()? {
            let text = range.is_none_or(|range| std::str::from_utf8(&row.0.buffer()[range]).is_ok());
            if !text {
                return Err(WireError::Protocol("the server sent a value that is not UTF-8"));
            }
            count += 1;
        }
        if count == columns {
            Ok(row)
        } else {
            Err(WireError::Protocol("a row has not as many values as columns"))
        }
    }

    /// The values, in the columns' order; `None` is NULL.
    pub fn values(&self) -> impl Iterator<Item = Option<&str>> {
        let mut ranges = self.0.ranges();
        std::iter::from_fn(move || {
            let range = ranges.next().expect("the row was read to its end when it came")?;
            Some(range.map(|range| {
                std::str::from_utf8(&self.0.buffer()[range]).expect("values were text when they came")
            }))
        })
    }

    /// What it takes in memory, bytes.
    pub fn size(&self) -> usize {
        self.0.buffer().len() + size_of::<Self>()
    }
}

impl Tag {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The first word: `SELECT`, `INSERT`, `CREATE`.
    pub fn command(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }

    /// Rows that were found or changed, where the command counts them.
    pub fn rows(&self) -> Option<u64> {
        self.0.rsplit(' ').next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_tells_the_command_and_its_rows() {
        for (tag, command, rows) in [
            ("INSERT 0 5", "INSERT", Some(5)),
            ("SELECT 0", "SELECT", Some(0)),
            ("CREATE TABLE", "CREATE", None),
            ("", "", None),
        ] {
            assert_eq!((Tag::new(tag).command(), Tag::new(tag).rows()), (command, rows));
        }
    }
}
