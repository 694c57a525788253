//! Endpoints that are ejected, or down.

use super::*;

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
fn who_chooses_elsewhere_is_told_of_those_that_are_well() {
    let balancer = balancer(Policy::P2c, 2);
    let now = Instant::now();
    assert_eq!(balancer.usable(now), [(address(1), 1), (address(2), 1)]);
    failed(&balancer, 1, now);
    assert_eq!(balancer.usable(now), [(address(2), 1)]);
    // In panic an ejection is not heeded.
    let careless = with_panic(balancer, 0);
    assert_eq!(careless.usable(now), [(address(1), 1), (address(2), 1)]);
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
