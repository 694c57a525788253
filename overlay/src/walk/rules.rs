//! Whether rules that are not ours drop a packet: nft's list in JSON, followed as the kernel would.

use std::net::IpAddr;

use serde_json::Value;

use crate::Protocol;

/// A jump may lead on; the kernel itself allows 16.
const DEPTH: usize = 16;

/// The first packet of a connection, at one of the kernel's hooks.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    /// `input` or `forward`.
    pub(super) hook: &'static str,
    /// Where it came in, and where it goes out.
    pub(super) from: String,
    pub(super) to: String,
    pub(super) source: IpAddr,
    pub(super) target: IpAddr,
    /// `None`: any.
    pub(super) port: Option<(Protocol, u16)>,
}

impl Packet {
    /// What nft calls its family, and its header.
    fn family(&self) -> &'static str {
        if self.target.is_ipv6() { "ip6" } else { "ip" }
    }
}

/// A rule, or a chain's policy, that drops a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Dropping {
    /// Whether it does so for sure: not all that a rule may ask can be told here.
    pub(super) surely: bool,
    /// Where: `ip filter FORWARD`.
    pub(super) chain: String,
    /// The rule's handle; `None`: the policy.
    pub(super) handle: Option<u64>,
}

/// What drops the packet, of all tables but `ours`; who does it for sure comes first.
pub(super) fn dropped(ruleset: &Value, ours: &str, packet: &Packet) -> Option<Dropping> {
    let list = ruleset.get("nftables")?.as_array()?;
    let mut maybe = None;
    for chain in list.iter().filter_map(|item| item.get("chain")) {
        let text = |field: &str| chain.get(field).and_then(Value::as_str).unwrap_or_default();
        let (family, table, name) = (text("family"), text("table"), text("name"));
        if text("hook") != packet.hook
            || text("type") != "filter"
            || ![packet.family(), "inet"].contains(&family)
            || format!("{family} {table}") == ours
        {
            continue;
        }
        let rules = Rules {
            list,
            family,
            table,
            packet,
        };
        let mut sure = true;
        let end = rules.chain(name, 0, &mut sure, &mut maybe);
        let by_policy = matches!(end, End::Through) && text("policy") == "drop";
        let drop = match end {
            End::Dropped(handle, chain) => Some((Some(handle), chain)),
            End::Through if by_policy => Some((None, name.to_owned())),
            End::Through | End::Accepted => None,
        };
        if let Some((handle, chain)) = drop {
            let drop = Dropping {
                surely: sure,
                chain: format!("{family} {table} {chain}"),
                handle,
            };
            if sure {
                return Some(drop);
            }
            maybe.get_or_insert(drop);
        }
    }
    maybe
}

enum End {
    Accepted,
    /// By this rule of this chain.
    Dropped(u64, String),
    /// No rule decided.
    Through,
}

struct Rules<'a> {
    list: &'a [Value],
    family: &'a str,
    table: &'a str,
    packet: &'a Packet,
}

/// `None` is what cannot be told.
type Maybe = Option<bool>;

impl Rules<'_> {
    /// `sure` becomes false once a rule that cannot be told might have decided otherwise.
    fn chain(
        &self,
        name: &str,
        depth: usize,
        sure: &mut bool,
        maybe: &mut Option<Dropping>,
    ) -> End {
        let rules = self.list.iter().filter_map(|item| item.get("rule"));
        let rules = rules.filter(|rule| {
            let is =
                |field: &str, text: &str| rule.get(field).and_then(Value::as_str) == Some(text);
            is("family", self.family) && is("table", self.table) && is("chain", name)
        });
        for rule in rules {
            let statements = rule.get("expr").and_then(Value::as_array);
            let handle = rule
                .get("handle")
                .and_then(Value::as_u64)
                .unwrap_or_default();
            let mut holds = Some(true);
            for statement in statements.into_iter().flatten() {
                let Some((kind, body)) = statement.as_object().and_then(|all| all.iter().next())
                else {
                    continue;
                };
                match kind.as_str() {
                    "match" => holds = and(holds, self.matches(body)),
                    "xt" | "limit" | "vmap" | "fib" | "socket" => holds = and(holds, None),
                    "accept" if holds == Some(true) => return End::Accepted,
                    "drop" | "reject" if holds == Some(true) => {
                        return End::Dropped(handle, name.to_owned());
                    }
                    "return" if holds == Some(true) => return End::Through,
                    "jump" | "goto" if holds != Some(false) && depth < DEPTH => {
                        let target = body.get("target").and_then(Value::as_str);
                        let mut surely = *sure && holds == Some(true);
                        let end =
                            self.chain(target.unwrap_or_default(), depth + 1, &mut surely, maybe);
                        match end {
                            End::Through if kind == "goto" && holds == Some(true) => {
                                return End::Through;
                            }
                            End::Through => *sure &= surely || holds != Some(true),
                            decided if holds == Some(true) => {
                                *sure = surely;
                                return decided;
                            }
                            decided => self.undecided(decided, sure, maybe),
                        }
                    }
                    "accept" if holds.is_none() => *sure = false,
                    "drop" | "reject" if holds.is_none() => {
                        self.undecided(End::Dropped(handle, name.to_owned()), sure, maybe);
                    }
                    "return" if holds.is_none() => *sure = false,
                    _ => {}
                }
                if holds == Some(false) {
                    break;
                }
            }
        }
        End::Through
    }

    /// What a rule does that might not hold.
    fn undecided(&self, end: End, sure: &mut bool, maybe: &mut Option<Dropping>) {
        match end {
            End::Dropped(handle, chain) => {
                maybe.get_or_insert(Dropping {
                    surely: false,
                    chain: format!("{} {} {chain}", self.family, self.table),
                    handle: Some(handle),
                });
            }
            End::Accepted => *sure = false,
            End::Through => {}
        }
    }

    fn matches(&self, body: &Value) -> Maybe {
        let operator = body.get("op").and_then(Value::as_str)?;
        let (left, right) = (body.get("left")?, body.get("right")?);
        let equals = self.equals(left, right)?;
        match operator {
            "==" | "in" => Some(equals),
            "!=" => Some(!equals),
            _ => None,
        }
    }

    fn equals(&self, left: &Value, right: &Value) -> Maybe {
        let packet = self.packet;
        if let Some(key) = left.pointer("/meta/key").and_then(Value::as_str) {
            return match key {
                "iifname" | "iif" => any(right, |text| Some(is_link(text.as_str()?, &packet.from))),
                "oifname" | "oif" => any(right, |text| Some(is_link(text.as_str()?, &packet.to))),
                "nfproto" => {
                    let own = if packet.target.is_ipv6() {
                        "ipv6"
                    } else {
                        "ipv4"
                    };
                    any(right, |text| Some(text.as_str()? == own))
                }
                "l4proto" => self.protocol(right),
                _ => None,
            };
        }
        if left.pointer("/ct/key").and_then(Value::as_str) == Some("state") {
            return any(right, |text| Some(text.as_str()? == "new"));
        }
        let field = left.pointer("/payload/field").and_then(Value::as_str)?;
        match (left.pointer("/payload/protocol")?.as_str()?, field) {
            (header @ ("ip" | "ip6"), _) if header != packet.family() => Some(false),
            ("ip" | "ip6", "saddr") => any(right, |value| is_address(value, packet.source)),
            ("ip" | "ip6", "daddr") => any(right, |value| is_address(value, packet.target)),
            ("ip", "protocol") | ("ip6", "nexthdr") => self.protocol(right),
            (protocol @ ("tcp" | "udp" | "th"), "dport") => {
                let (of, number) = packet.port?;
                if protocol != "th" && protocol != of.to_string() {
                    return Some(false);
                }
                any(right, |value| is_number(value, number.into()))
            }
            (protocol @ ("tcp" | "udp" | "icmp" | "icmpv6"), _) => {
                let (of, _) = packet.port?;
                (protocol != of.to_string()).then_some(false)
            }
            _ => None,
        }
    }

    fn protocol(&self, right: &Value) -> Maybe {
        let (protocol, _) = self.packet.port?;
        let (name, number) = match protocol {
            Protocol::Tcp => ("tcp", 6),
            Protocol::Udp => ("udp", 17),
        };
        any(right, |value| match value {
            Value::String(text) => Some(text == name),
            Value::Number(_) => is_number(value, number),
            _ => None,
        })
    }
}

fn and(left: Maybe, right: Maybe) -> Maybe {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// Whether one of a set's elements, or what stands alone, is it.
fn any(right: &Value, is: impl Fn(&Value) -> Maybe) -> Maybe {
    let elements = match right {
        Value::Array(elements) => elements,
        Value::Object(_) => match right.get("set") {
            Some(Value::Array(elements)) => elements,
            _ => return is(right),
        },
        _ => return is(right),
    };
    let told: Vec<_> = elements.iter().map(is).collect();
    if told.contains(&Some(true)) {
        return Some(true);
    }
    (!told.contains(&None)).then_some(false)
}

/// `br-*` is any that begins so.
fn is_link(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

fn is_address(value: &Value, address: IpAddr) -> Maybe {
    let parsed = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
    if let Some(prefix) = value.get("prefix") {
        let (start, length) = (parsed(prefix.get("addr")?)?, prefix.get("len")?.as_u64()?);
        let length = u8::try_from(length).ok()?;
        return Some(
            ipnetwork::IpNetwork::new(start, length)
                .ok()?
                .contains(address),
        );
    }
    if let Some(Value::Array(range)) = value.get("range") {
        return Some(parsed(range.first()?)? <= address && address <= parsed(range.get(1)?)?);
    }
    Some(parsed(value)? == address)
}

fn is_number(value: &Value, number: u64) -> Maybe {
    if let Some(Value::Array(range)) = value.get("range") {
        return Some(range.first()?.as_u64()? <= number && number <= range.get(1)?.as_u64()?);
    }
    Some(value.as_u64()? == number)
}

#[cfg(test)]
mod tests;
