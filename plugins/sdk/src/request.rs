//! What a plugin reads: the host's request, or a sample in a native test.

use crate::bindings::innkeeper::policy::types as wire;

/// A request's head as the client sent it. What is not asked for is not copied into the plugin.
pub struct Request<'a>(Source<'a>);

enum Source<'a> {
    Host(&'a wire::Request),
    #[cfg(not(target_family = "wasm"))]
    Sample(&'a Sample),
}

macro_rules! read {
    ($self:ident, $host:ident => $read:expr, $sample:ident => $of_sample:expr) => {
        match $self.0 {
            Source::Host($host) => $read,
            #[cfg(not(target_family = "wasm"))]
            Source::Sample($sample) => $of_sample,
        }
    };
}

impl<'a> Request<'a> {
    #[doc(hidden)]
    pub fn from_host(request: &'a wire::Request) -> Self {
        Self(Source::Host(request))
    }

    /// The method in capitals.
    pub fn method(&self) -> String {
        read!(self, host => host.method(), sample => sample.method.clone())
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> String {
        read!(self, host => host.scheme(), _sample => "http".into())
    }

    /// Host and port that the client asked for.
    pub fn authority(&self) -> String {
        read!(self, host => host.authority(), sample => sample.authority.clone())
    }

    /// The host that the client asked for, without a port or a trailing dot, in lower case.
    pub fn host(&self) -> String {
        let mut host = self.authority();
        let port = host.rfind(':').filter(|colon| !host[*colon..].contains(']'));
        host.truncate(port.unwrap_or(host.len()));
        if host.ends_with('.') {
            host.pop();
        }
        host.make_ascii_lowercase();
        host
    }

    /// The path, undecoded.
    pub fn path(&self) -> String {
        read!(self, host => host.path(), sample => sample.path.clone())
    }

    /// What follows the first `?`, undecoded.
    pub fn query(&self) -> Option<String> {
        read!(self, host => host.query(), sample => sample.query.clone())
    }

    /// A header by its name in any case. One that was sent several times comes joined by `, `.
    pub fn header(&self, name: &str) -> Option<String> {
        read!(self, host => host.header(name), sample => sample.header(name))
    }

    /// Every header, names in lower case, repeated ones repeated.
    pub fn headers(&self) -> Vec<(String, String)> {
        read!(self, host => host.headers(), sample => sample.headers.clone())
    }

    /// Address and port of the other end of the connection.
    pub fn peer(&self) -> String {
        read!(self, host => host.peer(), _sample => "192.0.2.1:40000".into())
    }

    /// The verified JWT claims as JSON, where the route verifies a token.
    pub fn claims(&self) -> Option<String> {
        read!(self, host => host.claims(), sample => sample.claims.clone())
    }
}

/// A request for native tests.
///
/// ```
/// use innkeeper_plugin::Sample;
/// let sample = Sample::get("/orders?q=1").host("acme.example.com").with_header("X-Api-Key", "k-1");
/// assert_eq!(sample.request().header("x-api-key").as_deref(), Some("k-1"));
/// ```
#[cfg(not(target_family = "wasm"))]
#[derive(Debug, Clone)]
pub struct Sample {
    method: String,
    authority: String,
    path: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
    claims: Option<String>,
}

#[cfg(not(target_family = "wasm"))]
impl Sample {
    /// A GET request.
    pub fn get(target: &str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.into())),
            None => (target, None),
        };
        Self {
            method: "GET".into(),
            authority: "localhost".into(),
            path: path.into(),
            query,
            headers: Vec::new(),
            claims: None,
        }
    }

    /// Replaces the method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = method.into();
        self
    }

    /// Replaces host and port.
    #[must_use]
    pub fn host(mut self, authority: &str) -> Self {
        self.authority = authority.into();
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Sets the verified claims.
    #[must_use]
    pub fn claims(mut self, json: &str) -> Self {
        self.claims = Some(json.into());
        self
    }

    /// The request as a plugin reads it.
    pub fn request(&self) -> Request<'_> {
        Request(Source::Sample(self))
    }

    fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        let separator = if name.eq_ignore_ascii_case("cookie") { "; " } else { ", " };
        (!values.is_empty()).then(|| values.join(separator))
    }
}
