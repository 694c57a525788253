//! Docker's grammar of flags where it differs from clap's.
//!
//! In `run`, `create` and `exec` the flags end at the first argument that is none; a flag takes the argument after it
//! as its value, whatever it looks like; a switch may be written `--rm=false`; and until Docker 1.10 long flags had a
//! single dash. Arguments are rewritten to a form in which clap means the same.

use clap::{Arg, Command};

/// The long flags that had a single dash, and what they are called now.
const SINGLE_DASH: &[(&str, &str)] = &[
    ("add-host", "add-host"),
    ("cidfile", "cidfile"),
    ("dns", "dns"),
    ("entrypoint", "entrypoint"),
    ("env", "env"),
    ("env-file", "env-file"),
    ("expose", "expose"),
    ("force", "force"),
    ("hostname", "hostname"),
    ("link", "link"),
    ("name", "name"),
    ("net", "net"),
    ("no-trunc", "no-trunc"),
    ("notrunc", "no-trunc"),
    ("privileged", "privileged"),
    ("publish", "publish"),
    ("publish-all", "publish-all"),
    ("rm", "rm"),
    ("sig-proxy", "sig-proxy"),
    ("signal", "signal"),
    ("since", "since"),
    ("tail", "tail"),
    ("user", "user"),
    ("volume", "volume"),
    ("volumes-from", "volumes-from"),
    ("workdir", "workdir"),
];

/// Commands that are ours alone, to which Docker's habits do not apply.
const OURS: &[&str] = &[
    "daemon",
    "ambassador",
    "flows",
    "explain",
    "tap",
    "doctor",
    "init",
    "join",
    "token",
    "why",
    "completion",
    "help",
];
/// Commands whose flags end at the first argument that is none.
const WITH_A_COMMAND: &[&str] = &["run", "create", "exec"];

/// Rewrites `args` (without the program's name) for `root`, which is built.
pub(super) fn normalise(root: &Command, args: Vec<String>) -> Vec<String> {
    let mut rewriter = Rewriter {
        out: Vec::with_capacity(args.len() + 1),
        rest: args.into_iter(),
    };
    rewriter.command(root, true);
    rewriter.out.extend(rewriter.rest);
    rewriter.out
}

struct Rewriter {
    out: Vec<String>,
    rest: std::vec::IntoIter<String>,
}

impl Rewriter {
    /// Rewrites the flags of `command`, then those of the sub-command that follows.
    fn command(&mut self, command: &Command, is_root: bool) {
        if OURS.contains(&command.get_name()) {
            return;
        }
        let has_tail = WITH_A_COMMAND.contains(&command.get_name())
            && command
                .get_positionals()
                .any(|argument| argument.get_id() == "command");
        let mut single_dash = !is_root;
        while let Some(token) = self.rest.next() {
            if token == "--" {
                self.out.push(token);
                return;
            }
            if !token.starts_with('-') || token == "-" {
                if has_tail {
                    self.out.push("--".to_owned());
                }
                let next = command.find_subcommand(&token);
                self.out.push(token);
                match next {
                    Some(next) => return self.command(next, false),
                    None if has_tail => return,
                    None => single_dash = false,
                }
            } else if let Some(long) = token.strip_prefix("--") {
                self.long(command, long);
            } else {
                match modern(command, &token[1..]).filter(|_| single_dash) {
                    Some(long) => self.long(command, &long),
                    None => self.shorts(command, &token[1..]),
                }
            }
        }
    }

    /// A long flag, without its dashes.
    fn long(&mut self, command: &Command, text: &str) {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match (find_long(command, name), value) {
            (Some(arg), Some(value)) if is_switch(arg) => match parse_bool(value) {
                Some(true) => self.out.push(format!("--{name}")),
                Some(false) => {}
                None => self.out.push(format!("--{text}")),
            },
            (Some(arg), None) if wants_value(arg) => self.value(format!("--{name}")),
            _ => self.out.push(format!("--{text}")),
        }
    }

    /// A cluster of short flags, without the dash.
    fn shorts(&mut self, command: &Command, text: &str) {
        let mut switches = String::new();
        let mut last = None;
        for (at, short) in text.char_indices() {
            let after = &text[at + short.len_utf8()..];
            match find_short(command, short) {
                Some(arg) if wants_value(arg) => {
                    last = Some((arg, after));
                    break;
                }
                Some(arg) if is_switch(arg) => match after.strip_prefix('=').map(parse_bool) {
                    Some(Some(on)) => {
                        switches.extend(on.then_some(short));
                        break;
                    }
                    _ => switches.push(short),
                },
                _ => switches.push(short),
            }
        }
        if !switches.is_empty() {
            self.out.push(format!("-{switches}"));
        }
        let Some((arg, attached)) = last else { return };
        let flag = match (arg.get_long(), arg.get_short()) {
            (Some(long), _) => format!("--{long}"),
            (None, short) => format!("-{}", short.expect("an argument found by its short flag")),
        };
        if attached.is_empty() {
            self.value(flag);
        } else {
            self.out.push(format!(
                "{flag}={}",
                attached.strip_prefix('=').unwrap_or(attached)
            ));
        }
    }

    /// A flag whose value is the next argument.
    fn value(&mut self, flag: String) {
        self.out.push(match self.rest.next() {
            Some(value) => format!("{flag}={value}"),
            None => flag,
        });
    }
}

/// What a flag that once had a single dash is called now, with its value.
fn modern(command: &Command, text: &str) -> Option<String> {
    let (name, value) = match text.find('=') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let (_, now) = SINGLE_DASH.iter().find(|(old, _)| *old == name)?;
    find_long(command, now).map(|_| format!("{now}{value}"))
}

fn find_long<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| {
        arg.get_long_and_visible_aliases()
            .is_some_and(|names| names.contains(&name))
            || arg.get_aliases().is_some_and(|names| names.contains(&name))
    })
}

fn find_short(command: &Command, short: char) -> Option<&Arg> {
    command
        .get_arguments()
        .find(|arg| arg.get_short() == Some(short))
}

fn wants_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), clap::ArgAction::SetTrue)
}

/// As Go's `strconv.ParseBool`, which is what Docker's client uses.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
