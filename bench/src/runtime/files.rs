//! Files to make an image of: the same on every machine, and compressible about as programs and their data are.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Files of a directory; more of them go into the next.
const PER_DIRECTORY: u64 = 100;
/// What does not compress is so much of a file.
const NOISE: f64 = 0.2;

/// Fills `directory` with `megabytes` (10⁶) in files of `from` to `to` KiB.
pub(crate) fn run(directory: &Path, megabytes: u64, from: u64, to: u64, seed: u64) -> Result<()> {
    ensure!(0 < from && from <= to, "no file has {from} to {to} KiB");
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let words: Vec<_> = (0..4096).map(|_| word(&mut chance)).collect();
    let mut left = megabytes * 1_000_000;
    for number in 0.. {
        let size = ((from + chance.below(to - from + 1)) << 10).min(left);
        if size == 0 {
            break;
        }
        let place = directory.join(format!("{seed}/{}", number / PER_DIRECTORY));
        fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
        let path = place.join(format!("file-{number}"));
        fill(&path, size, &words, &mut chance)
            .with_context(|| format!("write {}", path.display()))?;
        left -= size;
    }
    Ok(())
}

fn fill(path: &Path, size: u64, words: &[Vec<u8>], chance: &mut Chance) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let noise = (size as f64 * NOISE) as u64;
    for _ in 0..noise / 8 {
        file.write_all(&chance.next().to_le_bytes())?;
    }
    let mut left = size - noise / 8 * 8;
    while left > 0 {
        // few words are frequent, as in texts and in machine code
        let rank = chance.below(words.len() as u64) * chance.below(words.len() as u64);
        let word = &words[(rank / words.len() as u64) as usize];
        let length = word.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&word[..length])?;
        left -= length as u64;
    }
    file.flush()
}

fn word(chance: &mut Chance) -> Vec<u8> {
    let length = 3 + chance.below(10);
    (0..length).map(|_| (chance.next() >> 40) as u8).collect()
}

/// Numbers as if by chance (xorshift64*).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_asked_for_are_there_and_the_same_again() -> Result<()> {
        let made = |name: &str| -> Result<Vec<u8>> {
            let directory = std::env::temp_dir().join(format!("nb-{name}-{}", std::process::id()));
            let run = run(&directory, 1, 4, 64, 7);
            let mut all = Vec::new();
            for number in 0.. {
                match fs::read(directory.join(format!("7/0/file-{number}"))) {
                    Ok(content) => all.extend(content),
                    Err(_) => break,
                }
            }
            fs::remove_dir_all(&directory)?;
            run.map(|()| all)
        };
        let (one, other) = (made("one")?, made("other")?);
        assert_eq!(one.len(), 1_000_000);
        assert!(one == other, "they differ");
        Ok(())
    }
}
