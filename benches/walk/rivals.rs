//! Proxies that people run today, each told to do what ours does here: look the tenant of
//! `X-Tenant-ID` up among a thousand, refuse others with 404, and tell the backend the schema.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::load::schema_of;
use crate::process::{Proxy, free_address};

/// A proxy to be measured against.
#[derive(Clone, Copy)]
pub(crate) enum Rival {
    Nginx,
    HaproxyMap,
    HaproxyLua,
    Envoy,
    Caddy,
    Pingora,
}

impl Rival {
    pub(crate) const ALL: [Self; 6] =
        [Self::Nginx, Self::HaproxyMap, Self::HaproxyLua, Self::Envoy, Self::Caddy, Self::Pingora];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaproxyMap => "haproxy-map",
            Self::HaproxyLua => "haproxy-lua",
            Self::Envoy => "envoy",
            Self::Caddy => "caddy",
            Self::Pingora => "pingora",
        }
    }

    /// Starts it with one thread. The error says what is missing here.
    pub(crate) async fn start(
        self,
        directory: &Path,
        upstream: &str,
        tenants: &[String],
    ) -> Result<Proxy, String> {
        let home = directory.join(self.name());
        std::fs::create_dir(&home).expect("a directory can be made");
        let address = free_address();
        let command = self.command(&home, address, upstream, tenants)?;
        let proxy = Proxy::spawn(command, address).map_err(|error| error.to_string())?;
        if proxy.listens().await {
            return Ok(proxy);
        }
        let log = std::fs::read_to_string(home.join("log")).unwrap_or_default();
        Err(format!("it did not listen within 30 s: {}", log.trim()))
    }

    fn command(
        self,
        home: &Path,
        address: SocketAddr,
        upstream: &str,
        tenants: &[String],
    ) -> Result<Command, String> {
        let port = address.port().to_string();
        let write = |name: &str, text: &str| {
            let path = home.join(name);
            let filled = text
                .replace("@HOME@", &home.display().to_string())
                .replace("@PORT@", &port)
                .replace("@UPSTREAM_PORT@", upstream.rsplit(':').next().expect("a port"))
                .replace("@UPSTREAM@", upstream);
            std::fs::write(&path, filled).expect("a file can be written");
            path
        };
        let lines = |line: fn(&str, &str) -> String| {
            tenants.iter().fold(String::new(), |mut text, tenant| {
                let _ = writeln!(text, "{}", line(tenant, &schema_of(tenant)));
                text
            })
        };
        let mut command = Command::new(self.program()?);
        match self {
            Self::Nginx => {
                write("map", &lines(|tenant, schema| format!("{tenant} {schema};")));
                command.arg("-p").arg(home).arg("-c").arg(write("conf", include_str!("rivals/nginx.conf")));
            }
            Self::HaproxyMap => {
                write("map", &lines(|tenant, schema| format!("{tenant} {schema}")));
                command.args(["-db", "-f"]).arg(write("cfg", include_str!("rivals/haproxy-map.cfg")));
            }
            Self::HaproxyLua => {
                let map = lines(|tenant, schema| format!("  [\"{tenant}\"] = \"{schema}\","));
                write("tenants.lua", &include_str!("rivals/haproxy.lua").replace("@TENANTS@", &map));
                command.args(["-db", "-f"]).arg(write("cfg", include_str!("rivals/haproxy-lua.cfg")));
            }
            Self::Envoy => {
                let map = lines(|tenant, schema| {
                    format!("                            [\"{tenant}\"] = \"{schema}\",")
                });
                let text = include_str!("rivals/envoy.yaml").replace("@TENANTS@", &map);
                command.args(["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c"]);
                command.arg(write("envoy.yaml", &text));
            }
            Self::Caddy => {
                let map = lines(|tenant, schema| format!("\t\t{tenant} {schema}"));
                let text = include_str!("rivals/Caddyfile").replace("@TENANTS@", &map);
                command.args(["run", "--adapter", "caddyfile", "--config"]).arg(write("Caddyfile", &text));
                command.env("GOMAXPROCS", "1").env("XDG_DATA_HOME", home).env("XDG_CONFIG_HOME", home);
            }
            Self::Pingora => {
                command.args([port.as_str(), upstream, &tenants.len().to_string()]);
            }
        }
        let log = std::fs::File::create(home.join("log")).expect("a file can be written");
        command.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        Ok(command)
    }

    fn program(self) -> Result<PathBuf, String> {
        let name = match self {
            Self::Nginx => "nginx",
            Self::HaproxyMap | Self::HaproxyLua => "haproxy",
            Self::Envoy => "envoy",
            Self::Caddy => "caddy",
            Self::Pingora => return build_pingora(),
        };
        // What only the administrator runs is not on everybody's path.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
        std::env::split_paths(&path)
            .map(|directory| directory.join(name))
            .find(|program| program.is_file())
            .ok_or_else(|| format!("`{name}` is not installed"))
    }
}

/// Pingora is a library: the least proxy that it allows is a program of its own, built here.
fn build_pingora() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/walk/rivals/pingora");
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pingora");
    if Command::new("cmake").arg("--version").output().is_err() {
        return Err("building it needs `cmake`, which is not installed".into());
    }
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--quiet", "--manifest-path"]).arg(source.join("Cargo.toml"));
    let built = build.env("CARGO_TARGET_DIR", &target).status().map_err(|error| error.to_string())?;
    built
        .success()
        .then(|| target.join("release/pingora-rival"))
        .ok_or_else(|| "it could not be built".into())
}
