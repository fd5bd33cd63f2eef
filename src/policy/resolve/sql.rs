//! Endpoints for statements that clients write.

use super::{Scope, or, settings};
use crate::policy::diagnostic::Report;
use crate::policy::document;
use crate::policy::{SqlEndpoint, StatementKind, is_forbidden_function};
use crate::tenant::{Isolation, MAX_IDENTIFIER_BYTES};

/// What operators are made of (PostgreSQL's manual, chapter 4.1.3).
const OPERATOR_CHARACTERS: &str = "+-*/<>=~!@#%^&|?";

pub(super) fn resolve(
    route: &document::Route,
    written: &document::Sql,
    scope: &Scope,
    report: &mut Report,
) -> Option<SqlEndpoint> {
    if matches!(route.tenant.get(), Some(document::TenantRule::None)) {
        report
            .error(
                written.place,
                "statements that clients write need a tenant: the route says `tenant: none`",
            )
            .help("name a resolver: `tenant: { header: X-Tenant-ID }`");
    }
    let name = written.database.get();
    let database = name.and_then(|name| scope.databases.find(name, report));
    if let (Some(name), Some(database)) = (name, &database)
        && database.isolation == Isolation::Schema
    {
        report
            .error(
                name.place,
                format!(
                    "the database `{}` has `isolation: schema`, which cannot hold statements that clients \
                     write: `select … from other_tenant.users` would be answered",
                    name.shown()
                ),
            )
            .help("set its `isolation` to `login`, or to `role`, and give each tenant a role");
    }
    let mut functions = Vec::new();
    for function in written.functions.iter().flatten() {
        let name = &function.value;
        let is_plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !is_plain || name.is_empty() || name.len() > MAX_IDENTIFIER_BYTES {
            report.error(
                function.place,
                format!(
                    "a function's name is lower-case letters, digits and `_`, without a schema, got `{}`",
                    function.shown()
                ),
            );
        } else if is_forbidden_function(name) {
            report
                .error(function.place, format!("no client may call `{name}`: it reaches beyond its tenant"))
                .help(
                    "take it off the list; a function of your own may call it with arguments that it checks",
                );
        }
        functions.push(name.clone());
    }
    let statements: Vec<StatementKind> = match &written.statements {
        Some(kinds) => kinds.0.iter().map(|kind| kind.value).collect(),
        None if or(written.read_only.as_ref(), false) => vec![StatementKind::Select],
        None => SqlEndpoint::STATEMENTS.to_vec(),
    };
    Some(SqlEndpoint {
        database: database?,
        statements,
        functions,
        operators: operators(written, report),
        read_only: or(written.read_only.as_ref(), false),
        timeout: written.timeout.as_ref().map(|timeout| timeout.value),
        max_request: settings::size(written.max_request.as_ref(), SqlEndpoint::MAX_BYTES),
        max_response: settings::size(written.max_response.as_ref(), SqlEndpoint::MAX_BYTES),
        max_batch: or(written.max_batch.as_ref(), SqlEndpoint::MAX_BATCH) as usize,
        origins: written.origins.iter().flatten().map(|origin| origin.value.0.clone()).collect(),
    })
}

fn operators(written: &document::Sql, report: &mut Report) -> Vec<String> {
    let mut operators = Vec::new();
    for operator in written.operators.iter().flatten() {
        let name = &operator.value;
        let is_plain = name.chars().all(|c| OPERATOR_CHARACTERS.contains(c));
        let is_comment = name.contains("--") || name.contains("/*");
        if !is_plain || is_comment || name.is_empty() || name.len() > MAX_IDENTIFIER_BYTES {
            report.error(
                operator.place,
                format!(
                    "an operator is characters of `{OPERATOR_CHARACTERS}`, without a schema and without `--` and \
                     `/*`, got `{}`",
                    operator.shown()
                ),
            );
        }
        operators.push(name.clone());
    }
    operators
}
