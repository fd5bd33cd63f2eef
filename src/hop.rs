//! Which headers end at a hop, which only we may say, and which frame a request.

use http::HeaderName;
use http::header;

use crate::decision::folds_alike;

/// Whether a header is meant for the next hop only (RFC 9110, section 7.6.1): `Expect` because we
/// answer it, and the ones of the old ways to HTTP/2 too.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "te"
            | "upgrade"
            | "expect"
            | "http2-settings"
            | "trailer"
    )
}

/// Whether only we may say this, however it is spelled: a backend that folds `_`, `.` or case into
/// `-` reads `X_Tenant.ID` as `X-Tenant-ID`.
pub fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str();
    // Letters fold into themselves, so that the first one tells most names apart.
    match name.as_bytes().first() {
        Some(b'x') => {
            folds_alike(name, "x-real-ip")
                || folds_alike(name, "x-request-id")
                || folds_alike(name, "x-tenant")
                || starts_folded(name, "x-tenant-")
                || folds_alike(name, "x-forwarded")
                || starts_folded(name, "x-forwarded-")
        }
        // CGI hands `Proxy` to programs as the variable HTTP_PROXY (CVE-2016-5385).
        Some(b'p') => name == "proxy" || starts_folded(name, "proxy-"),
        Some(b'f') => folds_alike(name, "forwarded"),
        _ => false,
    }
}

/// Whether a header says where a request goes or where it ends.
pub fn is_framing(name: &HeaderName) -> bool {
    folds_alike(name.as_str(), "content-length") || name == header::HOST
}

fn starts_folded(name: &str, folded: &str) -> bool {
    name.get(..folded.len()).is_some_and(|start| folds_alike(start, folded))
}
