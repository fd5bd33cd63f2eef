//! Compiled code on disk: found again at the next start, and never believed when anything is off.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use innkeeper::policy::Plugin;
use serde_json::Value;
use tracing::Level;

use crate::plugins::{ask, capture_log_from, guest, host_with, load, plugin, reused, tenant};

const FOUND: &str = "compiled code was in the cache";
const ADDED: &str = "compiled code was added to the cache";
const REPLACED: &str = "compiled code in the cache was not trusted: the plugin was compiled again";
const UNUSABLE: &str = "compiled plugins are not kept: their directory cannot be used";
const NOT_KEPT: &str = "compiled code cannot be kept: the next start compiles the plugin again";

/// Loads a plugin on a new host, as the next start of the process would, and asks it. Tells what was
/// logged of the cache: the message, and the reason if there is one.
async fn start(directory: &Path) -> Vec<(String, String)> {
    let (lines, _guard) = capture_log_from(Level::DEBUG);
    let host = host_with(|settings| settings.cache = Some(directory.to_owned()));
    let counter = load(&host, reused("counter")).await.unwrap();
    assert_eq!(tenant(ask(&counter).await), "t1", "the plugin works, whatever the cache is like");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let said = |line: &Value| (text(&line["fields"]["message"]), text(&line["fields"]["error"]));
    lines.take().iter().map(said).filter(|(message, _)| message.starts_with("compiled ")).collect()
}

fn messages(said: &[(String, String)]) -> Vec<&str> {
    said.iter().map(|(message, _)| message.as_str()).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn the_next_start_finds_what_the_first_one_compiled() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("deep/innkeeper");
    assert_eq!(messages(&start(&directory).await), [ADDED]);
    assert_eq!(std::fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
    let kept = entries(&directory);
    assert_eq!(kept.len(), 1);
    assert_eq!(std::fs::metadata(&kept[0]).unwrap().mode() & 0o777, 0o600);
    assert_eq!(messages(&start(&directory).await), [FOUND]);
    assert_eq!(entries(&directory), kept);
}

#[tokio::test]
async fn what_was_configured_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let host = host_with(|settings| settings.cache = Some(directory.path().to_owned()));
    let wasm = std::fs::read(crate::plugins::root().join("plugins/legacy-keys.wasm")).unwrap();
    let secret = "kq7-zz9-plural-alpha";
    let config = format!(r#"{{"keys":{{"{secret}":"acme"}}}}"#);
    let settings = Plugin { config, ..plugin("legacy-keys") };
    assert!(host.load(settings.into(), &wasm).await.unwrap().starts_configured());
    let kept = entries(directory.path());
    // The plugin, and the form of it from which the configured memory is read.
    assert_eq!(kept.len(), 2);
    for entry in kept {
        let bytes = std::fs::read(entry).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
}

#[tokio::test]
async fn an_entry_that_is_not_exactly_ours_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    start(directory.path()).await;
    let [entry] = entries(directory.path()).try_into().unwrap();
    let sound = std::fs::read(&entry).unwrap();
    let host = host_with(|settings| settings.cache = Some(directory.path().to_owned()));
    load(&host, reused("good")).await.unwrap();
    let other = entries(directory.path()).into_iter().find(|other| *other != entry).unwrap();
    let foreign = std::fs::read(other).unwrap();
    let flipped = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        bytes
    };
    let (header, body) = (80, sound.len() - 1);
    for (bytes, why) in [
        (Vec::new(), "it is cut short"),
        (sound[..header - 1].to_vec(), "it is cut short"),
        (sound[..header].to_vec(), "it is damaged"),
        (sound[..body].to_vec(), "it is damaged"),
        ([&sound[..], b"x"].concat(), "it is damaged"),
        (flipped(0), "it is not ours"),
        (flipped(15), "it is not ours"),
        (flipped(16), "it was made for something else"),
        (flipped(48), "it is damaged"),
        (flipped(header), "it is damaged"),
        (flipped(body), "it is damaged"),
        (foreign, "it was made for something else"),
    ] {
        std::fs::write(&entry, &bytes).unwrap();
        replaced_because(directory.path(), why).await;
    }
}

#[tokio::test]
async fn an_entry_that_others_could_have_written_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    start(directory.path()).await;
    let [entry] = entries(directory.path()).try_into().unwrap();
    for mode in [0o620, 0o602] {
        std::fs::set_permissions(&entry, std::fs::Permissions::from_mode(mode)).unwrap();
        replaced_because(directory.path(), "others may write to it").await;
        assert_eq!(std::fs::metadata(&entry).unwrap().mode() & 0o777, 0o600);
    }
    // A link to what would be a sound entry.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::rename(&entry, elsewhere.path().join("entry")).unwrap();
    symlink(elsewhere.path().join("entry"), &entry).unwrap();
    replaced_because(directory.path(), "").await;
    assert!(std::fs::symlink_metadata(&entry).unwrap().is_file());

    std::fs::remove_file(&entry).unwrap();
    assert!(Command::new("mkfifo").arg(&entry).status().unwrap().success());
    replaced_because(directory.path(), "it is not a regular file").await;
}

/// The entry is replaced for this reason, and then found.
async fn replaced_because(directory: &Path, why: &str) {
    let said = start(directory).await;
    assert_eq!(messages(&said), [REPLACED], "{why}: {said:?}");
    assert!(said[0].1.contains(why), "{why}: {said:?}");
    assert_eq!(messages(&start(directory).await), [FOUND], "{why}");
}

#[tokio::test]
async fn a_directory_that_others_may_write_to_is_not_used() {
    let home = tempfile::tempdir().unwrap();
    let open = home.path().join("open");
    std::fs::create_dir(&open).unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let real = home.path().join("real");
    std::fs::create_dir(&real).unwrap();
    symlink(&real, home.path().join("link")).unwrap();
    for mode in [0o770, 0o707, 0o1777] {
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(messages(&start(&open).await), [UNUSABLE], "{mode:o}");
    }
    for path in [file.clone(), file.join("under"), home.path().join("link")] {
        assert_eq!(messages(&start(&path).await), [UNUSABLE], "{}", path.display());
    }
    assert!(entries(&open).is_empty() && entries(&real).is_empty());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_directory_that_cannot_be_written_to_costs_nothing_but_time() {
    // Ours, and nobody can make a file there, not even root.
    let directory = Path::new("/proc/self/task");
    let before = std::fs::metadata(directory).unwrap();
    assert_eq!(before.uid(), rustix::process::geteuid().as_raw());
    assert_eq!(messages(&start(directory).await), [NOT_KEPT]);
}

#[tokio::test]
async fn the_least_recently_used_entries_go() {
    let directory = tempfile::tempdir().unwrap();
    start(directory.path()).await;
    let kept = entries(directory.path());
    let hours_ago = |path: &Path, hours: u64| {
        let time = SystemTime::now() - Duration::from_secs(hours * 3600);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    };
    for entry in &kept {
        hours_ago(entry, 1000);
    }
    for age in 1..=80 {
        let path = directory.path().join(format!("{age:064x}"));
        std::fs::write(&path, "old").unwrap();
        hours_ago(&path, age);
    }
    let (abandoned, fresh) = (directory.path().join("new-abandoned"), directory.path().join("new-fresh"));
    let strange = directory.path().join("read-me");
    for path in [&abandoned, &fresh, &strange] {
        std::fs::write(path, "").unwrap();
    }
    hours_ago(&abandoned, 2);
    hours_ago(&strange, 2000);

    assert_eq!(messages(&start(directory.path()).await), [FOUND], "that is a use of it");
    let host = host_with(|settings| settings.cache = Some(directory.path().to_owned()));
    load(&host, reused("good")).await.unwrap();

    let left = entries(directory.path());
    let has = |path: &Path| left.iter().any(|one| one == path);
    assert!(kept.iter().all(|entry| has(entry)), "what was used lately stays");
    assert!(has(&directory.path().join(format!("{:064x}", 62))), "64 stay, two of them real");
    assert!(!has(&directory.path().join(format!("{:064x}", 63))));
    assert!(!has(&abandoned) && has(&fresh) && has(&strange), "what is not ours is left alone");
}

#[test]
fn serve_keeps_its_plugins_where_it_is_told() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(home.path().join(name), bytes).unwrap();
    write("rule.wasm", &guest("good"));
    write(
        "policy.yaml",
        b"version: 1\nupstreams: { app: { endpoints: [ 'http://127.0.0.1:9' ] } }\n\
          tenants: { list: [ { id: acme, schema: acme } ] }\nplugins: { rule: { path: rule.wasm } }\n\
          routes: [ { name: all, tenant: { plugin: rule }, forward: app } ]\n",
    );
    let told = home.path().join("told");
    let told = told.to_str().unwrap();
    assert_eq!(serve(home.path(), &["--cache-dir", told], &[]), [ADDED, ADDED]);
    assert_eq!(serve(home.path(), &[], &[("INNKEEPER_CACHE_DIR", told)]), [FOUND, FOUND]);
    assert_eq!(serve(home.path(), &["--no-cache"], &[("INNKEEPER_CACHE_DIR", told)]), [""; 0]);
    assert_eq!(serve(home.path(), &[], &[]), [ADDED, ADDED]);
    assert_eq!(entries(&home.path().join(".cache/innkeeper")).len(), 2);
}

/// Starts the binary until it listens, stops it, and tells what it said of the cache.
fn serve(home: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_innkeeper"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--policy"])
        .arg(home.join("policy.yaml"))
        .args(["--log", "innkeeper=debug", "--log-format", "json"])
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .envs(variables.iter().copied())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(process.stderr.take().unwrap()).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        match line["message"].as_str().unwrap() {
            "the admin listener listens" => break,
            message if message.starts_with("compiled ") => said.push(message.to_owned()),
            _ => {}
        }
    }
    process.kill().unwrap();
    process.wait().unwrap();
    said
}
