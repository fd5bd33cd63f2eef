//! What the demo prints: what runs, and requests to try.

use std::fmt::Write as _;

use super::cluster::SUPERUSER;
use super::seed::DATABASE;
use super::stage::Stage;

/// A request to try: what it shows, the status that it gets, its path, its headers.
const TRIES: &[(&str, u16, &str, &[&str])] = &[
    ("a tenant's rows, in its own schema", 200, "/api/buildings", &["X-Tenant-ID: acme"]),
    ("the same statement for another tenant", 200, "/api/buildings?limit=2", &["X-Tenant-ID: globex"]),
    ("an API key, which a plugin knows", 200, "/api/users", &["X-Api-Key: k-initech"]),
    ("forwarded: the old application says what it was told", 200, "/app/welcome", &["Host: acme.demo.test"]),
    (
        "the same with a forged header: it does not arrive",
        200,
        "/app/welcome",
        &["Host: acme.demo.test", "X-Tenant-ID: globex"],
    ),
    ("nobody has logged in yet: a route without a tenant", 200, "/log-in?email=ada@globex.example", &[]),
    ("no tenant, no answer", 400, "/api/buildings", &[]),
    ("a key that nobody has", 400, "/api/users", &["X-Api-Key: k-nobody"]),
    ("a tenant that nobody knows", 404, "/api/buildings", &["X-Tenant-ID: hooli"]),
    (
        "two witnesses who contradict each other",
        400,
        "/api/floors",
        &["Host: acme.demo.test", "X-Tenant-ID: globex"],
    ),
    ("a tenant that is suspended", 403, "/api/buildings", &["X-Tenant-ID: umbrella"]),
];

/// The whole text.
pub(super) fn banner(stage: &Stage) -> String {
    let Stage { gateway, admin, files, legacy, postgres, .. } = stage;
    let mut text = format!(
        "Innkeeper's demo runs.\n\n\
         gateway       http://{gateway}\n\
         admin         http://{admin}/policy, /metrics, /readyz\n\
         policy        {}   (edit it: it is reloaded at once)\n\
         application   http://{} behind it, which believes X-Tenant-ID\n\
         PostgreSQL    psql '{}'   (as {SUPERUSER}, past the gateway)\n\n\
         Requests to try, each with the status that it gets:\n",
        files.policy().display(),
        legacy.address(),
        postgres.tcp_url(DATABASE),
    );
    for (what, status, path, headers) in TRIES {
        let _ = write!(text, "\n# {status}: {what}\ncurl -i 'http://{gateway}{path}'");
        for header in *headers {
            let _ = write!(text, " -H '{header}'");
        }
        text.push('\n');
    }
    text.push_str("\nCtrl-C ends the demo, and leaves nothing behind. One line follows for each request:");
    text
}
