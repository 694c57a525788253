//! The ports that containers offer, as SRV queries ask for them: by number, or by a name out of a label.

use std::collections::BTreeMap;

use nuncio_overlay::Offer;

use super::config::{Port, Protocol};
use super::refusal::Refusal;

/// `nuncio.port.NAME=PORT[/PROTOCOL]` gives a port a name.
const LABEL: &str = "nuncio.port.";
/// As long as a service's name may be (RFC 6335, section 5.1).
const LONGEST_NAME: usize = 15;

/// What a container of these ports and labels offers. A label's port need not be exposed.
pub(super) fn offers(exposed: &[Port], labels: &BTreeMap<String, String>) -> Vec<Offer> {
    let offer = |name, port: Port| Offer {
        name,
        protocol: match port.protocol {
            Protocol::Tcp => nuncio_overlay::Protocol::Tcp,
            Protocol::Udp => nuncio_overlay::Protocol::Udp,
        },
        port: port.number,
    };
    let named = labels.iter().filter_map(|(label, port)| {
        let name = label.strip_prefix(LABEL)?.to_owned();
        Some(offer(Some(name), port.parse().ok()?))
    });
    let bare = exposed.iter().map(|port| offer(None, *port));
    bare.chain(named).collect()
}

/// Refuses labels that name no port, or a port no name.
pub(super) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let names = labels
        .iter()
        .filter_map(|(label, port)| Some((label.strip_prefix(LABEL)?, port)));
    for (name, port) in names {
        if !is_name(name) {
            return Err(Refusal::invalid(format!(
                "invalid port name {name:?} in label {LABEL}{name}: expected 1 to {LONGEST_NAME} letters, digits and \
                 '-', a letter among them"
            )));
        }
        if let Err(error) = port.parse::<Port>() {
            return Err(Refusal::invalid(format!("label {LABEL}{name}: {error}")));
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    name.len() <= LONGEST_NAME
        && name.bytes().all(inside)
        && name.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_label_names_a_port() {
        let labels = labels(&[("nuncio.port.dns", "53/udp"), ("other", "80")]);
        assert!(check_labels(&labels).is_ok());
        let offers = offers(&["80/tcp".parse().expect("a port")], &labels);
        let told: Vec<_> = offers
            .iter()
            .map(|offer| (offer.name.as_deref(), offer.port, offer.protocol))
            .collect();
        assert_eq!(
            told,
            [
                (None, 80, nuncio_overlay::Protocol::Tcp),
                (Some("dns"), 53, nuncio_overlay::Protocol::Udp)
            ]
        );
    }

    #[test]
    fn what_names_no_port_is_refused() {
        for (label, port) in [
            ("nuncio.port.", "80"),
            ("nuncio.port.80", "80"),
            ("nuncio.port.a_b", "80"),
            ("nuncio.port.sixteen-letters-", "80"),
            ("nuncio.port.http", ""),
            ("nuncio.port.http", "0"),
            ("nuncio.port.http", "80/sctp"),
        ] {
            let refusal = check_labels(&labels(&[(label, port)])).expect_err("refused");
            assert!(refusal.message.contains(label), "{}", refusal.message);
        }
    }
}
