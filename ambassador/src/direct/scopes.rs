//! Which cgroups see the same services, so that these are handed to the kernel once for all of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{Scope, ServiceKey};

/// The services that a cgroup sees.
pub(super) type View = BTreeSet<ServiceKey>;

/// The scope of each cgroup, by the number that the cgroup has in the kernel.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    of: BTreeMap<u64, Scope>,
    last: u64,
}

impl Scopes {
    /// Gives all cgroups of one view one scope, and others another. A scope goes on with those of
    /// its cgroups that are the most, whatever they see then: who only learns of one service more
    /// keeps what is known of the others.
    pub(super) fn follow(&mut self, views: &BTreeMap<u64, &View>) {
        let mut groups: BTreeMap<&View, Vec<u64>> = BTreeMap::new();
        for (cgroup, view) in views {
            groups.entry(view).or_default().push(*cgroup);
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by_key(|group| Reverse(group.len()));
        let mut taken = BTreeSet::new();
        let mut of = BTreeMap::new();
        for group in groups {
            let scope = self.before(&group, &taken).unwrap_or_else(|| self.fresh());
            taken.insert(scope);
            of.extend(group.into_iter().map(|cgroup| (cgroup, scope)));
        }
        self.of = of;
    }

    pub(super) fn of(&self, cgroup: u64) -> Option<Scope> {
        self.of.get(&cgroup).copied()
    }

    /// The scope that most of `group` had, of those that nobody has taken.
    fn before(&self, group: &[u64], taken: &BTreeSet<Scope>) -> Option<Scope> {
        let mut votes: BTreeMap<Scope, usize> = BTreeMap::new();
        for scope in group.iter().filter_map(|cgroup| self.of(*cgroup)) {
            *votes.entry(scope).or_default() += 1;
        }
        votes.retain(|scope, _| !taken.contains(scope));
        let most = votes.into_iter().max_by_key(|(_, votes)| *votes);
        most.map(|(scope, _)| scope)
    }

    fn fresh(&mut self) -> Scope {
        self.last += 1;
        Scope::new(self.last).expect("it counts from 1")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;
    use crate::Protocol;

    fn view(ports: impl IntoIterator<Item = u16>) -> View {
        let service = |port| {
            let address = ([192, 0, 2, 1], port).into();
            ServiceKey::new(Protocol::Tcp, address).unwrap()
        };
        ports.into_iter().map(service).collect()
    }

    fn follow(scopes: &mut Scopes, views: &BTreeMap<u64, View>) {
        scopes.follow(&views.iter().map(|(cgroup, view)| (*cgroup, view)).collect());
    }

    #[test]
    fn a_group_keeps_its_scope_though_it_sees_more() {
        let mut scopes = Scopes::default();
        let both = BTreeMap::from([(1, view([80])), (2, view([80]))]);
        follow(&mut scopes, &both);
        let first = scopes.of(1);
        let more = BTreeMap::from([(1, view([80, 81])), (2, view([80, 81])), (3, view([80]))]);
        follow(&mut scopes, &more);
        assert_eq!((scopes.of(1), scopes.of(2)), (first, first));
        assert_ne!(scopes.of(3), first);
        follow(&mut scopes, &BTreeMap::from([(2, view([]))]));
        assert_eq!((scopes.of(1), scopes.of(2)), (None, first));
    }

    #[test]
    fn who_parts_from_most_gets_another() {
        let mut scopes = Scopes::default();
        let alike = (1..=3).map(|cgroup| (cgroup, view([80]))).collect();
        follow(&mut scopes, &alike);
        let first = scopes.of(1);
        let apart = BTreeMap::from([(1, view([81])), (2, view([80])), (3, view([80]))]);
        follow(&mut scopes, &apart);
        assert_ne!(scopes.of(1), first);
        assert_eq!((scopes.of(2), scopes.of(3)), (first, first));
    }

    proptest! {
        #[test]
        fn one_scope_for_one_view(
            rounds in prop::collection::vec(
                prop::collection::btree_map(1_u64..9, prop::collection::btree_set(80_u16..83, 0..3), 0..8),
                1..12,
            )
        ) {
            let mut scopes = Scopes::default();
            for round in rounds {
                let views: BTreeMap<u64, View> =
                    round.into_iter().map(|(cgroup, ports)| (cgroup, view(ports))).collect();
                follow(&mut scopes, &views);
                for (one, sees) in &views {
                    for (other, too) in &views {
                        prop_assert!(scopes.of(*one).is_some());
                        prop_assert_eq!(scopes.of(*one) == scopes.of(*other), sees == too);
                    }
                }
            }
        }
    }
}
