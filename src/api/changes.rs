//! `--change` of commit and import: a Dockerfile's instructions, applied to an image's configuration.

mod health;
mod words;

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use crate::daemon::refusal::Refusal;
use words::{pairs, words};

/// What a command that is no list is run with.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// Instructions that may be given.
const KNOWN: &[&str] = &[
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Applies `changes`, each of one or more lines, to `config`, Docker's JSON of process defaults.
pub(super) fn apply(config: &mut Map<String, Value>, changes: &[String]) -> Result<(), Refusal> {
    let mut has_cmd = false;
    for line in changes.iter().flat_map(|change| change.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let name = name.to_ascii_uppercase();
        if !KNOWN.contains(&name.as_str()) {
            let message = format!("{name} is not a valid change command");
            return Err(Refusal::invalid(message));
        }
        let rest = rest.trim();
        if rest.is_empty() {
            let message = format!("{name} requires at least one argument");
            return Err(Refusal::invalid(message));
        }
        has_cmd |= name == "CMD";
        change(config, &name, rest, has_cmd)?;
    }
    Ok(())
}

fn change(
    config: &mut Map<String, Value>,
    name: &str,
    rest: &str,
    has_cmd: bool,
) -> Result<(), Refusal> {
    match name {
        "CMD" => set(config, "Cmd", command(rest)),
        "ENTRYPOINT" => {
            set(config, "Entrypoint", command(rest));
            // It was meant for another program.
            if !has_cmd {
                config.shift_remove("Cmd");
            }
        }
        "ENV" => {
            for (key, value) in pairs("ENV", rest)? {
                let list = list(config, "Env");
                let same = |entry: &Value| entry.as_str().is_some_and(|e| name_of(e) == key);
                list.retain(|entry| !same(entry));
                list.push(format!("{key}={value}").into());
            }
        }
        "LABEL" => {
            for (key, value) in pairs("LABEL", rest)? {
                object(config, "Labels").insert(key, value.into());
            }
        }
        "EXPOSE" => {
            for word in words(rest)? {
                for port in ports(&word)? {
                    object(config, "ExposedPorts").insert(port, json!({}));
                }
            }
        }
        "VOLUME" => {
            for path in strings(rest).map_or_else(|| words(rest), Ok)? {
                if path.trim().is_empty() {
                    return Err(Refusal::invalid(
                        "VOLUME specified can not be an empty string",
                    ));
                }
                object(config, "Volumes").insert(path, json!({}));
            }
        }
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default();
            if ["ONBUILD", "FROM", "MAINTAINER"].contains(&trigger.to_ascii_uppercase().as_str()) {
                let message = format!("{trigger} isn't allowed as an ONBUILD trigger");
                return Err(Refusal::invalid(message));
            }
            list(config, "OnBuild").push(rest.into());
        }
        "STOPSIGNAL" => {
            let signal = single("STOPSIGNAL", rest)?;
            crate::daemon::signal_number(&signal)?;
            set(config, "StopSignal", signal.into());
        }
        "USER" => set(config, "User", single("USER", rest)?.into()),
        "WORKDIR" => {
            let path = single("WORKDIR", rest)?;
            let before = config.get("WorkingDir").and_then(Value::as_str);
            let path = join(before.unwrap_or_default(), &path);
            set(config, "WorkingDir", path.into());
        }
        _ => set(config, "Healthcheck", health::parse(rest)?),
    }
    Ok(())
}

fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

/// The list of that name, made if there is none.
fn list<'a>(config: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = config.entry(key.to_owned()).or_insert(Value::Null);
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().expect("it is one now")
}

/// The object of that name, made if there is none.
fn object<'a>(config: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = config.entry(key.to_owned()).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it is one now")
}

/// A JSON list of strings; anything else is a text.
fn strings(rest: &str) -> Option<Vec<String>> {
    serde_json::from_str(rest).ok()
}

/// A command as a JSON list, or for the shell.
fn command(rest: &str) -> Value {
    match strings(rest) {
        Some(words) => words.into(),
        None => SHELL.into_iter().chain([rest]).collect::<Vec<_>>().into(),
    }
}

fn single(name: &str, rest: &str) -> Result<String, Refusal> {
    let mut words = words(rest)?;
    match (words.pop(), words.is_empty()) {
        (Some(word), true) => Ok(word),
        _ => Err(Refusal::invalid(format!(
            "{name} requires exactly one argument"
        ))),
    }
}

fn name_of(variable: &str) -> &str {
    variable.split('=').next().unwrap_or_default()
}

/// `path` as seen from `base`, without dots.
fn join(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{base}/{path}")
    };
    let mut parts = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `PORT[-PORT][/PROTOCOL]`, each port as the configuration names it.
fn ports(text: &str) -> Result<Vec<String>, Refusal> {
    let wrong = || {
        Refusal::invalid(format!(
            "invalid containerPort: {text}: expected PORT[-PORT][/tcp|udp|sctp]"
        ))
    };
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(wrong());
    }
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().ok().filter(|&port| port != 0);
    let range: RangeInclusive<u16> = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..=last,
        _ => return Err(wrong()),
    };
    Ok(range.map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn changed(changes: &[&str]) -> Result<Value, String> {
        let mut config = json!({"Cmd": ["old"], "Env": ["PATH=/bin", "A=1"], "WorkingDir": "/srv"});
        let fields = config.as_object_mut().expect("an object");
        let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
        apply(fields, &changes).map_err(|error| error.message)?;
        Ok(config)
    }

    #[test]
    fn instructions_change_the_configuration() {
        let config = changed(&[
            "ENTRYPOINT [\"/bin/app\", \"-v\"]",
            "env A=2 B=\"x y\" C=a\\ b",
            "ENV D some words\nLABEL a.b=c \"d e\"=f",
            "EXPOSE 80 8000-8001/udp",
            "VOLUME [\"/data\", \"/log\"]",
            "WORKDIR sub/../app",
            "USER www:www",
            "STOPSIGNAL SIGUSR1",
            "ONBUILD RUN make",
            "# nothing",
            "HEALTHCHECK --interval=5s --retries=2 CMD [\"true\"]",
        ]);
        let expected = json!({
            "Env": ["PATH=/bin", "A=2", "B=x y", "C=a b", "D=some words"],
            "WorkingDir": "/srv/app",
            "Entrypoint": ["/bin/app", "-v"],
            "Labels": {"a.b": "c", "d e": "f"},
            "ExposedPorts": {"80/tcp": {}, "8000/udp": {}, "8001/udp": {}},
            "Volumes": {"/data": {}, "/log": {}},
            "User": "www:www",
            "StopSignal": "SIGUSR1",
            "OnBuild": ["RUN make"],
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5_000_000_000_u64, "Retries": 2},
        });
        assert_eq!(config, Ok(expected));
        let config = changed(&["CMD echo hello", "ENTRYPOINT [\"/x\"]"]).expect("valid");
        assert_eq!(config["Cmd"], json!(["/bin/sh", "-c", "echo hello"]));
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for (change, says) in [
            ("RUN make", "RUN is not a valid change command"),
            ("CMD", "CMD requires at least one argument"),
            ("ENV A", "ENV must have two arguments"),
            ("ENV =x", "ENV names can not be blank"),
            ("LABEL a", "LABEL must have two arguments"),
            ("EXPOSE http", "invalid containerPort: http"),
            ("EXPOSE 0", "invalid containerPort: 0"),
            ("EXPOSE 90-80", "invalid containerPort: 90-80"),
            ("USER a b", "USER requires exactly one argument"),
            ("STOPSIGNAL nosuch", "nosuch"),
            ("ONBUILD FROM x", "isn't allowed as an ONBUILD trigger"),
            ("VOLUME \"\"", "VOLUME specified can not be an empty string"),
            ("WORKDIR \"open", "unterminated quote"),
            ("HEALTHCHECK maybe", "Unknown type"),
        ] {
            let message = changed(&[change]).expect_err(change);
            assert!(message.contains(says), "{change}: {message}");
        }
    }

    proptest! {
        #[test]
        fn any_change_is_taken_or_refused(
            name in "(CMD|ENV|LABEL|EXPOSE|VOLUME|WORKDIR|HEALTHCHECK|ONBUILD|USER) ",
            rest in r#"[a-z0-9=/"' \[\],\\.-]{0,32}"#,
        ) {
            let _ = changed(&[&format!("{name}{rest}")]);
        }
    }
}
