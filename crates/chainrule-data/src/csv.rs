//! Tables of text: values in columns, one of them the target.

use crate::Dataset;
use ::csv::{ErrorKind, ReaderBuilder, StringRecord, Terminator};
use chainrule_tensor::{
    Error, Result, Scalar, Tensor,
    text::{self, quote},
};
use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
};

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// By its place, from 0.
    At(usize),
    /// By its name in the header.
    Named(String),
    /// The last one.
    Last,
}

impl From<usize> for Column {
    fn from(place: usize) -> Self {
        Self::At(place)
    }
}

impl From<&str> for Column {
    fn from(name: &str) -> Self {
        Self::Named(name.to_owned())
    }
}

/// How to read a table with a target column; every other column holds values.
///
/// ```
/// use chainrule_data::Csv;
/// let text = "length,width,species\n5.1,3.5,setosa\n7.0,3.2,versicolor\n";
/// let flowers = Csv::new().classes::<f32>(text.as_bytes(), "species")?;
/// assert_eq!((flowers.len(), flowers.class_names()), (2, &["setosa".to_string(), "versicolor".into()][..]));
/// let text = Csv::new().values::<f32>("a,b\n1,2\n1,x\n".as_bytes(), "a").unwrap_err().to_string();
/// assert_eq!(text, "csv: line 3, column 2 (b): expected a finite number, got `x`");
/// # Ok::<(), chainrule_data::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Csv {
    header: bool,
    delimiter: u8,
    class_names: Vec<String>,
}

impl Default for Csv {
    fn default() -> Self {
        Self { header: true, delimiter: b',', class_names: Vec::new() }
    }
}

impl Csv {
    /// Commas, and a first line of names.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the first line holds names (default: yes).
    #[must_use]
    pub fn header(mut self, header: bool) -> Self {
        self.header = header;
        self
    }

    /// What stands between two fields (default: a comma).
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// The classes, in order, so that a second file gets the indices of the first; any other label is an error.
    /// By default the classes are the labels of the file, sorted: as numbers if all are, and then 1, 1.0 and 01 are one class.
    #[must_use]
    pub fn class_names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.class_names = names.into_iter().map(Into::into).collect();
        self
    }

    /// Reads a table whose `target` column holds a class for each row.
    ///
    /// # Shapes
    /// `x` (rows, columns − 1)
    ///
    /// # Errors
    /// A field that is not a finite number, a row of another length, a quoted field that does not end on its line, an unknown
    /// target column or class (with line and column), two columns of one name, no rows, no feature, or a source that fails.
    pub fn classes<T: Scalar>(&self, source: impl Read, target: impl Into<Column>) -> Result<Dataset<T>> {
        let mut labels = Vec::new();
        let x = self.read(source, &target.into(), |cell, place| {
            if cell.is_empty() {
                return Err(place("a class", cell));
            }
            if !self.class_names.is_empty() && !self.class_names.iter().any(|n| n == cell) {
                return Err(place("a known class", cell));
            }
            labels.push(cell.to_owned());
            Ok(())
        })?;
        let (names, labels) = match &self.class_names[..] {
            [] => classes_of(&labels),
            names => {
                let place =
                    |l: &String| names.iter().position(|n| n == l).expect("looked up when it was read");
                (names.to_vec(), labels.iter().map(place).collect())
            }
        };
        Dataset::classification(x, labels, names.len())?.with_class_names(names)
    }

    /// Reads a table whose `target` column holds the value to be predicted.
    ///
    /// # Shapes
    /// `x` (rows, columns − 1), `values` (rows, 1)
    ///
    /// # Errors
    /// As [`Csv::classes`].
    pub fn values<T: Scalar>(&self, source: impl Read, target: impl Into<Column>) -> Result<Dataset<T>> {
        let mut values = Vec::new();
        let x = self.read(source, &target.into(), |cell, place| {
            values.push(number(cell).ok_or_else(|| place(NUMBER, cell))?);
            Ok(())
        })?;
        Dataset::regression(x, Tensor::from_vec([values.len(), 1], values)?)
    }

    /// The features; each cell of the target column goes to `take`, with a maker of errors that knows the place.
    fn read<T: Scalar>(
        &self,
        source: impl Read,
        target: &Column,
        mut take: impl FnMut(&str, &dyn Fn(&str, &str) -> Error) -> Result<()>,
    ) -> Result<Tensor<T>> {
        // Lines end with \n, the last one too, and a \r before it is trimmed: so every line can be counted, and a quote that is
        // left open is seen by the line's end inside its field.
        let mut reader = ReaderBuilder::new()
            .has_headers(self.header)
            .delimiter(self.delimiter)
            .terminator(Terminator::Any(b'\n'))
            .flexible(true)
            .from_reader(source.chain(&b"\n"[..]));
        let mut names = StringRecord::new();
        if self.header {
            names.clone_from(reader.headers().map_err(|e| failed(e, 1))?);
            check_quotes(&names, &StringRecord::new(), 1)?;
            names.trim();
            check_names(&names)?;
        }
        let mut record = StringRecord::new();
        let (mut x, mut rows, mut columns) = (Vec::new(), 0, names.len());
        let mut place_of_target = None;
        loop {
            let more = reader.read_record(&mut record);
            let line = reader.position().line() - 1;
            if !more.map_err(|e| failed(e, line))? {
                break;
            }
            let first = record.position().map_or(line, |start| start.line());
            check_quotes(&record, &names, first)?;
            record.trim();
            if record.len() == 1 && record[0].is_empty() {
                continue; // a blank line
            }
            if columns == 0 {
                columns = record.len();
            }
            if record.len() != columns {
                let text = format!("csv: line {line}: expected {columns} columns, got {}", record.len());
                return Err(Error::format(text));
            }
            let target = match place_of_target {
                Some(place) => place,
                None => *place_of_target.insert(find(target, &names, columns, self.header)?),
            };
            for (column, cell) in record.iter().enumerate() {
                let place = |expected: &str, got: &str| {
                    let (name, column, got) = (label(&names, column), column + 1, quote(got));
                    Error::format(format!(
                        "csv: line {line}, column {column}{name}: expected {expected}, got {got}"
                    ))
                };
                if column == target {
                    take(cell, &place)?;
                } else {
                    x.push(number(cell).ok_or_else(|| place(NUMBER, cell))?);
                }
            }
            rows += 1;
        }
        let width = columns.saturating_sub(1);
        Tensor::from_vec([rows, width], x)
    }
}

const NUMBER: &str = "a finite number";

fn number<T: Scalar>(cell: &str) -> Option<T> {
    cell.parse::<f64>().ok().map(T::from_f64).filter(|v| v.is_finite())
}

/// The names of the classes in order, and the class of each label.
fn classes_of(labels: &[String]) -> (Vec<String>, Vec<usize>) {
    let numbers: Option<Vec<String>> = labels.iter().map(|l| canonical(l)).collect();
    let keys = numbers.as_deref().unwrap_or(labels);
    // A class is named by its label, or by the number if it is written in several ways.
    let mut classes: BTreeMap<&str, &str> = BTreeMap::new();
    for (key, label) in keys.iter().zip(labels) {
        let name = classes.entry(key).or_insert(label);
        if *name != label {
            *name = key;
        }
    }
    let mut sorted: Vec<(&str, &str)> = classes.into_iter().collect();
    if numbers.is_some() {
        let value = |key: &str| key.parse::<f64>().unwrap_or(0.0);
        sorted.sort_by(|a, b| value(a.0).total_cmp(&value(b.0)));
    }
    let indices: HashMap<&str, usize> = sorted.iter().enumerate().map(|(i, (key, _))| (*key, i)).collect();
    let classes = keys.iter().map(|key| indices[key.as_str()]).collect();
    (sorted.iter().map(|(_, name)| (*name).to_owned()).collect(), classes)
}

/// The one way of writing a finite number: `01`, `1.0` and `1e0` are `1`. Digits are kept as they are, however many.
fn canonical(label: &str) -> Option<String> {
    let value = label.parse::<f64>().ok().filter(|v| v.is_finite())?;
    let digits = label.strip_prefix(['-', '+']).unwrap_or(label);
    let shown;
    let digits = if digits.contains(['e', 'E']) {
        shown = value.abs().to_string();
        &shown
    } else {
        digits
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let sign = if label.starts_with('-') && !(whole.is_empty() && fraction.is_empty()) { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

/// Whether every quoted field ends on its line.
fn check_quotes(record: &StringRecord, names: &StringRecord, line: u64) -> Result<()> {
    match record.iter().position(|cell| cell.contains('\n')) {
        None => Ok(()),
        Some(column) => Err(Error::format(format!(
            "csv: line {line}, column {}{}: expected a closing quote on the same line, got none",
            column + 1,
            label(names, column)
        ))),
    }
}

/// The name of a column, for an error.
fn label(names: &StringRecord, column: usize) -> String {
    names.get(column).map(|name| format!(" ({})", text::name(name))).unwrap_or_default()
}

/// Whether all columns that have a name have different ones.
fn check_names(names: &StringRecord) -> Result<()> {
    let mut seen = HashMap::new();
    for (column, name) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
        if let Some(first) = seen.insert(name, column) {
            return Err(Error::format(format!(
                "csv: line 1: expected columns of different names, got {} in columns {} and {}",
                quote(name),
                first + 1,
                column + 1
            )));
        }
    }
    Ok(())
}

fn find(target: &Column, names: &StringRecord, columns: usize, header: bool) -> Result<usize> {
    let found = match target {
        Column::At(place) => Some(*place).filter(|&p| p < columns),
        Column::Named(name) => names.iter().position(|n| n == name),
        Column::Last => columns.checked_sub(1),
    };
    found.ok_or_else(|| {
        Error::value(match target {
            Column::Named(name) if header => {
                let known = names.iter().map(text::name).collect::<Vec<_>>();
                format!("csv: target column: expected one of {known:?}, got {}", quote(name))
            }
            Column::Named(name) => {
                format!("csv: target column: expected a header to find `{name}` in, got none")
            }
            Column::At(place) => format!("csv: target column: expected a place below {columns}, got {place}"),
            Column::Last => "csv: target column: expected at least one column, got none".into(),
        })
    })
}

fn failed(e: ::csv::Error, line: u64) -> Error {
    match e.into_kind() {
        ErrorKind::Io(e) => Error::io(e, "read csv"),
        ErrorKind::Utf8 { err, .. } => Error::format(format!(
            "csv: line {line}, column {}: expected UTF-8, got another byte at {}",
            err.field() + 1,
            err.valid_up_to()
        )),
        other => Error::format(format!("csv: line {line}: {other:?}")),
    }
}
