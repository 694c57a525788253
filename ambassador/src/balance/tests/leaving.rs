//! Endpoints that leave the set, and those that stay.

use super::*;

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
