//! One call of the admin listener: the name in its path and its query parameters, checked.

use std::time::Duration;

use http::{StatusCode, Uri};
use percent_encoding::percent_decode_str;

use super::answer::Problem;

/// What an operator asked, where the path and its parameters are known.
pub(super) struct Call<'a> {
    /// The text at `{name}`, percent-decoded; empty where the path has no such place.
    pub(super) name: String,
    query: &'a str,
}

/// Whether `path` fits the pattern of an entry.
pub(super) fn is_at(pattern: &str, path: &str) -> bool {
    let (pattern, _) = pattern.split_once('?').unwrap_or((pattern, ""));
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(wanted), Some(given)) if fits(wanted, given) => {}
            _ => return false,
        }
    }
}

fn fits(wanted: &str, given: &str) -> bool {
    wanted == given || (wanted.starts_with('{') && !given.is_empty())
}

impl<'a> Call<'a> {
    /// Reads a call of the entry with this pattern.
    ///
    /// # Errors
    /// A parameter that the entry does not know: ignoring a misspelt one would do something else
    /// than was asked.
    pub(super) fn read(pattern: &str, uri: &'a Uri) -> Result<Self, Problem> {
        let (pattern, parameters) = pattern.split_once('?').unwrap_or((pattern, ""));
        let query = uri.query().unwrap_or_default();
        let known: Vec<&str> =
            parameters.split('&').filter_map(|one| one.split_once('=')).map(|(name, _)| name).collect();
        for (name, _) in form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&&*name) {
                let known = if known.is_empty() { "no parameter".into() } else { known.join(", ") };
                let detail = format!("`{name}` means nothing here: {} takes {known}", uri.path());
                return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
            }
        }
        let mut segments = pattern.split('/').zip(uri.path().split('/'));
        let name = segments.find(|(wanted, _)| wanted.starts_with('{')).map_or("", |(_, given)| given);
        Ok(Self { name: percent_decode_str(name).decode_utf8_lossy().into_owned(), query })
    }

    /// The value of a query parameter that is a duration.
    ///
    /// # Errors
    /// A value that is none.
    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, Problem> {
        let Some(value) = self.parameter(name) else { return Ok(None) };
        let read = humantime::parse_duration(&value).map(Some);
        read.map_err(|_| {
            let detail = format!("`{name}` must be a duration such as `500ms` or `10m`, got `{value}`");
            Problem::new(StatusCode::BAD_REQUEST, detail)
        })
    }

    /// The value of a query parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let mut fields = form_urlencoded::parse(self.query.as_bytes());
        fields.find(|(field, _)| field == name).map(|(_, value)| value.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pattern: &str, uri: &'static str) -> Result<(String, Option<String>), StatusCode> {
        let uri = Uri::from_static(uri);
        assert!(is_at(pattern, uri.path()));
        let call = Call::read(pattern, &uri).map_err(|problem| problem.into_response().status())?;
        Ok((call.name.clone(), call.parameter("version")))
    }

    #[test]
    fn a_path_fits_segment_by_segment() {
        for path in ["/plugins/keys/rollback", "/plugins/a%20b/rollback"] {
            assert!(is_at("/plugins/{name}/rollback?version=HASH", path), "{path}");
        }
        for path in ["/plugins", "/plugins/keys", "/plugins//rollback", "/plugins/keys/rollback/", "/"] {
            assert!(!is_at("/plugins/{name}/rollback?version=HASH", path), "{path}");
        }
        assert!(is_at("/", "/"));
    }

    #[test]
    fn names_and_parameters_are_read_and_unknown_ones_refused() {
        let pattern = "/plugins/{name}/rollback?version=HASH";
        assert_eq!(read(pattern, "/plugins/keys/rollback"), Ok(("keys".into(), None)));
        assert_eq!(
            read(pattern, "/plugins/a%20b/rollback?version=1f"),
            Ok(("a b".into(), Some("1f".into())))
        );
        assert_eq!(read(pattern, "/plugins/keys/rollback?verison=1f"), Err(StatusCode::BAD_REQUEST));
        assert_eq!(read("/plugins/{name}", "/plugins/keys?version=1f"), Err(StatusCode::BAD_REQUEST));
    }
}
