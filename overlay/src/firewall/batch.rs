//! The text of tables and chains.

#[derive(Default)]
pub(super) struct Batch(pub(super) String);

impl Batch {
    fn line(&mut self, depth: usize, text: impl AsRef<str>) {
        self.0.extend(std::iter::repeat_n('\t', depth));
        self.0.push_str(text.as_ref());
        self.0.push('\n');
    }

    /// Replaces a table by one that is filled by `fill`.
    pub(super) fn table(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.line(0, format!("table {name}"));
        self.line(0, format!("delete table {name}"));
        self.line(0, format!("table {name} {{"));
        fill(self);
        self.line(0, "}");
    }

    /// A chain that the kernel calls; what no rule decides passes.
    pub(super) fn chain(&mut self, name: &str, hook: &str, rules: Vec<String>) {
        let mut all = vec![format!("type {hook}; policy accept;")];
        all.extend(rules);
        self.subchain(name, all);
    }

    /// A chain that rules jump to. What is dropped is counted.
    pub(super) fn subchain(&mut self, name: &str, rules: Vec<String>) {
        self.line(1, format!("chain {name} {{"));
        for rule in rules {
            match rule.strip_suffix(" drop") {
                Some(rule) => self.line(2, format!("{rule} counter drop")),
                None => self.line(2, rule),
            }
        }
        self.line(1, "}");
    }
}
