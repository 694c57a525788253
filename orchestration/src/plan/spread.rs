//! Which of many hosts is next, so that tasks are spread as a service prefers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::hosts::Host;
use crate::constraint::SpreadKey;
use crate::{Node, Preference};

/// By what a host comes before another: fewer failures of late if they are many, fewer tasks of the service, fewer tasks,
/// less that is reserved, then its id.
type Rank = (u64, u64, u64, u64, usize);

/// A tree of the hosts: a level for each preference, and heaps of hosts as leaves.
pub(super) struct Tree<'a> {
    branches: Vec<Branch<'a>>,
}

#[derive(Default)]
struct Branch<'a> {
    /// Tasks of the service below.
    tasks: u64,
    /// Hosts below that may still have room.
    open: u64,
    children: BTreeMap<&'a str, usize>,
    hosts: BinaryHeap<Reverse<Rank>>,
}

/// What a host brings with it.
pub(super) struct Leaf {
    pub(super) host: usize,
    /// Tasks of the service that it has.
    pub(super) tasks: u64,
    /// How often such tasks failed there of late, if that is often.
    pub(super) failures: u64,
    /// It may be given tasks.
    pub(super) open: bool,
}

/// The levels of a tree.
pub(super) struct Levels(Vec<SpreadKey>);

impl Levels {
    pub(super) fn of(preferences: &[Preference]) -> Self {
        let keys = preferences.iter().filter_map(|p| SpreadKey::of(&p.spread));
        Self(keys.collect())
    }

    pub(super) fn depth(&self) -> usize {
        self.0.len()
    }

    pub(super) fn value<'a>(&self, level: usize, node: &'a Node) -> &'a str {
        self.0[level].value(node)
    }
}

impl<'a> Tree<'a> {
    pub(super) fn new(
        levels: &Levels,
        hosts: &[Host<'a>],
        leaves: impl Iterator<Item = Leaf>,
    ) -> Self {
        let mut tree = Self {
            branches: vec![Branch::default()],
        };
        let mut ranks: Vec<Vec<Reverse<Rank>>> = vec![Vec::new()];
        for leaf in leaves {
            let host = &hosts[leaf.host];
            let mut at = 0;
            tree.branches[at].count(&leaf);
            for level in 0..levels.depth() {
                let value = levels.value(level, host.node);
                let next = tree.branches.len();
                at = *tree.branches[at].children.entry(value).or_insert(next);
                if at == next {
                    tree.branches.push(Branch::default());
                    ranks.push(Vec::new());
                }
                tree.branches[at].count(&leaf);
            }
            if leaf.open {
                ranks[at].push(Reverse(rank(&leaf, host)));
            }
        }
        for (branch, ranks) in tree.branches.iter_mut().zip(ranks) {
            branch.hosts = ranks.into();
        }
        tree
    }

    /// The best host that has room, which counts as having the task from then on; `take` gives it to it, or refuses.
    pub(super) fn next(
        &mut self,
        hosts: &mut [Host<'a>],
        mut take: impl FnMut(&mut Host<'a>) -> bool,
    ) -> Option<usize> {
        loop {
            let path = self.path()?;
            let leaf = *path.last().expect("a path begins at the root");
            let Reverse((failures, tasks, .., at)) = self.branches[leaf].hosts.pop()?;
            let host = &mut hosts[at];
            if !take(host) {
                for branch in path {
                    self.branches[branch].open -= 1;
                }
                continue;
            }
            for branch in path {
                self.branches[branch].tasks += 1;
            }
            let rank = (failures, tasks + 1, host.tasks, host.fullness(), at);
            self.branches[leaf].hosts.push(Reverse(rank));
            return Some(at);
        }
    }

    /// The way to the leaf with the fewest tasks, by the levels in turn.
    fn path(&self) -> Option<Vec<usize>> {
        let mut path = vec![0];
        let mut branch = &self.branches[0];
        if branch.open == 0 {
            return None;
        }
        while !branch.children.is_empty() {
            let children = branch.children.values().copied();
            let next = children
                .filter(|at| self.branches[*at].open > 0)
                .min_by_key(|at| self.branches[*at].tasks)?;
            path.push(next);
            branch = &self.branches[next];
        }
        Some(path)
    }
}

impl Branch<'_> {
    fn count(&mut self, leaf: &Leaf) {
        self.tasks += leaf.tasks;
        self.open += u64::from(leaf.open);
    }
}

fn rank(leaf: &Leaf, host: &Host<'_>) -> Rank {
    (
        leaf.failures,
        leaf.tasks,
        host.tasks,
        host.fullness(),
        leaf.host,
    )
}
