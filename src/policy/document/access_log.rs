//! The access log's rule as written: a word, or a sample.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::policy::AccessLog;
use crate::policy::decode::{Decode, Leaf, Located, Required, record};
use crate::policy::diagnostic::Report;
use crate::policy::leaf::Share;
use crate::policy::word::LoggedErrors;
use crate::policy::yaml::{Node, Value};

/// Which requests are recorded.
#[derive(Debug, Clone)]
pub(crate) enum LogRule {
    /// All or none.
    Word(Located<AccessLog>),
    /// Some.
    Sample(LogSample),
}

record! {
    /// Records of some requests.
    LogSample is "`access_log`";
    /// The share of ordinary requests that is recorded.
    sample: Required<Located<Share>>,
    /// Refusals and answers with 5xx: `all` (default), or `sampled` like the others.
    errors: Option<Located<LoggedErrors>>,
    /// A request that takes this long is always recorded. Default 1s.
    slow: Option<Located<Duration>>,
}

impl Decode for LogRule {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        match node.value {
            Value::Map(_) => LogSample::decode(node, report).map(Self::Sample),
            _ => Located::decode(node, report).map(Self::Word),
        }
    }
}

impl JsonSchema for LogRule {
    fn schema_name() -> Cow<'static, str> {
        "LogRule".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [<AccessLog as Leaf>::schema(), generator.subschema_for::<LogSample>()] })
    }
}
