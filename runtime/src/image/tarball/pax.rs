//! PAX extension records: `LENGTH KEY=VALUE\n`, the value being any bytes (POSIX.1).

/// Prefix of the keys under which star, GNU tar and Go keep extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What one extension header, or several laid over each other, say of an entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Pax {
    path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of a sparse file with its holes.
    pub(super) sparse_size: Option<u64>,
    /// The map, where the format keeps it here (0.1) and not in front of the data (1.0).
    pub(super) sparse_map: Option<Vec<(u64, u64)>>,
    sparse_name: Option<Vec<u8>>,
    is_sparse_1: bool,
}

impl Pax {
    pub(super) fn parse(mut data: &[u8]) -> Result<Self, &'static str> {
        const MALFORMED: &str = "its PAX records are malformed";
        let mut pax = Self::default();
        while !data.is_empty() && data[0] != 0 {
            let space = data
                .iter()
                .take(20)
                .position(|&byte| byte == b' ')
                .ok_or(MALFORMED)?;
            let length = decimal(&data[..space])
                .and_then(|n| usize::try_from(n).ok())
                .ok_or(MALFORMED)?;
            let record = data.get(space + 1..length).ok_or(MALFORMED)?;
            let record = record.strip_suffix(b"\n").ok_or(MALFORMED)?;
            let equals = record
                .iter()
                .position(|&byte| byte == b'=')
                .ok_or(MALFORMED)?;
            pax.take(&record[..equals], &record[equals + 1..])?;
            data = &data[length..];
        }
        Ok(pax)
    }

    /// The name, which sparse files have in a record of its own.
    pub(super) fn path(&self) -> Option<&[u8]> {
        self.sparse_name.as_deref().or(self.path.as_deref())
    }

    pub(super) fn is_sparse(&self) -> bool {
        self.is_sparse_1 || self.sparse_map.is_some()
    }

    /// Lays later records over these.
    pub(super) fn update(&mut self, later: Self) {
        *self = self.overlaid(&later);
    }

    pub(super) fn overlaid(&self, later: &Self) -> Self {
        let mut xattrs = self.xattrs.clone();
        xattrs.retain(|(name, _)| later.xattrs.iter().all(|(other, _)| other != name));
        xattrs.extend(later.xattrs.iter().cloned());
        Self {
            path: later.path.clone().or_else(|| self.path.clone()),
            link: later.link.clone().or_else(|| self.link.clone()),
            size: later.size.or(self.size),
            uid: later.uid.or(self.uid),
            gid: later.gid.or(self.gid),
            mtime: later.mtime.or(self.mtime),
            xattrs,
            // A sparse map describes one file, never all that follow.
            sparse_size: later.sparse_size,
            sparse_map: later.sparse_map.clone(),
            sparse_name: later.sparse_name.clone(),
            is_sparse_1: later.is_sparse_1,
        }
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let number = || decimal(value).ok_or("a number in its PAX records is none");
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime = Some(time(value).ok_or("its PAX time is none")?),
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse_size = Some(number()?),
            b"GNU.sparse.major" => self.is_sparse_1 = value == b"1",
            b"GNU.sparse.map" => {
                self.sparse_map = Some(sparse_map(value).ok_or("its sparse map is malformed")?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                return Err("its sparse map is in PAX format 0.0; write it in format 1.0");
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Seconds since 1970 with an optional fraction; also before 1970.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    if text.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

fn sparse_map(value: &[u8]) -> Option<Vec<(u64, u64)>> {
    let numbers = value
        .split(|&byte| byte == b',')
        .map(decimal)
        .collect::<Option<Vec<_>>>()?;
    if numbers.len() % 2 != 0 {
        return None;
    }
    Some(
        numbers
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use proptest::prelude::*;

    use super::*;

    fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
        let body = [b" ", key, b"=", value, b"\n"].concat();
        let mut length = body.len() + 1;
        while length.to_string().len() + body.len() != length {
            length += 1;
        }
        [length.to_string().as_bytes(), &body].concat()
    }

    #[test]
    fn times_may_have_fractions_and_lie_before_1970() {
        assert_eq!(time(b"1700000000"), Some((1_700_000_000, 0)));
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"1.0000000019"), Some((1, 1)));
        assert_eq!(time(b"yesterday"), None);
    }

    #[test]
    fn records_that_lie_about_their_length_are_refused() {
        for data in [
            &b"5 a=b"[..],
            b"99 a=b\n",
            b"0 a=b\n",
            b"x a=b\n",
            b"6 ab=\n6",
            b"7 a=b\nx",
        ] {
            assert!(Pax::parse(data).is_err(), "{data:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_records_or_an_error(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pax::parse(&data);
        }

        #[test]
        fn binary_attributes_come_through(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut data = record(b"SCHILY.xattr.security.capability", &value);
            data.extend(record(b"path", b"some/where"));
            let pax = Pax::parse(&data).unwrap();
            prop_assert_eq!(pax.path(), Some(&b"some/where"[..]));
            prop_assert_eq!(&pax.xattrs, &[(b"security.capability".to_vec(), value)]);
        }
    }
}
