//! Lists: as a table, as JSON, by a template, or just the ids.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::output::{line, write_out};
use super::parse::Filter;
use super::table::table;
use super::template::{LABELS, Template};

/// What a list may show.
pub(super) struct List {
    /// Fields and their headers.
    pub(super) fields: &'static [(&'static str, &'static str)],
    /// The fields of the table, unless the user says otherwise.
    pub(super) columns: Vec<&'static str>,
    pub(super) rows: Vec<Map<String, Value>>,
}

impl List {
    /// Prints it: `format` is `table`, `table TEMPLATE`, `json` or a template.
    ///
    /// # Errors
    ///
    /// Templates that are none or name what is not there.
    pub(super) fn print(&self, format: Option<&str>) -> anyhow::Result<()> {
        match format.unwrap_or("table") {
            "table" => self.print_columns(),
            "json" => self.rows.iter().try_for_each(|row| {
                let mut row = row.clone();
                row.remove(LABELS);
                line(&Value::Object(row).to_string())
            }),
            format => match format.strip_prefix("table ") {
                Some(template) => self.print_table(&Template::parse(template)?),
                None => {
                    let template = Template::parse(format)?;
                    self.rows
                        .iter()
                        .try_for_each(|row| line(&template.render(&Value::Object(row.clone()))?))
                }
            },
        }
    }

    /// Prints one field of each row.
    ///
    /// # Errors
    ///
    /// A standard output that is closed.
    pub(super) fn print_field(&self, field: &str) -> anyhow::Result<()> {
        self.rows.iter().try_for_each(|row| line(&cell(row, field)))
    }

    fn print_columns(&self) -> anyhow::Result<()> {
        let headers: Vec<&str> = self
            .columns
            .iter()
            .map(|field| self.header(field))
            .collect();
        let cells = |row| self.columns.iter().map(|field| cell(row, field)).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(cells).collect();
        write_out(table(&headers, &rows).as_bytes())
    }

    fn print_table(&self, template: &Template) -> anyhow::Result<()> {
        let names = self
            .fields
            .iter()
            .map(|(field, header)| (*field, (*header).to_owned()));
        let names = names.map(|(field, header)| (field.to_owned(), Value::String(header)));
        let headers = template.render_headers(&names.collect())?;
        let headers: Vec<&str> = headers.split('\t').collect();
        let mut rows = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let text = template.render(&Value::Object(row.clone()))?;
            rows.push(text.split('\t').map(str::to_owned).collect());
        }
        write_out(table(&headers, &rows).as_bytes())
    }

    fn header<'a>(&'a self, field: &'a str) -> &'a str {
        self.fields
            .iter()
            .find(|(name, _)| *name == field)
            .map_or(field, |(_, header)| header)
    }
}

fn cell(row: &Map<String, Value>, field: &str) -> String {
    match row.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    }
}

/// A row from its fields.
pub(super) fn row<const N: usize>(fields: [(&str, String); N]) -> Map<String, Value> {
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::String(value)))
        .collect()
}

/// The row with its labels, as `Labels` and for `.Label`.
pub(super) fn labelled(
    mut row: Map<String, Value>,
    labels: impl IntoIterator<Item = (String, String)>,
) -> Map<String, Value> {
    let labels: BTreeMap<String, String> = labels.into_iter().collect();
    let pairs = labels.iter().map(|(key, value)| format!("{key}={value}"));
    let text = pairs.collect::<Vec<_>>().join(",");
    row.insert("Labels".to_owned(), Value::String(text));
    let map = labels.into_iter().map(|(key, value)| (key, value.into()));
    row.insert(LABELS.to_owned(), Value::Object(map.collect()));
    row
}

/// What `--filter` says as the API wants it: a JSON object of lists.
pub(super) fn filters(given: &[Filter]) -> Option<String> {
    let mut filters = Map::new();
    let nothing = Filter::new("", "");
    for Filter { key, value } in given.iter().filter(|filter| **filter != nothing) {
        let values = filters
            .entry(key.clone())
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = values {
            values.push(Value::String(value.clone()));
        }
    }
    (!filters.is_empty()).then(|| Value::Object(filters).to_string())
}
