//! A private PostgreSQL server in a temporary directory: for the demo, and for tests.

use std::ffi::OsStr;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

use tempfile::TempDir;

/// The superuser of every private server.
pub const SUPERUSER: &str = "innkeeper";

/// How long a server may take to start. Half a second is usual; a busy machine takes longer.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the server's own status file is read while it starts.
const STATUS_INTERVAL: Duration = Duration::from_millis(10);

/// How often another port is tried where someone else took the one that was free a moment ago.
const PORT_ATTEMPTS: usize = 5;

/// Starts the server and stays its parent, so that a process id that is signalled is surely the
/// server's. Its standard input is a pipe that we hold: a line asks for a stop; its end means that
/// we are gone, however that came about, and then nothing may be left behind.
const SUPERVISOR: &str = r#"
"$1" -D "$2/data" -p "$3" -k "$2/socket" >>"$2/server.log" 2>&1 &
server=$!
if read -r wish; then
    kill -"$wish" "$server"
    wait "$server"
else
    kill -QUIT "$server"
    wait "$server"
    rm -rf "$2"
fi
"#;

/// Why no private server could be had.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No server binaries anywhere.
    #[error(
        "no PostgreSQL server was found on PATH or in the usual directories; install one:\n  \
         Debian, Ubuntu:  sudo apt install postgresql\n  \
         Fedora, RHEL:    sudo dnf install postgresql-server\n  \
         Arch:            sudo pacman -S postgresql\n  \
         macOS:           brew install postgresql@17"
    )]
    NotInstalled,
    /// The directory for temporary files cannot be reached by the user that the server runs as.
    #[error(
        "the server cannot run as root, and as another user it cannot reach `{0}`; set TMPDIR to a \
         directory that everyone may pass, such as /tmp"
    )]
    Unreachable(PathBuf),
    /// `initdb` or `postgres` did not do what it must.
    #[error("{program} failed: {output}")]
    Failed {
        /// Which of them.
        program: &'static str,
        /// The end of what it wrote.
        output: String,
    },
    /// A file or process could not be made.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A server of our own. It stops, and its directory goes, when this value is dropped, and also
/// when this process dies in any way.
///
/// Nobody else can log in: its socket lies in a directory that only its own user may enter, and
/// TCP asks for a password.
#[derive(Debug)]
pub struct PrivatePostgres {
    directory: TempDir,
    binaries: PathBuf,
    owner: Option<Owner>,
    password: String,
    port: u16,
    supervisor: Option<Child>,
}

impl PrivatePostgres {
    /// Makes a cluster in a temporary directory and starts it.
    ///
    /// # Errors
    /// [`ClusterError::NotInstalled`] says what to install; the rest say what went wrong.
    pub async fn start() -> Result<Self, ClusterError> {
        let binaries = find_binaries().ok_or(ClusterError::NotInstalled)?;
        let directory = tempfile::Builder::new()
            .prefix("innkeeper-postgres-")
            .tempdir()
            .map_err(doing("making a temporary directory"))?;
        let owner = Owner::if_we_are_root(directory.path())?;
        let mut cluster = Self {
            directory,
            binaries,
            owner,
            password: uuid::Uuid::new_v4().simple().to_string(),
            port: 0,
            supervisor: None,
        };
        cluster.initialise().await?;
        cluster.start_again().await?;
        Ok(cluster)
    }

    /// A connection URL over the private socket. Any role may be named: the directory that the
    /// socket lies in is what keeps others out.
    pub fn url(&self, database: &str, user: &str) -> String {
        let host = percent_encode(&self.directory.path().join("socket").to_string_lossy());
        let (database, user) = (percent_encode(database), percent_encode(user));
        format!("postgres://{user}@{host}:{}/{database}", self.port)
    }

    /// A connection URL over loopback TCP for the superuser, with its password: what a program
    /// that knows no sockets needs.
    pub fn tcp_url(&self, database: &str) -> String {
        let database = percent_encode(database);
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of everything that the server writes.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Stops the server, its connections first; its data stays. Nothing happens where it is down.
    ///
    /// # Errors
    /// The supervisor cannot be told or waited for.
    pub async fn stop(&mut self) -> Result<(), ClusterError> {
        self.end("INT").await
    }

    /// Kills the server as a crash would: clients see their connections break.
    ///
    /// # Errors
    /// The supervisor cannot be told or waited for.
    pub async fn crash(&mut self) -> Result<(), ClusterError> {
        self.end("QUIT").await
    }

    /// Starts a server that was stopped, on the port that it had.
    ///
    /// # Errors
    /// The server does not come up.
    pub async fn start_again(&mut self) -> Result<(), ClusterError> {
        if self.supervisor.is_some() {
            return Ok(());
        }
        let mut attempts = if self.port == 0 { PORT_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            if self.port == 0 {
                self.port = free_port()?;
            }
            match self.launch().await {
                Err(_) if attempts > 0 => self.port = 0,
                outcome => return outcome,
            }
        }
    }

    /// Stops and starts the server: every connection to it breaks.
    ///
    /// # Errors
    /// It does not stop, or does not come up again.
    pub async fn restart(&mut self) -> Result<(), ClusterError> {
        self.stop().await?;
        self.start_again().await
    }

    async fn initialise(&self) -> Result<(), ClusterError> {
        let root = self.directory.path();
        let password_file = root.join("password");
        fs::write(&password_file, &self.password).map_err(doing("writing the password file"))?;
        fs::set_permissions(&password_file, fs::Permissions::from_mode(0o600))
            .map_err(doing("protecting the password file"))?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(root.join("socket"))
            .map_err(doing("making the socket directory"))?;
        if let Some(owner) = &self.owner {
            for path in [root, &password_file, &root.join("socket")] {
                chown(path, Some(owner.user), Some(owner.group))
                    .map_err(doing("handing the directory to the server's user"))?;
            }
        }
        let mut initdb = self.command(self.binaries.join("initdb"));
        initdb
            .args(["--encoding=UTF8", "--locale=C", "--no-sync", "--auth=scram-sha-256"])
            .args(["--username", SUPERUSER])
            .arg("--pwfile")
            .arg(&password_file)
            .arg("-D")
            .arg(root.join("data"))
            .stdin(Stdio::null());
        let output = tokio::process::Command::from(initdb)
            .kill_on_drop(true)
            .output()
            .await
            .map_err(doing("running initdb"))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(ClusterError::Failed { program: "initdb", output: last_lines(&text) });
        }
        fs::remove_file(&password_file).map_err(doing("removing the password file"))?;
        self.configure()
    }

    fn configure(&self) -> Result<(), ClusterError> {
        let data = self.directory.path().join("data");
        // The directory is thrown away: what a power cut would do to it is of no interest.
        let settings = "\nlisten_addresses = '127.0.0.1'\nmax_connections = 200\n\
            shared_buffers = 32MB\nfsync = off\nfull_page_writes = off\n\
            dynamic_shared_memory_type = mmap\nlogging_collector = off\n";
        fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .and_then(|mut file| file.write_all(settings.as_bytes()))
            .map_err(doing("writing postgresql.conf"))?;
        let access = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(data.join("pg_hba.conf"), access).map_err(doing("writing pg_hba.conf"))
    }

    async fn launch(&mut self) -> Result<(), ClusterError> {
        let root = self.directory.path();
        let mut supervisor = self.command(OsStr::new("/bin/sh"));
        supervisor
            .args(["-c", SUPERVISOR, "supervisor"])
            .arg(self.binaries.join("postgres"))
            .arg(root)
            .arg(self.port.to_string())
            // Of its own group: an interrupt from the terminal is for us, and we stop the server.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let log = root.join("server.log");
        match fs::remove_file(&log) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ClusterError::Io { doing: "removing the old log", source: error });
            }
            _ => {}
        }
        self.supervisor = Some(supervisor.spawn().map_err(doing("starting the server"))?);
        let status = root.join("data/postmaster.pid");
        let deadline = Instant::now() + START_TIMEOUT;
        // The server's own file is its only sign of readiness that needs no client (pg_ctl reads
        // it in the same way); its eighth line is the status.
        while !fs::read_to_string(&status)
            .is_ok_and(|text| text.lines().nth(7).is_some_and(|line| line.trim() == "ready"))
        {
            if Instant::now() > deadline || self.server_gave_up() {
                let text = fs::read_to_string(&log).unwrap_or_default();
                let output = last_lines(&text);
                self.end("QUIT").await?;
                return Err(ClusterError::Failed { program: "postgres", output });
            }
            tokio::time::sleep(STATUS_INTERVAL).await;
        }
        Ok(())
    }

    /// The supervisor waits for us, not for the server. Whether that gave up is read from its log,
    /// which is new with every start; a running server has its status file.
    fn server_gave_up(&self) -> bool {
        let root = self.directory.path();
        fs::read_to_string(root.join("server.log"))
            .is_ok_and(|log| ["FATAL", "PANIC", "not found", "denied"].iter().any(|sign| log.contains(sign)))
            && !root.join("data/postmaster.pid").exists()
    }

    async fn end(&mut self, signal: &str) -> Result<(), ClusterError> {
        let Some(mut supervisor) = self.supervisor.take() else { return Ok(()) };
        if let Some(stdin) = supervisor.stdin.as_mut() {
            writeln!(stdin, "{signal}").map_err(doing("telling the server to stop"))?;
        }
        // Kept in hand while it is waited for: closing the pipe would mean that we are gone.
        let stdin = supervisor.stdin.take();
        loop {
            match supervisor.try_wait().map_err(doing("waiting for the server"))? {
                Some(_) => break,
                None => tokio::time::sleep(STATUS_INTERVAL).await,
            }
        }
        drop(stdin);
        Ok(())
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).env("LC_ALL", "C");
        for variable in ["PGDATA", "PGPORT", "PGHOST", "PGUSER", "PGPASSWORD", "PGDATABASE"] {
            command.env_remove(variable);
        }
        if let Some(owner) = &self.owner {
            command.uid(owner.user).gid(owner.group);
        }
        command
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            drop(supervisor.stdin.take());
            // Fails only where someone else waited for it, and then it is gone as well.
            let _ = supervisor.wait();
        }
    }
}

/// The user that the server runs as where we are root, which the server refuses to be.
#[derive(Debug, Clone, Copy)]
struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    fn if_we_are_root(directory: &Path) -> Result<Option<Self>, ClusterError> {
        let ours = fs::metadata(directory).map_err(doing("reading the temporary directory"))?;
        if ours.uid() != 0 {
            return Ok(None);
        }
        for above in directory.ancestors().skip(1) {
            let passable = fs::metadata(above).is_ok_and(|data| data.mode() & 0o001 != 0);
            if !passable {
                return Err(ClusterError::Unreachable(above.to_owned()));
            }
        }
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Ok(Some(
            Self::named(&accounts, "postgres")
                .or_else(|| Self::named(&accounts, "nobody"))
                .unwrap_or(Self { user: 65_534, group: 65_534 }),
        ))
    }

    fn named(accounts: &str, name: &str) -> Option<Self> {
        let mut fields = accounts
            .lines()
            .map(|line| line.split(':'))
            .find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
        let user = fields.nth(1)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        Some(Self { user, group })
    }
}

/// The directory with `initdb` and `postgres`: on PATH, or where the distributions put them, the
/// newest first.
fn find_binaries() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut usual: Vec<PathBuf> = [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/usr/local", "pgsql", "bin"),
        ("/opt/homebrew/opt", "postgresql", "bin"),
        ("/usr/local/opt", "postgresql", "bin"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ]
    .into_iter()
    .flat_map(|(above, prefix, below)| {
        let found = fs::read_dir(above).into_iter().flatten().flatten();
        found
            .filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(move |entry| entry.path().join(below))
    })
    .collect();
    usual.sort_by_key(|directory| std::cmp::Reverse(version_in(directory)));
    std::env::split_paths(&path).chain(usual).find_map(|directory| {
        // A link on PATH may stand alone: its neighbours are beside what it points to.
        let server = directory.join("postgres").canonicalize().ok()?;
        let directory = server.parent()?.to_owned();
        directory.join("initdb").is_file().then_some(directory)
    })
}

/// The version that a directory is named after: `…/15/bin`, `…/pgsql-16/bin`, `…/postgresql@17/bin`.
fn version_in(directory: &Path) -> u32 {
    let name = directory.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let digits: String =
        name.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

fn free_port() -> Result<u16, ClusterError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(doing("looking for a free port"))
}

fn percent_encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

fn doing(doing: &'static str) -> impl FnOnce(io::Error) -> ClusterError {
    move |source| ClusterError::Io { doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_version_is_read_from_the_directory() {
        assert_eq!(version_in(Path::new("/usr/lib/postgresql/15/bin")), 15);
        assert_eq!(version_in(Path::new("/usr/pgsql-16/bin")), 16);
        assert_eq!(version_in(Path::new("/opt/homebrew/opt/postgresql@17/bin")), 17);
        assert_eq!(version_in(Path::new("/opt/homebrew/opt/postgresql/bin")), 0);
    }

    #[test]
    fn accounts_are_read_by_name() {
        let accounts = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65533::/:/bin/false\n";
        let nobody = Owner::named(accounts, "nobody").unwrap();
        assert_eq!((nobody.user, nobody.group), (65_534, 65_533));
        assert!(Owner::named(accounts, "postgres").is_none());
    }
}
