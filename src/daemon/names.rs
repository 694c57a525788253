//! Names for containers that were given none.

const ADJECTIVES: [&str; 32] = [
    "agile", "brisk", "bright", "calm", "candid", "clear", "constant", "cordial", "deft", "eager",
    "early", "fleet", "frank", "gentle", "hardy", "keen", "lively", "loyal", "lucid", "merry",
    "nimble", "patient", "polite", "prompt", "quick", "quiet", "ready", "steady", "sturdy", "sure",
    "swift", "trusty",
];
/// Those who carried messages: envoys, runners, riders and their kin.
const MESSENGERS: [&str; 32] = [
    "angelia",
    "balto",
    "basilisk",
    "caduceus",
    "cher_ami",
    "courier",
    "envoy",
    "eos",
    "gabriel",
    "gna",
    "hawk",
    "heimdall",
    "herald",
    "hermes",
    "hermod",
    "iris",
    "legate",
    "magpie",
    "mercury",
    "narada",
    "ninshubur",
    "nuncio",
    "osprey",
    "papsukkal",
    "pheidippides",
    "pigeon",
    "postilion",
    "ratatoskr",
    "revere",
    "swallow",
    "talaria",
    "turms",
];

/// A name such as `swift_hermes`, or with a number behind it once `attempt` is beyond the first few.
pub(crate) fn random(attempt: u32) -> String {
    let bytes = *uuid::Uuid::new_v4().as_bytes(); // the first four are chance alone
    let adjective = ADJECTIVES[usize::from(bytes[0]) % ADJECTIVES.len()];
    let messenger = MESSENGERS[usize::from(bytes[1]) % MESSENGERS.len()];
    match attempt {
        0..4 => format!("{adjective}_{messenger}"),
        _ => format!(
            "{adjective}_{messenger}{}",
            u16::from_le_bytes([bytes[2], bytes[3]])
        ),
    }
}
