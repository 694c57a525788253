//! The files speak jiff's time, the API the standard library's.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// Every timestamp fits: on Linux the standard library's time has 64 bits of seconds.
pub(crate) fn system(time: Timestamp) -> SystemTime {
    let since = |nanoseconds: i128| Duration::from_nanos_u128(nanoseconds.unsigned_abs());
    match time.as_nanosecond() {
        nanoseconds @ 0.. => SystemTime::UNIX_EPOCH + since(nanoseconds),
        nanoseconds => SystemTime::UNIX_EPOCH - since(nanoseconds),
    }
}

/// A time beyond the year 9999 is taken for its last moment.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    time.try_into().unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for text in ["2026-01-02T03:04:05.123456789Z", "1969-12-31T23:59:59.5Z"] {
            let time: Timestamp = text.parse().expect("a time");
            assert_eq!(timestamp(system(time)), time);
        }
    }
}
