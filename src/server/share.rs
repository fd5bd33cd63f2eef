//! What one HTTP/2 connection may hold, which is less where there are many: a client may open as many
//! as it likes, and memory is one.

/// Streams of one connection at a time: RFC 9113, section 6.5.2, recommends no less than 100.
const STREAMS: usize = 100;
/// Streams of all connections, as far as each can still have `LEAST_STREAMS`.
const ALL_STREAMS: usize = 20_000;
/// Enough for a browser to load a page, where HTTP/1.1 has six connections for it.
const LEAST_STREAMS: usize = 8;
/// What may be on its way to us on all streams of a connection, bytes.
const WINDOW: usize = 1 << 20;
/// What may be on its way to us on all connections, bytes, as far as each can still have
/// `LEAST_WINDOW`.
const ALL_WINDOWS: usize = 128 << 20;
/// What each connection begins with, and cannot be denied (RFC 9113, section 6.9.2), bytes.
const LEAST_WINDOW: usize = 65_535;

/// A connection's share, settled when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// Streams at a time.
    pub(super) streams: u32,
    /// Bytes on their way to us on all of them.
    pub(super) window: u32,
}

impl Share {
    /// The share of one of so many connections.
    pub(super) fn among(connections: usize) -> Self {
        let of = |all: usize, least: usize, most: usize| {
            let share = (all / connections.max(1)).clamp(least, most);
            u32::try_from(share).expect("the most is far below that")
        };
        Self {
            streams: of(ALL_STREAMS, LEAST_STREAMS, STREAMS),
            window: of(ALL_WINDOWS, LEAST_WINDOW, WINDOW),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_connections_have_all_that_one_may_have_and_many_share() {
        let most = Share { streams: 100, window: 1 << 20 };
        assert_eq!((Share::among(0), Share::among(128)), (most, most));
        assert_eq!(Share::among(1_000), Share { streams: 20, window: 134_217 });
        assert_eq!(Share::among(10_000), Share { streams: 8, window: 65_535 });
        assert_eq!(Share::among(usize::MAX), Share::among(10_000));
    }
}
