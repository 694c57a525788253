//! What holds of each parser of what strangers write, whatever bytes it is given.
//!
//! The tests try what lies in `ambassador/corpus`, and what small changes make of it; the targets
//! in `fuzz/` go on from there for as long as one likes. Each function panics when something does
//! not hold, and tells whether the bytes were taken for what they should be.

use std::path::Path;

use crate::proxy::{self, LONGEST};
use crate::sni::Hello;
use crate::spec::{self, ForwardSpec};

/// A configuration file: what is wrong is one line that begins with the file's name, and what is
/// taken can be written as JSON and read again.
#[must_use]
pub fn config(bytes: &[u8]) -> bool {
    // Others make no string; reading the file says so.
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    // What is JSON besides is taken or refused, too.
    if let Ok(specs) = spec::from_json(bytes) {
        goes_round(&specs);
    }
    match spec::from_toml(Path::new("f.toml"), text) {
        Ok(specs) => {
            assert!(!specs.is_empty());
            goes_round(&specs);
            true
        }
        Err(error) => {
            let told = error.to_string();
            assert!(told.starts_with("f.toml"), "{told}");
            fits_a_line(&told);
            false
        }
    }
}

/// An environment, with a variable on each line: no two forwards share a port.
#[must_use]
pub fn environment(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let pairs = text.split('\n').filter_map(|line| line.split_once('='));
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    match spec::from_env(pairs) {
        Ok(found) => {
            assert!(!found.forwards.is_empty());
            let listens = found.forwards.iter().map(|forward| forward.listen);
            let mut listens: Vec<_> = listens.map(|listen| listen.to_string()).collect();
            listens.sort_unstable();
            listens.dedup();
            assert_eq!(listens.len(), found.forwards.len());
            found.warnings.iter().for_each(|told| fits_a_line(told));
            goes_round(&found.forwards);
            true
        }
        Err(error) => {
            fits_a_line(&error.to_string());
            false
        }
    }
}

/// The beginning of a connection that should be a PROXY header: what is wrong is told at the first
/// byte that is, for more do not mend it, and what follows a header is not looked at.
#[must_use]
pub fn proxy_header(bytes: &[u8]) -> bool {
    match proxy::parse(bytes) {
        Ok(Some((_, length))) => {
            assert!(length <= bytes.len().min(LONGEST));
            assert_eq!(proxy::parse(&bytes[..length]), proxy::parse(bytes));
            for end in 0..length {
                let part = proxy::parse(&bytes[..end]);
                assert_eq!(part, Ok(None), "{end} of {length}");
            }
            true
        }
        Ok(None) => {
            assert!(bytes.len() < LONGEST);
            false
        }
        Err(error) => {
            fits_a_line(&error.to_string());
            let more = [bytes, b"\r\n"].concat();
            assert!(proxy::parse(&more).is_err());
            false
        }
    }
}

/// The beginning of a connection that should be a ClientHello: the name, if there is one, is the
/// same in whatever pieces the bytes come.
#[must_use]
pub fn server_name(bytes: &[u8]) -> bool {
    let at_once = Hello::default().read(bytes);
    let mut hello = Hello::default();
    let quarters = (1..=4).map(|part| hello.read(&bytes[..bytes.len() * part / 4]));
    let in_pieces = quarters.reduce(|before, next| match before {
        Ok(None) => next,
        known => known,
    });
    match (at_once, in_pieces) {
        (Ok(at_once), Some(Ok(in_pieces))) => {
            assert_eq!(at_once, in_pieces);
            at_once.iter().for_each(|name| fits_a_line(name));
            at_once.is_some()
        }
        (Err(at_once), Some(Err(in_pieces))) => {
            assert_eq!(at_once.to_string(), in_pieces.to_string());
            fits_a_line(&at_once.to_string());
            false
        }
        different => panic!("{different:?}"),
    }
}

fn goes_round(specs: &[ForwardSpec]) {
    let json = spec::to_json(specs).to_string();
    let read = spec::from_json(json.as_bytes()).expect("what is written can be read");
    assert_eq!(read, specs);
}

/// It can be printed on a terminal and written to a log.
fn fits_a_line(told: &str) {
    assert!(!told.contains(char::is_control), "{told:?}");
}

#[cfg(test)]
mod tests;
