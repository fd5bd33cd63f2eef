//! Named queries: the statement, its parameters, and what the client gets.

use super::{Scope, or, statement};
use crate::policy::decode::{Located, shorten};
use crate::policy::diagnostic::Report;
use crate::policy::document::{self, TenantRule};
use crate::policy::{
    DeclaredSchema, Param, ParamSource, ParamType, PathSegment, Query, ResultShape, RouteMatch,
};
use crate::tenant::SchemaName;

/// Longest text parameter where the policy does not say, in characters.
const DEFAULT_MAX_LENGTH: usize = 65_536;

pub(super) fn resolve(
    route: &document::Route,
    query: &document::Query,
    pattern: Option<&RouteMatch>,
    scope: &Scope,
    report: &mut Report,
) -> Option<Query> {
    let database = query.database.get().and_then(|name| scope.databases.find(name, report));
    let written = query.params.as_deref().unwrap_or_default();
    let params: Vec<_> = written.iter().map(|one| param(one, pattern, report)).collect();
    let read = query.sql.get().and_then(|sql| statement(sql, query, report));
    let declared_schema = declared_schema(route, query, report);
    let (statement, locks) = read?;
    let result = result_shape(query, statement.returns_rows, report);
    let read_only = read_only(query, statement.modifies, locks, report);
    Some(Query {
        database: database?,
        statement,
        params: params.into_iter().collect::<Option<_>>()?,
        result,
        read_only,
        timeout: query.timeout.as_ref().map(|timeout| timeout.value),
        declared_schema: declared_schema?,
    })
}

fn statement(
    sql: &Located<String>,
    query: &document::Query,
    report: &mut Report,
) -> Option<(crate::policy::Statement, bool)> {
    let read = match statement::read(&sql.value) {
        Ok(read) => read,
        Err(mistake) => {
            let message = match sql.is_from_environment() {
                true => {
                    format!("what `{}` stands for is not a named query's statement", shorten(sql.shown()))
                }
                false => mistake.message,
            };
            report.error(sql.place, message).help(mistake.help);
            return None;
        }
    };
    // A list that could not be read as a whole says nothing about how many there are.
    let written = query.params.as_deref().unwrap_or_default();
    let greatest = read.placeholders.iter().copied().max().unwrap_or(0);
    if greatest > written.len() && query.sound {
        report
            .error(
                sql.place,
                format!("the statement uses `${greatest}`, but `params` has {}", counted(written.len())),
            )
            .help("the first of `params` is `$1`, the second `$2`, and so on");
    }
    for (index, param) in written.iter().enumerate() {
        let number = index + 1;
        if query.sound && !read.placeholders.contains(&number) {
            report
                .error(
                    param.place,
                    format!("the statement does not use this parameter, which is `${number}`"),
                )
                .also(sql.place, "the statement")
                .help("use it, or remove it");
        }
    }
    Some((read.statement, read.locks))
}

fn counted(parameters: usize) -> String {
    match parameters {
        0 => "no parameter".into(),
        1 => "only one parameter".into(),
        several => format!("only {several} parameters"),
    }
}

/// The outer `None` stands for a mistake, the inner one for a route that serves tenants.
fn declared_schema(
    route: &document::Route,
    query: &document::Query,
    report: &mut Report,
) -> Option<Option<DeclaredSchema>> {
    let schema: Option<&Located<SchemaName>> = match (&route.schema, &query.schema) {
        (Some(outer), Some(inner)) => {
            report
                .error(inner.place, "`schema` is given twice")
                .also(outer.place, "first given here")
                .help("keep one of them");
            return None;
        }
        (outer, inner) => outer.as_ref().or(inner.as_ref()),
    };
    match (route.tenant.get()?, schema) {
        (TenantRule::None, Some(schema)) => Some(Some(DeclaredSchema(schema.value.clone()))),
        (TenantRule::None, None) => {
            if route.sound || query.sound {
                report
                    .error(query.place, "a query on a route with `tenant: none` must name its schema")
                    .help("say where it runs: `schema: public`");
            }
            None
        }
        (_, Some(schema)) => {
            report
                .error(
                    schema.place,
                    "`schema` is for routes with `tenant: none`: here the tenant's own schema is used",
                )
                .help("remove it");
            None
        }
        (_, None) => Some(None),
    }
}

fn result_shape(query: &document::Query, returns_rows: bool, report: &mut Report) -> ResultShape {
    let default = if returns_rows { ResultShape::Rows } else { ResultShape::None };
    if let Some(shape) = &query.result
        && !returns_rows
        && shape.value != ResultShape::None
    {
        report
            .error(
                shape.place,
                format!("the statement returns no rows, so its result cannot be `{}`", shape.shown()),
            )
            .help("add `RETURNING` to the statement, or write `result: none`");
    }
    or(query.result.as_ref(), default)
}

fn read_only(query: &document::Query, modifies: bool, locks: bool, report: &mut Report) -> bool {
    if let Some(read_only) = &query.read_only
        && read_only.value
    {
        if modifies {
            report
                .error(read_only.place, "the statement changes rows, so it cannot be `read_only: true`")
                .help("remove `read_only`, or write `read_only: false`");
        } else if locks {
            report
                .error(read_only.place, "the statement locks rows, which `read_only: true` does not allow")
                .help("remove `FOR UPDATE`, or write `read_only: false`");
        }
    }
    or(query.read_only.as_ref(), !modifies && !locks)
}

fn param(written: &document::Param, pattern: Option<&RouteMatch>, report: &mut Report) -> Option<Param> {
    let source = source(written, pattern, report);
    let kind = or(written.r#type.as_ref(), ParamType::Text);
    let is_number = matches!(kind, ParamType::Int | ParamType::Float | ParamType::Numeric);
    for (bound, name) in [(&written.min, "min"), (&written.max, "max")] {
        if let Some(bound) = bound
            && !is_number
        {
            report
                .error(bound.place, format!("`{name}` is for numbers, and this parameter is none"))
                .help("give it a type (`type: int`), or limit a text with `max_length`");
        }
    }
    let min = written.min.as_ref().map(|min| min.value);
    let max = written.max.as_ref().map(|max| max.value);
    if let (Some(least), Some(greatest), Some(at)) = (min, max, &written.max)
        && least > greatest
    {
        report.error(at.place, format!("`max` is less than `min`: no number is from {least} to {greatest}"));
    }
    if let Some(length) = &written.max_length
        && kind != ParamType::Text
    {
        report.error(length.place, "`max_length` is for texts, and this parameter is none").help("remove it");
    }
    if let Some(default) = &written.default {
        check_default(default, kind, min, max, report);
    }
    Some(Param {
        source: source?,
        kind,
        default: written.default.as_ref().map(|default| default.value.clone()),
        nullable: or(written.nullable.as_ref(), false),
        min,
        max,
        max_length: or(written.max_length.as_ref(), DEFAULT_MAX_LENGTH),
    })
}

fn source(
    written: &document::Param,
    pattern: Option<&RouteMatch>,
    report: &mut Report,
) -> Option<ParamSource> {
    let mut sources = Vec::new();
    for (name, wrap) in [
        (&written.query, ParamSource::Query as fn(String) -> ParamSource),
        (&written.path, ParamSource::Path),
        (&written.body, ParamSource::Body),
    ] {
        let Some(name) = name else { continue };
        if name.value.is_empty() {
            report.error(name.place, "this name must not be empty");
        }
        sources.push(wrap(name.value.clone()));
    }
    sources.extend(written.header.as_ref().map(|header| ParamSource::Header(header.value.clone())));
    if let (Some(path), Some(pattern)) = (&written.path, pattern) {
        let captures: Vec<&str> = pattern
            .path
            .segments
            .iter()
            .filter_map(|segment| match segment {
                PathSegment::Capture(name) => Some(name.as_str()),
                PathSegment::Literal(_) => None,
            })
            .collect();
        if !captures.contains(&path.value.as_str()) {
            let finding =
                report.error(path.place, format!("the route's path captures no `{}`", path.shown()));
            if captures.is_empty() {
                finding.help(format!("write `{{{}}}` where it stands in `match.path`", path.shown()));
            } else {
                finding.suggest(path.shown(), captures);
            }
        }
    }
    match sources.len() {
        1 => sources.pop(),
        0 if !written.sound => None,
        count => {
            let what =
                if count == 0 { "does not say where it comes from" } else { "comes from several places" };
            report
                .error(written.place, format!("this parameter {what}"))
                .help("name exactly one of `query`, `path`, `header` and `body`");
            None
        }
    }
}

/// A default is held to the type as far as that can be told without PostgreSQL.
fn check_default(
    default: &crate::policy::json::Json,
    kind: ParamType,
    min: Option<f64>,
    max: Option<f64>,
    report: &mut Report,
) {
    use serde_json::Value;
    let value = &default.value;
    let text = match value {
        Value::Null => return,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let scalar = !matches!(value, Value::Array(_) | Value::Object(_));
    let (fits, wanted) = match kind {
        ParamType::Json => (true, "JSON"),
        ParamType::Text => (scalar, "a text"),
        ParamType::Int => (scalar && text.parse::<i64>().is_ok(), "a whole number"),
        ParamType::Float | ParamType::Numeric => (scalar && text.parse::<f64>().is_ok(), "a number"),
        ParamType::Bool => (scalar && matches!(text.as_str(), "true" | "false"), "`true` or `false`"),
        ParamType::Uuid => (scalar && uuid::Uuid::parse_str(&text).is_ok(), "a UUID"),
        ParamType::Date | ParamType::Timestamp => (value.is_string(), "a date in quotes"),
    };
    if !fits {
        report.error(default.place, format!("this default is not {wanted}, as the parameter's type asks"));
        return;
    }
    if let Ok(number) = text.parse::<f64>()
        && matches!(kind, ParamType::Int | ParamType::Float | ParamType::Numeric)
        && (min.is_some_and(|min| number < min) || max.is_some_and(|max| number > max))
    {
        report.error(default.place, "this default is outside `min` and `max`");
    }
}
