//! Columns of text, as Docker sets them.

/// Widths that Docker's tables have.
const LEAST: usize = 10;
const GAP: usize = 3;

/// `rows` under `headers`, in columns; the last one is not padded.
pub(super) fn table(headers: &[impl AsRef<str>], rows: &[Vec<String>]) -> String {
    let headers: Vec<String> = headers
        .iter()
        .map(|header| header.as_ref().to_owned())
        .collect();
    let all = || std::iter::once(&headers).chain(rows);
    let width = |column: usize| {
        let longest = all()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max();
        (longest.unwrap_or(0) + GAP).max(LEAST)
    };
    let widths: Vec<usize> = (0..headers.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    all().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let rows = [
            vec!["a".to_owned(), "x".to_owned()],
            vec!["a long name, ü".to_owned(), String::new()],
        ];
        let expected = "NAME             X\na                x\na long name, ü\n";
        assert_eq!(table(&["NAME", "X"], &rows), expected);
    }
}
