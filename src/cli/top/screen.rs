//! What is chosen on the screen, and what keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::rows::{Row, Snapshot, Tab};

/// Letters of a filter.
const LONGEST_FILTER: usize = 64;

/// What one looks at.
#[derive(Clone, Debug)]
struct Place {
    tab: Tab,
    /// Only what belongs to it, and how that is called.
    of: Option<(String, String)>,
    /// What is chosen, by the key of its line.
    chosen: Option<String>,
}

/// The screen's state.
pub(super) struct Screen {
    snapshot: Snapshot,
    /// What came last; not shown while paused.
    latest: Snapshot,
    /// The last is looked at, the others are gone back to.
    places: Vec<Place>,
    /// For each list the column by which it is sorted, and whether downwards.
    sorted: [(usize, bool); Tab::ALL.len()],
    pub(super) filter: String,
    pub(super) typing: bool,
    pub(super) paused: bool,
    pub(super) help: bool,
}

/// What is to be done after a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Then {
    Draw,
    Quit,
}

impl Screen {
    pub(super) fn new() -> Self {
        let first = Place {
            tab: Tab::Containers,
            of: None,
            chosen: None,
        };
        Self {
            snapshot: Snapshot::default(),
            latest: Snapshot::default(),
            places: vec![first],
            sorted: [(0, false), (2, true), (4, true), (4, true)],
            filter: String::new(),
            typing: false,
            paused: false,
            help: false,
        }
    }

    pub(super) fn update(&mut self, snapshot: Snapshot) {
        self.latest = snapshot;
        if !self.paused {
            self.snapshot = self.latest.clone();
        }
    }

    fn place(&self) -> &Place {
        self.places.last().expect("the first is never left")
    }

    fn place_mut(&mut self) -> &mut Place {
        self.places.last_mut().expect("the first is never left")
    }

    pub(super) fn tab(&self) -> Tab {
        self.place().tab
    }

    /// How that is called to which what is shown belongs.
    pub(super) fn scope(&self) -> Option<&str> {
        self.place().of.as_ref().map(|(_, name)| name.as_str())
    }

    /// The column by which the list is sorted, and whether downwards.
    pub(super) fn sorted(&self) -> (usize, bool) {
        self.sorted[self.tab() as usize]
    }

    /// The lines that are shown, in their order.
    pub(super) fn rows(&self) -> Vec<Row> {
        let place = self.place();
        let mut rows = self.snapshot.rows(place.tab);
        if let Some((of, _)) = &place.of {
            rows.retain(|row| row.belongs.contains(of));
        }
        let wanted = self.filter.to_lowercase();
        rows.retain(|row| {
            let mut cells = row.cells.iter();
            wanted.is_empty() || cells.any(|cell| cell.shown().to_lowercase().contains(&wanted))
        });
        let (column, down) = self.sorted();
        rows.sort_by(|a, b| {
            let order = a.cells[column].order(&b.cells[column]);
            let order = if down { order.reverse() } else { order };
            order.then_with(|| a.key.cmp(&b.key))
        });
        rows
    }

    /// Which line is chosen.
    pub(super) fn chosen(&self, rows: &[Row]) -> usize {
        let key = self.place().chosen.as_ref();
        let found = key.and_then(|key| rows.iter().position(|row| row.key == *key));
        found.unwrap_or_default()
    }

    pub(super) fn key(&mut self, key: KeyEvent, page: usize) -> Then {
        if key.kind == KeyEventKind::Release {
            return Then::Draw;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Then::Quit;
        }
        if self.typing {
            self.type_filter(key.code);
        } else if self.help {
            self.help = false; // whatever is pressed
        } else if key.code == KeyCode::Char('q') {
            return Then::Quit;
        } else {
            self.command(key.code, page);
        }
        Then::Draw
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) if self.filter.chars().count() < LONGEST_FILTER => {
                self.filter.push(letter);
            }
            _ => {}
        }
    }

    fn command(&mut self, code: KeyCode, page: usize) {
        let at = self.tab() as usize;
        let count = Tab::ALL.len();
        match code {
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('p' | ' ') => {
                self.paused = !self.paused;
                if !self.paused {
                    self.snapshot = self.latest.clone();
                }
            }
            KeyCode::Tab => self.go_to(Tab::ALL[(at + 1) % count]),
            KeyCode::BackTab => self.go_to(Tab::ALL[(at + count - 1) % count]),
            KeyCode::Char(digit @ '1'..='4') => {
                self.go_to(Tab::ALL[digit as usize - '1' as usize]);
            }
            KeyCode::Right | KeyCode::Char('>') => self.sort_by(1),
            KeyCode::Left | KeyCode::Char('<') => self.sort_by(self.tab().columns().len() - 1),
            KeyCode::Char('r') => self.sorted[at].1 = !self.sorted[at].1,
            KeyCode::Down | KeyCode::Char('j') => self.choose(|line| line + 1),
            KeyCode::Up | KeyCode::Char('k') => self.choose(|line| line.saturating_sub(1)),
            KeyCode::PageDown => self.choose(|line| line + page),
            KeyCode::PageUp => self.choose(|line| line.saturating_sub(page)),
            KeyCode::Home => self.choose(|_| 0),
            KeyCode::End => self.choose(|_| usize::MAX),
            KeyCode::Enter => self.enter(),
            KeyCode::Esc | KeyCode::Backspace => self.back(),
            _ => {}
        }
    }

    fn go_to(&mut self, tab: Tab) {
        self.places = vec![Place {
            tab,
            of: None,
            chosen: None,
        }];
    }

    fn sort_by(&mut self, further: usize) {
        let count = self.tab().columns().len();
        let (column, _) = &mut self.sorted[self.place().tab as usize];
        *column = (*column + further) % count;
    }

    fn choose(&mut self, line: impl FnOnce(usize) -> usize) {
        let rows = self.rows();
        let line = line(self.chosen(&rows)).min(rows.len().saturating_sub(1));
        self.place_mut().chosen = rows.get(line).map(|row| row.key.clone());
    }

    /// Goes to what belongs to the chosen line.
    fn enter(&mut self) {
        let rows = self.rows();
        let Some(row) = rows.get(self.chosen(&rows)) else {
            return;
        };
        let (tab, name) = match self.tab() {
            Tab::Hosts => (Tab::Containers, 0),
            Tab::Containers => (Tab::Links, 1),
            Tab::Links => (Tab::Flows, 3),
            Tab::Flows => return,
        };
        let of = (row.key.clone(), row.cells[name].shown().to_owned());
        self.place_mut().chosen = Some(row.key.clone());
        self.filter.clear();
        self.places.push(Place {
            tab,
            of: Some(of),
            chosen: None,
        });
    }

    /// Goes back to where that was chosen; else what is filtered is shown again.
    fn back(&mut self) {
        if self.filter.is_empty() && self.places.len() > 1 {
            self.places.pop();
        }
        self.filter.clear();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::rows::tests::snapshot;
    use super::*;

    pub(in crate::cli::top) fn screen() -> Screen {
        let mut screen = Screen::new();
        screen.update(snapshot());
        screen
    }

    pub(in crate::cli::top) fn press(screen: &mut Screen, keys: &[KeyCode]) {
        for &key in keys {
            assert_eq!(screen.key(key.into(), 10), Then::Draw, "{key:?}");
        }
    }

    fn names(screen: &Screen, column: usize) -> Vec<String> {
        let rows = screen.rows();
        rows.iter()
            .map(|row| row.cells[column].shown().to_owned())
            .collect()
    }

    #[test]
    fn lists_are_sorted_by_any_column_both_ways() {
        let mut screen = screen();
        press(&mut screen, &[KeyCode::Right]); // by memory, downwards
        assert_eq!(names(&screen, 1), ["api", "web"]);
        press(&mut screen, &[KeyCode::Char('r')]);
        assert_eq!(names(&screen, 1), ["web", "api"]);
        press(&mut screen, &[KeyCode::Left, KeyCode::Left]); // by name, upwards
        assert_eq!(names(&screen, 1), ["api", "web"]);
        for _ in 0..30 {
            press(&mut screen, &[KeyCode::Right]);
            assert_eq!(screen.rows().len(), 2);
        }
    }

    #[test]
    fn one_goes_down_from_a_host_to_its_flows_and_back() {
        let mut screen = screen();
        press(&mut screen, &[KeyCode::Char('1'), KeyCode::Enter]);
        assert_eq!(
            (screen.tab(), screen.scope()),
            (Tab::Containers, Some("host-1"))
        );
        press(
            &mut screen,
            &[KeyCode::Char('/'), KeyCode::Char('W'), KeyCode::Enter],
        );
        assert_eq!(names(&screen, 1), ["web"]);
        press(&mut screen, &[KeyCode::Enter]);
        assert_eq!((screen.tab(), screen.scope()), (Tab::Links, Some("web")));
        press(&mut screen, &[KeyCode::Enter]);
        assert_eq!((screen.tab(), screen.scope()), (Tab::Flows, Some("db")));
        assert_eq!(screen.rows().len(), 1);
        press(
            &mut screen,
            &[KeyCode::Enter, KeyCode::Esc, KeyCode::Esc, KeyCode::Esc],
        );
        assert_eq!((screen.tab(), screen.scope()), (Tab::Hosts, None));
        press(&mut screen, &[KeyCode::Down, KeyCode::Enter]);
        assert!(screen.rows().is_empty(), "host-2 says nothing");
        press(
            &mut screen,
            &[KeyCode::Enter, KeyCode::Down, KeyCode::End, KeyCode::PageUp],
        );
        assert_eq!(screen.key(KeyCode::Char('q').into(), 10), Then::Quit);
    }

    #[test]
    fn nothing_moves_while_it_is_paused_and_q_is_a_letter_in_a_filter() {
        let mut screen = screen();
        press(&mut screen, &[KeyCode::Char('p')]);
        screen.update(Snapshot::default());
        assert_eq!(screen.rows().len(), 2);
        press(&mut screen, &[KeyCode::Char('p')]);
        assert!(screen.rows().is_empty());
        press(&mut screen, &[KeyCode::Char('/'), KeyCode::Char('q')]);
        assert_eq!(screen.filter, "q");
        let end = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(screen.key(end, 10), Then::Quit);
    }
}
