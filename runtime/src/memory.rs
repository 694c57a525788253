//! How much the allocator keeps of what a process has freed. With glibc; others keep what they will.

use std::fs;

use crate::sys;

/// Keeps little: for a process that is to stay small, before it has threads.
pub fn be_frugal() {
    sys::bound_heap();
}

/// Gives back what is free by now, and what was needed of the program once: it is read again from its file, which the
/// kernel keeps at hand, as it is needed. Takes milliseconds, so it is for the end of work that took much.
pub fn give_back() {
    sys::trim_heap();
    for (start, end) in code() {
        sys::let_go_of_code(start, end);
    }
}

/// Where the program's code is mapped; nowhere, if the kernel does not tell.
fn code() -> Vec<(usize, usize)> {
    let program = fs::read_link("/proc/self/exe").unwrap_or_default();
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let is_code = |line: &&str| {
        let mut fields = line.split_ascii_whitespace();
        fields.nth(1) == Some("r-xp") && line.ends_with(&*program.to_string_lossy())
    };
    let range = |line: &str| {
        let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        Some((address(start)?, address(end)?))
    };
    maps.lines().filter(is_code).filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_goes_on_that_gave_its_code_back() {
        let here = a_program_goes_on_that_gave_its_code_back as fn() as usize;
        let code = code();
        assert!(
            code.iter()
                .any(|(start, end)| (start..end).contains(&&here)),
            "{here:x} is not in {code:x?}"
        );
        for _ in 0..100 {
            give_back();
        }
    }
}
