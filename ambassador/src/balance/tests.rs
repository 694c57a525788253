#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::Ipv4Addr;

use super::*;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SECOND: Duration = Duration::from_secs(1);
const POLICIES: [Policy; 5] = Policy::ALL;

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn members(weights: &[(u16, u16)]) -> Vec<(SocketAddr, NonZeroU16)> {
    let member = |(port, weight): &(u16, u16)| (address(*port), (*weight).try_into().unwrap());
    weights.iter().map(member).collect()
}

/// Of ports and weights.
fn weighted(policy: Policy, weights: &[(u16, u16)]) -> Balancer {
    let balancer = Balancer::default();
    balancer.configure(Rules {
        policy,
        ..Rules::default()
    });
    balancer.update(&members(weights), balancer.epoch);
    balancer
}

/// Of ports 1 to `n`, each with weight 1.
fn balancer(policy: Policy, n: u16) -> Balancer {
    weighted(policy, &(1..=n).map(|port| (port, 1)).collect::<Vec<_>>())
}

fn with_panic(balancer: Balancer, panic: u8) -> Balancer {
    let eject = Eject {
        panic,
        ..Eject::default()
    };
    let rules = balancer.list.load().rules;
    balancer.configure(Rules { eject, ..rules });
    balancer
}

fn failed(balancer: &Balancer, port: u16, now: Instant) -> Option<Duration> {
    balancer.failed(address(port), &"refused", now)
}

/// The port that one newcomer gets, who is gone at once.
fn next(balancer: &Balancer, now: Instant) -> u16 {
    balancer.choose(CLIENT, &[], now).unwrap().address.port()
}

fn health(balancer: &Balancer, port: u16, health: Health) {
    let list = balancer.list.load();
    list.find(address(port)).unwrap().checked(health, None);
}

fn view(balancer: &Balancer, port: u16, now: Instant) -> EndpointView {
    let mut views = balancer.views(now).into_iter();
    views.find(|view| view.address.port() == port).unwrap()
}

#[test]
fn two_at_random_spread_over_idle_endpoints() {
    for policy in [Policy::P2c, Policy::LeastConnections] {
        let balancer = balancer(policy, 4);
        let now = Instant::now();
        let held: Vec<_> = (0..400)
            .map(|_| balancer.choose(CLIENT, &[], now).unwrap())
            .collect();
        for port in 1..=4 {
            let share = held.iter().filter(|c| c.address == address(port)).count();
            assert!(
                (80..=120).contains(&share),
                "{policy}: port {port} has {share} of 400"
            );
        }
    }
}

#[test]
fn two_at_random_prefer_the_faster_to_connect() {
    let balancer = balancer(Policy::P2c, 2);
    let now = Instant::now();
    balancer.succeeded(address(1), Duration::from_millis(50), now);
    balancer.succeeded(address(2), Duration::from_millis(1), now);
    for _ in 0..50 {
        assert_eq!(next(&balancer, now), 2);
    }
}

#[test]
fn round_robin_is_smooth() {
    let balancer = weighted(Policy::RoundRobin, &[(1, 5), (2, 1), (3, 1)]);
    let now = Instant::now();
    let turns: Vec<_> = (0..14).map(|_| next(&balancer, now)).collect();
    assert_eq!(turns, [1, 1, 2, 1, 3, 1, 1].repeat(2), "as nginx has it");
}

#[test]
fn round_robin_owes_nothing_after_many_have_chosen_at_once() {
    let balancer = weighted(Policy::RoundRobin, &[(1, 3), (2, 1)]);
    let now = Instant::now();
    let counts = std::thread::scope(|scope| {
        let choose = || {
            let chosen = (0..4_000).filter(|_| next(&balancer, now) == 1);
            chosen.count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(choose)).collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap())
            .sum::<usize>()
    });
    // Each thread may be in between with one choice.
    assert!((11_980..=12_020).contains(&counts), "{counts} of 16000");
    let owed = balancer.endpoints();
    let owed = owed
        .iter()
        .map(|e| e.turn.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(owed.sum::<i64>(), 0);
}

#[test]
fn the_least_loaded_is_the_one_with_the_fewest_for_its_weight() {
    let balancer = weighted(Policy::LeastConnections, &[(1, 3), (2, 1)]);
    let now = Instant::now();
    let mut held: Vec<_> = (0..40)
        .map(|_| balancer.choose(CLIENT, &[], now).unwrap())
        .collect();
    let on_first = |held: &[Choice]| held.iter().filter(|c| c.address == address(1)).count();
    assert_eq!(on_first(&held), 30);
    held.retain(|choice| choice.address == address(1));
    assert_eq!(next(&balancer, now), 2, "whose flows have ended");
}

#[test]
fn weights_count_at_random_too() {
    for policy in [Policy::Random, Policy::P2c, Policy::SourceHash] {
        let balancer = weighted(policy, &[(1, 3), (2, 1)]);
        let now = Instant::now();
        let of_client = |client: u32| {
            let client = Ipv4Addr::from(0x0a00_0000 + client).into();
            balancer.choose(client, &[], now).unwrap().address.port()
        };
        let first = (0..4_000).filter(|client| of_client(*client) == 1).count();
        // Nine standard deviations either side.
        assert!(
            (2_750..=3_250).contains(&first),
            "{policy}: {first} of 4000"
        );
    }
}

#[test]
fn a_client_keeps_its_endpoint_while_others_come_and_go() {
    let balancer = balancer(Policy::SourceHash, 8);
    let now = Instant::now();
    let all = || -> Vec<u16> {
        let client = |n: u32| Ipv4Addr::from(0xc0a8_0000 + n).into();
        let choice = |n| balancer.choose(client(n), &[], now).unwrap();
        (0..1_000).map(|n| choice(n).address.port()).collect()
    };
    let before = all();
    let ports: Vec<_> = (1..=8)
        .filter(|port| *port != 5)
        .map(|port| (port, 1))
        .collect();
    balancer.update(&members(&ports), now);
    let after = all();
    for (before, after) in before.iter().zip(&after) {
        assert!(*before == 5 || before == after);
    }
    let of_fifth: std::collections::HashSet<_> = (before.iter().zip(&after))
        .filter_map(|(before, after)| (*before == 5).then_some(*after))
        .collect();
    assert_eq!(of_fifth.len(), 7, "its clients are spread over all others");
}

#[test]
fn every_ambassador_hashes_alike() {
    // Fixed for good: another value would move clients during an upgrade.
    assert_eq!(
        endpoint::hash(CLIENT),
        endpoint::hash("::ffff:127.0.0.1".parse().unwrap())
    );
    assert_eq!(endpoint::hash(CLIENT), 0xad43_232a_e99b_ed2e);
    assert_eq!(
        endpoint::hash("2001:db8::1".parse().unwrap()),
        0x4de8_97d9_54fd_23d5
    );
}

#[test]
fn the_tried_are_not_chosen_again() {
    for policy in POLICIES {
        let balancer = balancer(policy, 3);
        let now = Instant::now();
        let mut tried = Vec::new();
        while let Ok(choice) = balancer.choose(CLIENT, &tried, now) {
            assert!(!tried.contains(&choice.address), "{policy}");
            tried.push(choice.address);
            assert_eq!(balancer.has_others(&tried, now), tried.len() < 3);
        }
        assert_eq!(tried.len(), 3, "{policy}");
    }
}

#[test]
fn an_ejected_endpoint_is_left_alone() {
    for policy in POLICIES {
        let balancer = balancer(policy, 2);
        let now = Instant::now();
        assert_eq!(failed(&balancer, 1, now), Some(SECOND));
        for _ in 0..50 {
            assert_eq!(next(&balancer, now), 2, "{policy}");
        }
        let view = view(&balancer, 1, now);
        assert!(matches!(view.state, EndpointState::Ejected { .. }) && !view.usable);
        assert!(view.ejected_until.is_some());
        assert_eq!(
            (view.failures, view.last_failure.unwrap().error),
            (1, "refused".into())
        );
    }
}

#[test]
fn the_last_endpoint_is_never_ejected() {
    let balancer = balancer(Policy::P2c, 2);
    let now = Instant::now();
    assert!(failed(&balancer, 1, now).is_some());
    assert!(failed(&balancer, 2, now).is_none());
    assert_eq!(next(&balancer, now), 2);
}

#[test]
fn an_ejected_endpoint_is_better_than_none() {
    let balancer = balancer(Policy::P2c, 2);
    let now = Instant::now();
    failed(&balancer, 1, now);
    let choice = balancer.choose(CLIENT, &[address(2)], now).unwrap();
    assert_eq!(choice.address, address(1));
    let both = [address(1), address(2)];
    let none = balancer.choose(CLIENT, &both, now).unwrap_err();
    assert_eq!(none, NoChoice::Exhausted);
}

#[test]
fn when_too_many_are_ejected_all_are_used() {
    for (panic, used) in [(50, 4), (74, 4), (75, 1), (100, 1)] {
        let balancer = with_panic(balancer(Policy::RoundRobin, 4), panic);
        let now = Instant::now();
        for port in 1..=3 {
            assert!(failed(&balancer, port, now).is_some());
        }
        let got: std::collections::HashSet<_> = (0..8).map(|_| next(&balancer, now)).collect();
        assert_eq!(got.len(), used, "beyond {panic} %: {got:?}");
        assert_eq!(view(&balancer, 1, now).usable, used == 4);
    }
}

#[test]
fn one_newcomer_at_a_time_tries_an_endpoint_after_its_ejection() {
    for policy in [Policy::RoundRobin, Policy::LeastConnections] {
        let balancer = balancer(policy, 2);
        let begin = Instant::now();
        let _busy: Vec<_> = (0..9)
            .map(|_| balancer.choose(CLIENT, &[address(1)], begin).unwrap())
            .collect();
        failed(&balancer, 1, begin);
        let now = begin + SECOND;
        let mut held: Vec<_> = (0..9)
            .map(|_| balancer.choose(CLIENT, &[], now).unwrap())
            .collect();
        let tries = |held: &[Choice]| held.iter().filter(|c| c.address == address(1)).count();
        assert_eq!(tries(&held), 1, "{policy}");
        assert_eq!(view(&balancer, 1, now).state, EndpointState::Probing);
        // It goes away without having learnt anything: another one may try.
        held.retain(|choice| choice.address != address(1));
        held.extend((0..9).map(|_| balancer.choose(CLIENT, &[], now).unwrap()));
        assert_eq!(tries(&held), 1, "{policy}");
        assert_eq!(failed(&balancer, 1, now), Some(2 * SECOND));
        held.clear();
        let now = now + 2 * SECOND;
        held.extend((0..9).map(|_| balancer.choose(CLIENT, &[], now).unwrap()));
        assert_eq!(tries(&held), 1, "{policy}");
        balancer.succeeded(address(1), Duration::ZERO, now);
        held.extend((0..9).map(|_| balancer.choose(CLIENT, &[], now).unwrap()));
        assert!(tries(&held) > 1, "{policy}: it is back");
    }
}

#[test]
fn one_that_is_down_gets_nobody_unless_all_are() {
    for policy in POLICIES {
        let balancer = balancer(policy, 3);
        let now = Instant::now();
        health(&balancer, 1, Health::Down);
        health(&balancer, 2, Health::Down);
        for _ in 0..50 {
            assert_eq!(next(&balancer, now), 3, "{policy}");
        }
        assert!(
            balancer.choose(CLIENT, &[address(3)], now).is_err(),
            "not as a last resort"
        );
        assert!(failed(&balancer, 3, now).is_none(), "it is the last one");
        assert_eq!(view(&balancer, 1, now).state, EndpointState::Down);
        health(&balancer, 3, Health::Down);
        let choice = balancer.choose(CLIENT, &[address(3)], now).unwrap();
        assert_ne!(choice.address, address(3));
        assert!(view(&balancer, 1, now).usable);
        health(&balancer, 1, Health::Up);
        assert_eq!(next(&balancer, now), 1, "{policy}");
    }
}

#[test]
fn a_full_endpoint_is_not_chosen() {
    for policy in POLICIES {
        let balancer = balancer(policy, 2);
        let rules = balancer.list.load().rules;
        balancer.configure(Rules { most: 2, ..rules });
        let now = Instant::now();
        let mut held: Vec<_> = (0..4)
            .map(|_| balancer.choose(CLIENT, &[], now).unwrap())
            .collect();
        for port in 1..=2 {
            assert_eq!(view(&balancer, port, now).active, 2, "{policy}");
            assert_eq!(view(&balancer, port, now).state, EndpointState::Full);
        }
        assert_eq!(
            balancer.choose(CLIENT, &[], now).unwrap_err(),
            NoChoice::Full
        );
        assert!(!balancer.has_others(&[], now));
        let freed = held.pop().unwrap().address;
        assert_eq!(balancer.choose(CLIENT, &[], now).unwrap().address, freed);
    }
}

#[test]
fn no_endpoint_has_more_than_it_may_when_many_choose_at_once() {
    let balancer = balancer(Policy::P2c, 3);
    balancer.configure(Rules {
        most: 5,
        ..Rules::default()
    });
    let now = Instant::now();
    let held = std::thread::scope(|scope| {
        let choose = || -> Vec<_> {
            let choices = (0..10).map(|_| balancer.choose(CLIENT, &[], now));
            choices.filter_map(Result::ok).collect()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(choose)).collect();
        let joined = threads.into_iter().flat_map(|t| t.join().unwrap());
        joined.collect::<Vec<_>>()
    });
    assert_eq!(held.len(), 15);
    for port in 1..=3 {
        assert_eq!(view(&balancer, port, now).active, 5);
    }
}

#[tokio::test]
async fn all_who_wait_get_what_is_freed() {
    let balancer = balancer(Policy::P2c, 2);
    balancer.configure(Rules {
        most: 1,
        ..Rules::default()
    });
    let now = Instant::now();
    let held: Vec<_> = (0..2)
        .map(|_| balancer.choose(CLIENT, &[], now).unwrap())
        .collect();
    let one = balancer.choose_when_free(CLIENT, &[]);
    let other = balancer.choose_when_free(CLIENT, &[]);
    let (one, other, ()) = tokio::join!(one, other, async { drop(held) });
    assert_ne!(one.unwrap().address, other.unwrap().address);
    let both = [address(1), address(2)];
    assert!(balancer.choose_when_free(CLIENT, &both).await.is_none());
}

#[test]
fn an_update_keeps_what_stays_and_ignores_emptiness() {
    let balancer = balancer(Policy::P2c, 2);
    let now = Instant::now();
    failed(&balancer, 1, now);
    assert!(balancer.update(&[], now).is_empty());
    let left = balancer.update(&members(&[(3, 1), (1, 7), (3, 1)]), now);
    assert_eq!(left, [address(2)]);
    assert_eq!(next(&balancer, now), 3);
    assert!(!balancer.contains(address(2)));
    assert_eq!(view(&balancer, 1, now).weight.get(), 7);
    assert_eq!(balancer.views(now).len(), 2);
}

fn leaving(on_remove: OnRemove) -> (Balancer, Choice, Instant) {
    let balancer = balancer(Policy::P2c, 1);
    balancer.configure(Rules {
        on_remove,
        ..Rules::default()
    });
    let now = Instant::now();
    let choice = balancer.choose(CLIENT, &[], now).unwrap();
    balancer.update(&members(&[(2, 1)]), now);
    (balancer, choice, now)
}

#[test]
fn flows_of_one_that_left_go_on() {
    let (balancer, choice, now) = leaving(OnRemove::Keep);
    assert_eq!(
        (balancer.next_over(), balancer.over(now)),
        (None, Vec::new())
    );
    assert!(!choice.is_over() && !balancer.contains(address(1)));
    let state = EndpointState::Leaving { until: None };
    assert_eq!(view(&balancer, 1, now).state, state);
    drop(choice);
    assert_eq!(balancer.views(now).len(), 1);
}

#[test]
fn flows_of_one_that_left_end_at_once() {
    let (balancer, choice, now) = leaving(OnRemove::Reset);
    assert_eq!(balancer.next_over(), Some(now));
    assert_eq!(balancer.over(now), [address(1)]);
    assert!(choice.is_over() && !balancer.contains(address(1)));
    assert_eq!(
        (balancer.next_over(), balancer.over(now)),
        (None, Vec::new())
    );
}

#[test]
fn flows_of_one_that_left_end_when_their_time_is_over() {
    let (balancer, choice, now) = leaving(OnRemove::Drain(SECOND));
    assert_eq!(balancer.next_over(), Some(now + SECOND));
    assert_eq!(balancer.over(now), []);
    assert!(!choice.is_over() && balancer.contains(address(1)));
    assert_eq!(balancer.over(now + SECOND), [address(1)]);
    assert!(choice.is_over() && !balancer.contains(address(1)));
}

#[test]
fn one_that_comes_back_in_time_keeps_its_flows() {
    let (balancer, choice, now) = leaving(OnRemove::Drain(SECOND));
    balancer.update(&members(&[(1, 1)]), now);
    assert_eq!(balancer.over(now + SECOND), [address(2)]);
    assert!(!choice.is_over() && balancer.contains(address(1)));
    assert_eq!(view(&balancer, 1, now).active, 1, "the same one");
}

#[test]
fn those_that_left_are_forgotten() {
    let balancer = balancer(Policy::P2c, 1);
    let mut now = Instant::now();
    for port in 2..200 {
        now += SECOND;
        balancer.update(&members(&[(port, 1)]), now);
    }
    assert!(balancer.lock().len() <= 11);
}
