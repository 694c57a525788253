//! How the screen looks.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{
    Block, Cell as Shown, Clear, Paragraph, Row as Drawn, Table, TableState, Tabs,
};

use super::rows::{Cell, Row, Tab};
use super::screen::Screen;

/// The widest that a column is made; what is longer is cut.
const WIDEST: usize = 40;

const HELP: &str = "\
1 2 3 4, Tab     hosts, containers, links, flows
up, down, j, k   choose a line
Enter            what belongs to it: a host's containers,
                 a container's links, a link's flows
Esc, Backspace   back
left, right      sort by another column
r                sort the other way round
/                show what has these letters; Esc: all
p, space         pause
q, ctrl-c        quit

Any key goes on.";

pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let whole = [
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ];
    let [head, list, foot] = Layout::vertical(whole).areas(frame.area());
    let tabs = Tab::ALL.iter().zip(1..);
    let tabs = tabs.map(|(tab, number)| format!("{number} {}", tab.title()));
    let tabs = Tabs::new(tabs).select(screen.tab() as usize);
    let chosen = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_widget(tabs.highlight_style(chosen), head);
    let rows = screen.rows();
    draw_list(frame, screen, &rows, list);
    frame.render_widget(Line::from(status(screen, &rows)), foot);
    if screen.help {
        draw_help(frame);
    }
}

fn draw_list(frame: &mut Frame<'_>, screen: &Screen, rows: &[Row], area: Rect) {
    let columns = screen.tab().columns();
    let (sorted, down) = screen.sorted();
    let titles = columns.iter().enumerate().map(|(at, (_, title))| {
        let arrow = match (at == sorted, down) {
            (false, _) => "",
            (true, true) => "↓",
            (true, false) => "↑",
        };
        format!("{title}{arrow}")
    });
    let titles: Vec<String> = titles.collect();
    let widths = fit(&titles, rows, usize::from(area.width));
    let shown = widths.len();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let header = Drawn::new(titles.into_iter().take(shown)).style(bold);
    let lines = rows.iter().map(|row| {
        let cells = row.cells.iter().zip(&widths).map(|(cell, width)| {
            Shown::new(match cell {
                Cell::Number(_, text) => format!("{text:>width$}"),
                cell => cell.shown().to_owned(),
            })
        });
        Drawn::new(cells)
    });
    let constraints = widths
        .iter()
        .map(|width| Constraint::Length(u16::try_from(*width).unwrap_or(u16::MAX)));
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    let table = Table::new(lines, constraints)
        .header(header)
        .row_highlight_style(reversed);
    let mut state =
        TableState::new().with_selected((!rows.is_empty()).then(|| screen.chosen(rows)));
    frame.render_stateful_widget(table, area, &mut state);
}

/// The widths of as many columns as have room, one letter between each two; the last of them may be cut.
fn fit(titles: &[String], rows: &[Row], room: usize) -> Vec<usize> {
    let mut widths = Vec::new();
    let mut left = room;
    for (at, title) in titles.iter().enumerate() {
        let cells = rows.iter().map(|row| row.cells[at].shown().chars().count());
        let width = cells
            .chain([title.chars().count()])
            .max()
            .unwrap_or_default();
        let width = width.min(WIDEST);
        let (gap, least) = (usize::from(at > 0), width.min(6));
        if left < gap + least {
            break;
        }
        let width = width.min(left - gap);
        left -= gap + width;
        widths.push(width);
    }
    widths
}

fn status(screen: &Screen, rows: &[Row]) -> String {
    let mut parts = Vec::new();
    if let Some(scope) = screen.scope() {
        parts.push(format!("of {scope}"));
    }
    match (screen.typing, screen.filter.is_empty()) {
        (true, _) => parts.push(format!("/{}_", screen.filter)),
        (false, false) => parts.push(format!("/{}", screen.filter)),
        (false, true) => {}
    }
    if screen.paused {
        parts.push("paused".to_owned());
    }
    let lines = if rows.len() == 1 { "line" } else { "lines" };
    parts.push(format!("{} {lines}", rows.len()));
    parts.push("? help  q quit".to_owned());
    parts.join("  ")
}

fn draw_help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let lines = u16::try_from(HELP.lines().count()).unwrap_or(u16::MAX);
    let (width, height) = (60.min(area.width), (lines + 2).min(area.height));
    let place = Rect::new(
        (area.width - width) / 2,
        (area.height - height) / 2,
        width,
        height,
    );
    frame.render_widget(Clear, place);
    let help = Paragraph::new(HELP).block(Block::bordered().title(" nuncio top "));
    frame.render_widget(help, place);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;

    use super::super::screen::tests::{press, screen};
    use super::*;

    fn drawn(screen: &Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(frame, screen)).expect("drawn");
        let buffer = terminal.backend().buffer().clone();
        let symbols = buffer.content().iter().map(ratatui::buffer::Cell::symbol);
        let cells: Vec<&str> = symbols.collect();
        let lines = cells.chunks(width.into());
        lines
            .map(|line| line.concat().trim_end().to_owned())
            .collect()
    }

    #[test]
    fn containers_on_a_screen_of_eighty_by_twenty_four() {
        let lines = drawn(&screen(), 80, 24);
        assert_eq!(lines[0], " 1 Hosts │ 2 Containers │ 3 Links │ 4 Flows");
        assert_eq!(
            lines[1],
            "HOST   NAME CPU %↓ MEMORY MEM % NET IN NET OUT READ WRITTEN PIDS"
        );
        assert_eq!(
            lines[2],
            "host-1 web     0.0   1MiB   0.1  1.5kB     10B   0B      0B    2"
        );
        assert_eq!(lines[23], "2 lines  ? help  q quit");
    }

    #[test]
    fn the_foot_tells_what_is_shown_and_help_stands_over_all() {
        let mut screen = screen();
        press(
            &mut screen,
            &[
                KeyCode::Char('1'),
                KeyCode::Enter,
                KeyCode::Char('p'),
                KeyCode::Char('/'),
                KeyCode::Char('x'),
            ],
        );
        let lines = drawn(&screen, 80, 24);
        assert_eq!(lines[23], "of host-1  /x_  paused  0 lines  ? help  q quit");
        press(&mut screen, &[KeyCode::Esc, KeyCode::Char('?')]);
        let lines = drawn(&screen, 80, 24).join("\n");
        assert!(
            lines.contains("a container's links, a link's flows"),
            "{lines}"
        );
        press(&mut screen, &[KeyCode::Char('x')]);
        assert!(!screen.help);
    }

    #[test]
    fn every_size_can_be_drawn_and_what_has_no_room_is_left_out() {
        let mut screen = screen();
        for tab in ['1', '2', '3', '4'] {
            press(&mut screen, &[KeyCode::Char(tab)]);
            for (width, height) in [(1, 1), (7, 3), (20, 5), (40, 10), (200, 60)] {
                assert_eq!(drawn(&screen, width, height).len(), usize::from(height));
            }
            press(&mut screen, &[KeyCode::Char('?')]);
            drawn(&screen, 10, 4);
            press(&mut screen, &[KeyCode::Char('?')]);
        }
        let lines = drawn(&screen, 24, 5);
        assert_eq!(lines[1], "HOST   FORWARD");
    }
}
