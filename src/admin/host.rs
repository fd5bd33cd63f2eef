//! Whether a request means this listener: a page whose name was made to lead here (DNS rebinding)
//! gives that name as the host.

use std::net::IpAddr;

use http::header::HOST;
use http::{HeaderMap, StatusCode, Uri};

use super::answer::Problem;
use crate::decision::host_of;

/// Lets in whoever asks an address, a name that can only mean this machine, or one that the policy
/// lists. A browser sends the name that its page was loaded from, and no page has one of these.
///
/// # Errors
/// Any other name.
pub(super) fn check(uri: &Uri, headers: &HeaderMap, listed: &[String]) -> Result<(), Problem> {
    let written = match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(HOST).map(|host| host.to_str().unwrap_or_default()),
    };
    // A client of HTTP/1.0, or a health check by hand, names no host; a browser always does.
    let Some(host) = written.map(host_of) else { return Ok(()) };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    let local = address.parse::<IpAddr>().is_ok() || host == "localhost" || host.ends_with(".localhost");
    if local || listed.contains(&host) {
        return Ok(());
    }
    let detail = "ask by an address or as `localhost`, or list this host under `server.admin_hosts`: another \
        name could be a web page's";
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_localhost_is_let_in_and_a_name_is_not() {
        let let_in = |host: &str| {
            let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
            check(&Uri::from_static("/"), &headers, &["gate.internal".into()]).is_ok()
        };
        for host in [
            "127.0.0.1:9901",
            "127.0.0.1",
            "[::1]:9901",
            "10.0.0.7:9901",
            "localhost:9901",
            "LOCALHOST",
            "Gate.internal:9901",
        ] {
            assert!(let_in(host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:9901", "127.0.0.1.evil.example", "localhost.evil.example", ""]
        {
            assert!(!let_in(host), "{host}");
        }
        assert!(check(&Uri::from_static("/"), &HeaderMap::new(), &[]).is_ok());
        assert!(check(&Uri::from_static("http://evil.example/"), &HeaderMap::new(), &[]).is_err());
    }
}
