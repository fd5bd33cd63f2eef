//! A result of a million rows.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::process::{Proxy, setting};
use crate::scene::tenant;

/// Streams the rows and prints what they took of memory.
pub(crate) async fn whole(proxy: &Proxy) {
    let rows = setting("QUERY_STREAM_ROWS", 1_000_000);
    let before = proxy.peak_memory();
    let started = Instant::now();
    let mut stream = TcpStream::connect(proxy.address).await.expect("the gateway listens");
    let request = format!(
        "GET /many?rows={rows} HTTP/1.1\r\nHost: app.example.com\r\nAccept: application/x-ndjson\r\n\
         Connection: close\r\nX-Tenant-ID: {}\r\n\r\n",
        // Not the one that flooded: its queue may still be full.
        tenant(1)
    );
    stream.write_all(request.as_bytes()).await.expect("the gateway reads");
    let (mut lines, mut bytes, mut last) = (0, 0, [0; 5]);
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = stream.read(&mut piece).await.expect("the gateway answers");
        if read == 0 {
            break;
        }
        lines += memchr::memmem::find_iter(&piece[..read], b"\"item\":\"item ").count();
        bytes += read;
        if read >= last.len() {
            last = *piece[..read].last_chunk().expect("it is long enough");
        }
    }
    assert_eq!(&last, b"0\r\n\r\n", "the stream has an end");
    // A row may be cut where two pieces meet.
    assert!(lines <= rows && rows - lines <= bytes / 1024, "{lines} of {rows} rows came");
    println!(
        "{:<24} {rows} rows, {} MiB in {:.1?}; peak memory {} MiB, {} MiB before",
        "stream",
        bytes >> 20,
        started.elapsed(),
        proxy.peak_memory() >> 20,
        before >> 20
    );
}
