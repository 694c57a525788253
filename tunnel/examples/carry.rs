//! Carries packets of one TUN device to one other host: `carry LISTEN KEYS LINK SUBNET PEER PEER_KEY BLOCK`.
//!
//! The first run makes KEYS; each prints the public key, which the other host needs. The device is to be made first, and
//! to be led to by a route:
//!
//! ```text
//! ip tuntap add tun0 mode tun vnet_hdr; ip link set tun0 up mtu 1440; ip route add 10.1.2.0/24 dev tun0
//! carry 192.0.2.1:51820 keys.json tun0 10.1.0.0/16 192.0.2.2:51820 "$KEY" 10.1.2.0/24
//! ```

use std::{env::args, error::Error, fs, path::Path};

use nuncio_tunnel::{KeyRing, LinkDocument, PeerDocument, Tunnel, TunnelDocument};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = args().skip(1).collect();
    let [listen, keys, link, subnet, peer, key, block] = args.as_slice() else {
        return Err("carry LISTEN KEYS LINK SUBNET PEER PEER_KEY BLOCK".into());
    };
    if !Path::new(keys).exists() {
        fs::write(keys, serde_json::to_vec(&KeyRing::generate())?)?;
    }
    let ring: KeyRing = serde_json::from_slice(&fs::read(keys)?)?;
    println!("{}", ring.public()[0]);
    let document = TunnelDocument {
        peers: vec![PeerDocument {
            id: "peer".to_owned(),
            endpoint: peer.parse()?,
            keys: vec![key.parse()?],
            blocks: vec![block.parse()?],
            fallback: None,
        }],
        links: vec![LinkDocument {
            name: link.clone(),
            subnets: vec![subnet.parse()?],
            mtu: 1440,
            sealed: true,
        }],
    };
    let listen = listen.parse()?;
    let tunnel = Tunnel::open(listen, listen)?;
    tunnel.configure(&document, &ring)?;
    loop {
        std::thread::park();
    }
}
