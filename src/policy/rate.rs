//! How rates, percentages and points in time are spelled.

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use schemars::{Schema, json_schema};

use super::decode::{Leaf, Unreadable};
use super::yaml::{Scalar, ScalarKind};

/// So much in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) amount: NonZeroU64,
    pub(crate) per: Duration,
}

impl Rate {
    /// What comes in a second, at least one.
    pub(crate) fn in_a_second(&self) -> NonZeroU64 {
        let amount = u128::from(self.amount.get()) * 1_000_000_000 / self.per.as_nanos().max(1);
        NonZeroU64::new(u64::try_from(amount).unwrap_or(u64::MAX)).unwrap_or(NonZeroU64::MIN)
    }
}

/// The shortest time between two of what is counted: time is counted in nanoseconds.
const FASTEST: Duration = Duration::from_nanos(1);

/// A rate of requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestRate(pub(crate) Rate);

impl Leaf for RequestRate {
    const EXPECTED: &'static str = "a rate such as `100/s`, `6000/m` or `10/h`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let (amount, per) = split(&scalar.text)?;
        let amount = amount.replace('_', "").parse().map_err(|_| Unreadable::Kind)?;
        let rate = Rate { amount, per };
        if rate.per.as_nanos() < u128::from(rate.amount.get()) * FASTEST.as_nanos() {
            return Err(Unreadable::Rule("a rate is at most a milliard requests a second".into()));
        }
        Ok(Self(rate))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9_]+\\s*/", "examples": ["100/s", "6000/m"] })
    }
}

/// A rate of bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByteRate(pub(crate) Rate);

impl Leaf for ByteRate {
    const EXPECTED: &'static str = "a rate such as `10MiB/s` or `1GiB/m`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let (amount, per) = split(&scalar.text)?;
        let amount = amount.parse::<ByteSize>().map_err(|_| Unreadable::Kind)?.as_u64();
        let amount = NonZeroU64::new(amount).ok_or(Unreadable::Kind)?;
        Ok(Self(Rate { amount, per }))
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9.]+\\s*[A-Za-z]*\\s*/", "examples": ["10MiB/s"] })
    }
}

/// The amount, and the time after the stroke: `s`, `m`, `h`, or several of them as in `10s`.
fn split(text: &str) -> Result<(&str, Duration), Unreadable> {
    let (amount, per) = text.split_once('/').ok_or(Unreadable::Kind)?;
    let per = per.trim();
    let one = if per.starts_with(|c: char| c.is_ascii_digit()) { "" } else { "1" };
    let per = humantime::parse_duration(&format!("{one}{per}")).map_err(|_| Unreadable::Kind)?;
    if per.is_zero() { Err(Unreadable::Kind) } else { Ok((amount.trim(), per)) }
}

/// A part of a hundred, above 0 and at most 100.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Percent(pub(crate) f64);

impl Leaf for Percent {
    const EXPECTED: &'static str = "a percentage such as `5` or `0.5%`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        let text = scalar.text.trim();
        match text.strip_suffix('%').unwrap_or(text).trim_end().parse::<f64>() {
            Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self(percent)),
            Ok(_) => Err(Unreadable::Rule("a percentage is above 0 and at most 100".into())),
            Err(_) => Err(Unreadable::Kind),
        }
    }

    fn schema() -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "pattern": "^\\s*[0-9.]+\\s*%?\\s*$", "examples": ["5%"] },
                { "type": "number", "exclusiveMinimum": 0, "maximum": 100 }
            ]
        })
    }
}

/// A point in time (RFC 3339).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timestamp(pub(crate) SystemTime);

impl Leaf for Timestamp {
    const EXPECTED: &'static str = "a time in UTC such as `2026-12-01T00:00:00Z`";

    fn read(scalar: &Scalar) -> Result<Self, Unreadable> {
        if scalar.kind == ScalarKind::Number {
            return Err(Unreadable::Kind);
        }
        humantime::parse_rfc3339(scalar.text.trim()).map(Self).map_err(|_| Unreadable::Kind)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str) -> Scalar {
        Scalar { text: text.into(), kind: ScalarKind::Text, written: None }
    }

    fn rate(text: &str) -> Option<(u64, Duration)> {
        RequestRate::read(&scalar(text)).ok().map(|RequestRate(rate)| (rate.amount.get(), rate.per))
    }

    #[test]
    fn rates_are_read_as_they_are_said() {
        let second = Duration::from_secs(1);
        assert_eq!(rate("100/s"), Some((100, second)));
        assert_eq!(rate("6_000 / m"), Some((6000, second * 60)));
        assert_eq!(rate("5/10s"), Some((5, second * 10)));
        for wrong in ["100", "0/s", "/s", "100/", "100/0s", "ten/s", "100/fortnight", "2000000000/s"] {
            assert_eq!(rate(wrong), None, "{wrong}");
        }
        let Ok(ByteRate(bytes)) = ByteRate::read(&scalar("10MiB/s")) else { panic!("a rate") };
        assert_eq!(bytes, Rate { amount: NonZeroU64::new(10 << 20).unwrap(), per: second });
    }

    #[test]
    fn a_slow_rate_gives_one_in_a_second() {
        let rate = |amount, per| Rate { amount: NonZeroU64::new(amount).unwrap(), per }.in_a_second().get();
        assert_eq!(rate(100, Duration::from_secs(1)), 100);
        assert_eq!(rate(6000, Duration::from_secs(60)), 100);
        assert_eq!(rate(10, Duration::from_secs(3600)), 1);
    }
}
