//! No two owners ever hold one address, whatever happens in between.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use ipnetwork::IpNetwork;
use nuncio_overlay::{AddressBook, AllocateError, OpenBookError};
use proptest::prelude::*;

fn book() -> Result<(tempfile::TempDir, AddressBook)> {
    let directory = tempfile::tempdir()?;
    let book = AddressBook::open(&directory.path().join("addresses.json"))?;
    Ok((directory, book))
}

fn blocks(text: &[&str]) -> Vec<IpNetwork> {
    text.iter()
        .map(|block| block.parse().expect("a block"))
        .collect()
}

#[test]
fn gives_fresh_addresses_first_and_then_the_longest_free() -> Result<()> {
    let (_directory, mut book) = book()?;
    let blocks = blocks(&["10.0.0.0/29"]); // .2 to .6 are for containers
    let take = |book: &mut AddressBook, owner: &str| book.allocate("n", &blocks, owner, None);
    for (owner, last) in [("a", 2), ("b", 3), ("c", 4)] {
        assert_eq!(take(&mut book, owner)?, Ipv4Addr::new(10, 0, 0, last));
    }
    book.release("b")?;
    book.release("a")?;
    assert_eq!(take(&mut book, "d")?, Ipv4Addr::new(10, 0, 0, 5));
    assert_eq!(take(&mut book, "e")?, Ipv4Addr::new(10, 0, 0, 6));
    assert_eq!(
        take(&mut book, "f")?,
        Ipv4Addr::new(10, 0, 0, 3),
        "b left first"
    );
    assert_eq!(take(&mut book, "g")?, Ipv4Addr::new(10, 0, 0, 2));
    let full = take(&mut book, "h").expect_err("five are held");
    assert_eq!(
        full.to_string(),
        "network n has no free address on this host: 5 are held"
    );
    assert_eq!(
        take(&mut book, "g")?,
        Ipv4Addr::new(10, 0, 0, 2),
        "asked again"
    );
    Ok(())
}

#[test]
fn an_owner_holds_one_address_of_each_family() -> Result<()> {
    let (_directory, mut book) = book()?;
    let (v4, v6) = (blocks(&["10.0.0.0/29"]), blocks(&["fd00:0:0:0:1::/80"]));
    let mut take = |blocks: &[IpNetwork], owner: &str, wanted: Option<&str>| {
        let wanted = wanted.map(|wanted| wanted.parse().expect("an address"));
        book.allocate("n", blocks, owner, wanted)
    };
    for _ in 0..2 {
        assert_eq!(take(&v4, "a", None)?.to_string(), "10.0.0.2");
        assert_eq!(take(&v6, "a", None)?.to_string(), "fd00::1:0:0:2");
    }
    // The block's first address and the gateway are nobody's; the last is like any other.
    for reserved in ["fd00::1:0:0:0", "fd00::1:0:0:1"] {
        let refused = take(&v6, "b", Some(reserved));
        assert!(
            matches!(refused, Err(AllocateError::Reserved { .. })),
            "{reserved}: {refused:?}"
        );
    }
    let last = "fd00::1:ffff:ffff:ffff";
    assert_eq!(take(&v6, "b", Some(last))?.to_string(), last);
    assert!(
        matches!(take(&v6, "c", Some(last)), Err(AllocateError::Taken { owner, .. }) if owner == "b")
    );
    book.release("a")?;
    let held: Vec<_> = book.held("n").into_values().collect();
    assert_eq!(held, ["b"]);
    Ok(())
}

#[test]
fn an_endless_block_does_not_grow_the_book() -> Result<()> {
    let size = Arc::new(AtomicUsize::new(0));
    let written = Arc::clone(&size);
    let keep = move |bytes: &[u8]| {
        written.store(bytes.len(), Ordering::Relaxed);
        Ok(())
    };
    let mut book = AddressBook::kept_by(Path::new("book"), None, Box::new(keep))?;
    let blocks = blocks(&["fd00::/64"]);
    let mut seen = BTreeSet::new();
    for round in 0..600 {
        let address = book.allocate("n", &blocks, "a", None)?;
        assert!(seen.insert(address) || round >= 500, "{round}: {address}");
        book.release("a")?;
    }
    assert!(size.load(Ordering::Relaxed) < 20_000, "{size:?}");
    Ok(())
}

#[test]
fn a_wanted_address_is_had_if_it_is_free_and_here() -> Result<()> {
    let (_directory, mut book) = book()?;
    let blocks = blocks(&["10.0.0.0/24"]);
    let mut want = |owner: &str, address: &str| {
        book.allocate(
            "n",
            &blocks,
            owner,
            Some(address.parse().expect("an address")),
        )
    };
    assert_eq!(want("a", "10.0.0.77")?.to_string(), "10.0.0.77");
    assert!(
        matches!(want("b", "10.0.0.77"), Err(AllocateError::Taken { owner, .. }) if owner == "a")
    );
    for reserved in ["10.0.0.0", "10.0.0.1", "10.0.0.255"] {
        assert!(
            matches!(want("b", reserved), Err(AllocateError::Reserved { .. })),
            "{reserved}"
        );
    }
    assert!(matches!(
        want("b", "10.0.1.2"),
        Err(AllocateError::NotHere { .. })
    ));
    Ok(())
}

#[test]
fn networks_do_not_share_and_one_can_be_left() -> Result<()> {
    let (_directory, mut book) = book()?;
    let blocks = blocks(&["10.0.0.0/24"]);
    let one = book.allocate("one", &blocks, "a", None)?;
    assert_eq!(book.allocate("two", &blocks, "a", None)?, one);
    book.release_one("one", "a")?;
    assert!(book.held("one").is_empty());
    assert_eq!(book.held("two"), BTreeMap::from([(one, "a".to_owned())]));
    assert_eq!(book.owners().into_iter().collect::<Vec<_>>(), ["a"]);
    book.forget("two")?;
    assert!(book.owners().is_empty());
    Ok(())
}

#[test]
fn a_damaged_book_is_not_begun_anew() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("addresses.json");
    for damaged in [
        "",
        "{",
        "[]",
        r#"{"v":1}"#,
        r#"{"v":1,"networks":{"n":{"held":{"10.0.0":"a"},"freed":[]}}}"#,
    ] {
        fs::write(&path, damaged)?;
        let error = AddressBook::open(&path).expect_err(damaged);
        assert!(
            matches!(error, OpenBookError::Damaged { .. }),
            "{damaged}: {error}"
        );
        assert!(
            error.to_string().contains("addresses.json is damaged"),
            "{error}"
        );
    }
    fs::write(&path, r#"{"v":2,"more":[]}"#)?;
    assert!(matches!(
        AddressBook::open(&path),
        Err(OpenBookError::Version { found: 2, .. })
    ));
    Ok(())
}

#[test]
fn what_cannot_be_written_is_not_given() -> Result<()> {
    let (directory, mut book) = book()?;
    let blocks = blocks(&["10.0.0.0/24"]);
    let first = book.allocate("n", &blocks, "a", None)?;
    fs::create_dir(directory.path().join("addresses.json.new"))?;
    assert!(matches!(
        book.allocate("n", &blocks, "b", None),
        Err(AllocateError::Write(_))
    ));
    assert!(book.release("a").is_err());
    assert_eq!(book.held("n"), BTreeMap::from([(first, "a".to_owned())]));
    Ok(())
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(u8),
    Release(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_u8).prop_map(Step::Allocate),
        3 => (0..12_u8).prop_map(Step::Release),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_model(steps in proptest::collection::vec(step(), 1..40)) {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("addresses.json");
        let mut book = AddressBook::open(&path)?;
        let blocks = blocks(&["10.0.0.0/29", "10.0.1.0/30"]);
        let fresh = [2, 3, 4, 5, 6].map(|last| IpAddr::from([10, 0, 0, last]));
        let mut free: VecDeque<_> = fresh.into_iter().chain([IpAddr::from([10, 0, 1, 2])]).collect();
        let mut held = BTreeMap::new();
        for step in steps {
            match step {
                Step::Allocate(owner) => {
                    let owner = owner.to_string();
                    let expected = held.get(&owner).copied().or_else(|| free.pop_front());
                    let given = book.allocate("n", &blocks, &owner, None).ok();
                    prop_assert_eq!(given, expected);
                    held.extend(given.map(|given| (owner, given)));
                }
                Step::Release(owner) => {
                    let owner = owner.to_string();
                    book.release(&owner)?;
                    free.extend(held.remove(&owner));
                }
                Step::Reopen => book = AddressBook::open(&path)?,
            }
            let swapped: BTreeMap<_, _> = held.iter().map(|(owner, at)| (*at, owner.clone())).collect();
            prop_assert_eq!(book.held("n"), swapped);
        }
    }
}
