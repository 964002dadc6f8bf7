//! Tables of text: numbers in columns, one of them the target.

use crate::Dataset;
use ::csv::{ErrorKind, ReaderBuilder, StringRecord, Terminator, Trim};
use chainrule_tensor::{Error, Result, Scalar, Tensor};
use std::io::Read;

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

/// How to read a table with a target column; every other column is a number.
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

    /// The classes, in order, so that a second file gets the numbers of the first; any other label is an error.
    /// By default the classes are the labels of the file, sorted, as numbers when all are.
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
    /// A field that is not a finite number, a row of another length, an unknown target column or class (with line and
    /// column), no rows, no feature, or a source that fails.
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
        let mut names = self.class_names.clone();
        if names.is_empty() {
            names.clone_from(&labels);
            names.sort_unstable();
            names.dedup();
            if names.iter().all(|n| n.parse::<f64>().is_ok()) {
                names.sort_by(|a, b| {
                    let [a, b] = [a, b].map(|n| n.parse::<f64>().unwrap_or(0.0));
                    a.total_cmp(&b)
                });
            }
        }
        let numbers: std::collections::HashMap<&str, usize> =
            names.iter().enumerate().map(|(i, n)| (n.as_str(), i)).collect();
        let labels: Vec<usize> = labels.iter().map(|l| numbers[l.as_str()]).collect();
        Dataset::classification(x, labels, names.len())?.with_class_names(names)
    }

    /// Reads a table whose `target` column holds the number to be predicted.
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
        // Lines end with \n, the last one too, and a \r before it is trimmed: so every line can be counted.
        let mut reader = ReaderBuilder::new()
            .has_headers(self.header)
            .delimiter(self.delimiter)
            .terminator(Terminator::Any(b'\n'))
            .flexible(true)
            .trim(Trim::All)
            .from_reader(source.chain(&b"\n"[..]));
        let names = if self.header {
            reader.headers().map_err(|e| failed(e, 1))?.clone()
        } else {
            StringRecord::new()
        };
        let mut record = StringRecord::new();
        let (mut x, mut rows, mut columns) = (Vec::new(), 0, names.len());
        let mut place_of_target = None;
        loop {
            let more = reader.read_record(&mut record);
            let line = reader.position().line() - 1;
            if !more.map_err(|e| failed(e, line))? {
                break;
            }
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
                    let name = names.get(column).map(|n| format!(" ({n})")).unwrap_or_default();
                    let column = column + 1;
                    Error::format(format!(
                        "csv: line {line}, column {column}{name}: expected {expected}, got `{got}`"
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

fn find(target: &Column, names: &StringRecord, columns: usize, header: bool) -> Result<usize> {
    let found = match target {
        Column::At(place) => Some(*place).filter(|&p| p < columns),
        Column::Named(name) => names.iter().position(|n| n == name),
        Column::Last => columns.checked_sub(1),
    };
    found.ok_or_else(|| {
        Error::value(match target {
            Column::Named(name) if header => {
                format!(
                    "csv: target column: expected one of {:?}, got `{name}`",
                    names.iter().collect::<Vec<_>>()
                )
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
