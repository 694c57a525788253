//! Assembles verdicts into classic BPF: per calling convention a binary search over ranges of numbers.

use super::Verdict;
use crate::sys::Instruction;

// linux/bpf_common.h
const LD_W_ABS: u16 = 0x20;
const JMP_JA: u16 = 0x05;
const JMP_JEQ_K: u16 = 0x15;
const JMP_JGE_K: u16 = 0x35;
const JMP_JSET_K: u16 = 0x45;
const RET_K: u16 = 0x06;

// struct seccomp_data, linux/seccomp.h; the low halves of the arguments on a little-endian machine
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENT_0: u32 = 16;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

const X32: u32 = 0x4000_0000;
/// `CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}`
const NAMESPACES: u32 = 0x7e02_0000;
/// `PER_LINUX`, `PER_LINUX32`, both with `UNAME26`, and the question which one is set.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Families whose kernel code was often broken and that containers do not use, `AF_ALG` (38) and `AF_VSOCK` (40) above all.
const REFUSED_FAMILIES: [u32; 9] = [12, 19, 20, 23, 25, 34, 37, 38, 40];
const FIRST_UNKNOWN_FAMILY: u32 = 46;

/// The program for all conventions: audit number, whether x32 numbers occur, verdicts by number.
pub(super) fn assemble(
    abis: impl Iterator<Item = (u32, bool, Vec<(u32, Verdict)>)>,
) -> Vec<Instruction> {
    let mut program = vec![load(ARCH)];
    for (audit, x32, verdicts) in abis {
        let mut block = vec![load(NUMBER)];
        if x32 {
            block.push(jump(JMP_JGE_K, X32, 0, 1));
            block.push(errno(ENOSYS));
        }
        block.extend(search(&ranges(&verdicts)));
        program.push(jump(JMP_JEQ_K, audit, 1, 0));
        program.push(always(block.len()));
        program.extend(block);
    }
    program.push(errno(ENOSYS)); // a convention without a table
    program
}

/// First number of each run of equal verdicts. Gaps are numbers that were never given away, and beyond
/// the last are calls newer than the table.
fn ranges(verdicts: &[(u32, Verdict)]) -> Vec<(u32, Verdict)> {
    let mut ranges = vec![(0, Verdict::Unknown)];
    let mut push = |start, verdict| {
        if let Some((_, last)) = ranges.last()
            && *last != verdict
        {
            ranges.push((start, verdict));
        }
    };
    let mut next = 0;
    for (number, verdict) in verdicts {
        if *number > next {
            push(next, Verdict::Unknown);
        }
        push(*number, *verdict);
        next = number + 1;
    }
    push(next, Verdict::Unknown);
    ranges
}

/// Leaves by `RET` on every path, so that what follows is reached only by a jump.
fn search(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    match ranges {
        [] => vec![errno(ENOSYS)],
        [(_, verdict)] => leaf(*verdict),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let low = search(low);
            // a conditional jump reaches 255 instructions only, hence the unconditional one
            let mut block = vec![jump(JMP_JGE_K, high[0].0, 0, 1), always(low.len())];
            block.extend(low);
            block.extend(search(high));
            block
        }
    }
}

fn leaf(verdict: Verdict) -> Vec<Instruction> {
    match verdict {
        Verdict::Allow => vec![ret(ALLOW)],
        Verdict::Deny => vec![errno(EPERM)],
        Verdict::Unknown => vec![errno(ENOSYS)],
        Verdict::Clone => vec![
            load(ARGUMENT_0),
            jump(JMP_JSET_K, NAMESPACES, 0, 1),
            errno(EPERM),
            ret(ALLOW),
        ],
        Verdict::Personality => any_of(&PERSONALITIES, ret(ALLOW), errno(EPERM)),
        Verdict::Socket => {
            let mut block = any_of(&REFUSED_FAMILIES, errno(EPERM), ret(ALLOW));
            // unknown families first: the argument is loaded, then compared
            block.splice(
                1..1,
                [jump(JMP_JGE_K, FIRST_UNKNOWN_FAMILY, 0, 1), errno(EPERM)],
            );
            block
        }
    }
}

/// `hit` if the first argument is one of `values`, else `miss`.
fn any_of(values: &[u32], hit: Instruction, miss: Instruction) -> Vec<Instruction> {
    let mut block = vec![load(ARGUMENT_0)];
    for value in values {
        block.extend([jump(JMP_JEQ_K, *value, 0, 1), hit]);
    }
    block.push(miss);
    block
}

fn load(offset: u32) -> Instruction {
    jump(LD_W_ABS, offset, 0, 0)
}

fn ret(value: u32) -> Instruction {
    jump(RET_K, value, 0, 0)
}

fn errno(errno: u32) -> Instruction {
    ret(ERRNO | errno)
}

fn always(distance: usize) -> Instruction {
    let distance = u32::try_from(distance).expect("a filter has at most 4096 instructions");
    jump(JMP_JA, distance, 0, 0)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::super::{compile, verdicts};
    use super::*;
    use crate::capabilities::CapSet;

    /// Runs `program` as the kernel would, for a call of `arch` with one argument.
    fn run(program: &[Instruction], arch: u32, number: u32, argument: u32) -> u32 {
        let (mut pc, mut accumulator) = (0, 0_u32);
        loop {
            let Instruction { code, jt, jf, k } = program[pc];
            let taken = match code {
                LD_W_ABS => {
                    accumulator = match k {
                        NUMBER => number,
                        ARCH => arch,
                        ARGUMENT_0 => argument,
                        other => panic!("offset {other}"),
                    };
                    0
                }
                RET_K => return k,
                JMP_JA => k as usize,
                JMP_JEQ_K => usize::from(if accumulator == k { jt } else { jf }),
                JMP_JGE_K => usize::from(if accumulator >= k { jt } else { jf }),
                JMP_JSET_K => usize::from(if accumulator & k != 0 { jt } else { jf }),
                other => panic!("code {other}"),
            };
            pc += 1 + taken;
        }
    }

    #[test]
    fn the_search_finds_every_verdict_of_the_table() {
        for column in 0..3 {
            let verdicts = verdicts(column, CapSet::DOCKER);
            let program = assemble([(7, false, verdicts.clone())].into_iter());
            for (number, verdict) in &verdicts {
                let answer = run(&program, 7, *number, 0);
                match verdict {
                    Verdict::Allow | Verdict::Clone | Verdict::Personality | Verdict::Socket => {
                        assert_eq!(answer, ALLOW, "{number}");
                    }
                    Verdict::Deny => assert_eq!(answer, ERRNO | EPERM, "{number}"),
                    Verdict::Unknown => assert_eq!(answer, ERRNO | ENOSYS, "{number}"),
                }
            }
            assert_eq!(run(&program, 7, 5000, 0), ERRNO | ENOSYS);
            assert_eq!(run(&program, 8, verdicts[0].0, 0), ERRNO | ENOSYS);
        }
    }

    #[test]
    fn arguments_decide_clone_personality_and_socket() {
        let clone = assemble([(7, false, vec![(1, Verdict::Clone)])].into_iter());
        assert_eq!(run(&clone, 7, 1, 0x11), ALLOW);
        assert_eq!(run(&clone, 7, 1, 0x1000_0000), ERRNO | EPERM); // CLONE_NEWUSER
        let personality = assemble([(7, false, vec![(1, Verdict::Personality)])].into_iter());
        assert_eq!(run(&personality, 7, 1, 0xffff_ffff), ALLOW);
        assert_eq!(run(&personality, 7, 1, 0x0004_0000), ERRNO | EPERM); // ADDR_NO_RANDOMIZE
        let socket = assemble([(7, false, vec![(1, Verdict::Socket)])].into_iter());
        for (family, answer) in [
            (1, ALLOW),
            (2, ALLOW),
            (16, ALLOW),
            (44, ALLOW),
            (38, ERRNO | EPERM),
            (40, ERRNO | EPERM),
            (46, ERRNO | EPERM),
        ] {
            assert_eq!(run(&socket, 7, 1, family), answer, "family {family}");
        }
    }

    #[test]
    fn the_program_fits_the_kernel() {
        assert!(compile(CapSet::DOCKER).len() <= 4096);
        assert!(compile(CapSet::ALL).len() <= 4096);
    }
}
