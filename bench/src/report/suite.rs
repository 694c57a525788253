//! What is measured together, and written into one part of the documentation.

use super::figures::{DIRECT, FIGURES, Figure, PATHS, Path, RELAY};
use super::targets::{TARGETS, Target};
use super::{overlay, runtime};

/// Figures, the paths they are measured on, and what is wanted of them.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) id: &'static str,
    pub(crate) figures: &'static [Figure],
    pub(crate) paths: &'static [Path],
    pub(crate) targets: &'static [Target],
    /// The path that all others are compared with.
    pub(crate) base: &'static str,
    /// The path that is compared with each peer.
    pub(crate) ours: &'static str,
    pub(crate) ours_label: &'static str,
    /// The lines of the documentation between which it is written.
    pub(crate) begin: &'static str,
    pub(crate) end: &'static str,
    /// The file that shows the medians as bars.
    pub(crate) drawing: &'static str,
}

pub(crate) const AMBASSADOR: Suite = Suite {
    id: "ambassador",
    figures: &FIGURES,
    paths: &PATHS,
    targets: &TARGETS,
    base: DIRECT,
    ours: RELAY,
    ours_label: "The relay",
    begin: "<!-- measured: begin (written by `make bench`) -->\n",
    end: "<!-- measured: end -->\n",
    drawing: "latest.svg",
};

const RUNTIME: Suite = Suite {
    id: "runtime",
    figures: &runtime::FIGURES,
    paths: &runtime::PATHS,
    targets: &runtime::TARGETS,
    base: runtime::DOCKER,
    ours: runtime::NUNCIO,
    ours_label: "nuncio",
    begin: "<!-- runtime measured: begin (written by `make bench`) -->\n",
    end: "<!-- runtime measured: end -->\n",
    drawing: "latest-runtime.svg",
};

const OVERLAY: Suite = Suite {
    id: "overlay",
    figures: &overlay::FIGURES,
    paths: &overlay::PATHS,
    targets: &overlay::TARGETS,
    base: overlay::VXLAN,
    ours: overlay::OVERLAY,
    ours_label: "The overlay",
    begin: "<!-- overlay measured: begin (written by `make bench`) -->\n",
    end: "<!-- overlay measured: end -->\n",
    drawing: "latest-overlay.svg",
};

pub(crate) static SUITES: [Suite; 3] = [AMBASSADOR, RUNTIME, OVERLAY];

impl Suite {
    /// The suite of that name, or which there are.
    pub(crate) fn named(name: &str) -> Result<&'static Self, String> {
        let found = SUITES.iter().find(|suite| suite.id == name);
        found.ok_or_else(|| {
            format!(
                "there are: {}",
                SUITES.each_ref().map(|suite| suite.id).join(", ")
            )
        })
    }

    pub(crate) fn figure(&self, id: &str) -> Option<&'static Figure> {
        self.figures.iter().find(|figure| figure.id == id)
    }

    pub(crate) fn path(&self, id: &str) -> Option<&'static Path> {
        self.paths.iter().find(|path| path.id == id)
    }

    /// The file that a run of that time is written to.
    pub(crate) fn results(&self, stamp: &str) -> String {
        match self.id {
            "ambassador" => format!("{stamp}.json"),
            id => format!("{stamp}-{id}.json"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_name_what_there_is() {
        for suite in &SUITES {
            for target in suite.targets {
                assert!(suite.figure(target.figure).is_some(), "{target:?}");
                for path in target.against.iter().chain([&target.path]) {
                    assert!(suite.path(path).is_some(), "{target:?}");
                }
            }
            assert!(suite.path(suite.base).is_some() && suite.path(suite.ours).is_some());
        }
    }
}
