//! Numbers, indices, sums and arrays as text.

use chainrule_core::{Scalar, Shape, Tensor, tensor::position};

/// How numbers and lists are written.
#[derive(Clone, Debug)]
pub(super) struct Style {
    pub(super) decimals: usize,
    pub(super) most: usize,
}

/// The most terms of a sum, and elements of a row.
const TERMS: usize = 8;

impl Style {
    /// A number without trailing zeros; a tiny or a huge one with its power of ten.
    pub(super) fn number(&self, v: impl Scalar) -> String {
        let v = v.to_f64();
        let plain = format!("{v:.*}", self.decimals);
        let text = if v.is_finite() && (v.abs() >= 1e6 || v != 0.0 && plain.parse() == Ok(0.0)) {
            format!("{v:.*e}", self.decimals.min(2))
        } else if plain.contains('.') {
            plain.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            plain
        };
        if text == "-0" { "0".to_owned() } else { text.replace('-', "−") }
    }

    /// A number as a factor, or behind a sign: in parentheses if it is negative.
    pub(super) fn factor(&self, v: impl Scalar) -> String {
        let text = self.number(v);
        if text.starts_with('−') { format!("({text})") } else { text }
    }

    /// a₀·b₀ + a₁·b₁ + …
    pub(super) fn products<T: Scalar>(&self, pairs: impl IntoIterator<Item = (T, T)>) -> String {
        let product = |(i, (a, b)): (usize, (T, T))| {
            let a = if i == 0 { self.number(a) } else { self.factor(a) };
            format!("{a}·{}", self.factor(b))
        };
        sum(pairs.into_iter().enumerate().map(product).collect())
    }

    /// A list of equations, one in a line, cut where there are too many.
    pub(super) fn lines(&self, n: usize, line: impl Fn(usize) -> String) -> String {
        let mut text: String = (0..n.min(self.most)).map(|i| format!("   {}\n", line(i))).collect();
        if n > self.most {
            text += &format!("   … and {} more\n", n - self.most);
        }
        text
    }
}

/// Terms with plus signs; of many the first and the last.
pub(super) fn sum(mut terms: Vec<String>) -> String {
    if terms.len() > TERMS {
        let last = terms.pop().unwrap_or_default();
        terms.truncate(TERMS - 2);
        terms.extend(["…".to_owned(), last]);
    }
    terms.join(" + ")
}

/// The name of an element: `y[1,0]`. The batch axis of a single sample is left out.
pub(super) fn element(name: &str, shape: &Shape, flat: usize, batch: bool) -> String {
    let at = position(shape, flat);
    let at = if batch && shape.first() == Some(&1) { &at[1..] } else { &at[..] };
    match at {
        [] => name.to_owned(),
        at => format!("{name}[{}]", at.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
    }
}

/// `name = (1, 0)`, or aligned rows of the last axis.
pub(super) fn array<T: Scalar>(style: &Style, name: &str, t: &Tensor<T>) -> String {
    let width = t.shape().last().copied().unwrap_or(1).max(1);
    let rows: Vec<Vec<String>> =
        t.data().chunks(width).take(style.most).map(|row| cells(style, row)).collect();
    let widest = rows.iter().flatten().map(|cell| cell.chars().count()).max().unwrap_or(0);
    let several = t.len() > width;
    let pad = " ".repeat(name.chars().count());
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        let lead = if i == 0 { format!("{name} =") } else { format!("{pad}  ") };
        let cell = |cell: &String| if several { format!("{cell:>widest$}") } else { cell.clone() };
        text += &format!("{lead} ({})\n", row.iter().map(cell).collect::<Vec<_>>().join(", "));
    }
    let all = t.len().div_ceil(width);
    if all > rows.len() {
        text += &format!("{pad}   … and {} more rows\n", all - rows.len());
    }
    text
}

fn cells<T: Scalar>(style: &Style, row: &[T]) -> Vec<String> {
    let mut cells: Vec<String> = row.iter().take(TERMS).map(|&v| style.number(v)).collect();
    if row.len() > TERMS {
        cells[TERMS - 2] = "…".to_owned();
        cells[TERMS - 1] = style.number(row[row.len() - 1]);
    }
    cells
}

/// Every line moved in by three spaces.
pub(super) fn inset(text: &str) -> String {
    text.lines().map(|line| format!("   {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style { decimals: 4, most: 3 };

    #[test]
    fn numbers_are_short() {
        let texts =
            [0.5, -0.25, 3.0, 1e-9, -0.0, 123456.789, 2e7, f64::NAN, f64::INFINITY].map(|v| STYLE.number(v));
        assert_eq!(texts, ["0.5", "−0.25", "3", "1.00e−9", "0", "123456.789", "2.00e7", "NaN", "inf"]);
        assert_eq!((STYLE.factor(-1.0), STYLE.factor(100.0)), ("(−1)".to_owned(), "100".to_owned()));
        assert_eq!(Style { decimals: 0, most: 1 }.number(100.0), "100");
    }

    #[test]
    fn long_sums_and_lists_are_cut() {
        assert_eq!(STYLE.products([(1.0, -2.0), (-3.0, 4.0)]), "1·(−2) + (−3)·4");
        let many = STYLE.products((0..20).map(|i| (f64::from(i), 1.0)));
        assert_eq!(many, "0·1 + 1·1 + 2·1 + 3·1 + 4·1 + 5·1 + … + 19·1");
        assert_eq!(STYLE.lines(5, |i| i.to_string()), "   0\n   1\n   2\n   … and 2 more\n");
    }

    #[test]
    fn arrays_are_rows() {
        assert_eq!(array(&STYLE, "x", &Tensor::from([[1.0f32, 0.0]])), "x = (1, 0)\n");
        let w = Tensor::from([[1.0f64, -0.25], [10.0, 2.0]]);
        assert_eq!(array(&STYLE, "W", &w), "W = (    1, −0.25)\n    (   10,     2)\n");
        assert!(array(&STYLE, "W", &Tensor::<f32>::zeros([9, 20])).ends_with("… and 6 more rows\n"));
        assert_eq!(element("y", &Shape::from([1, 3]), 2, true), "y[2]");
        assert_eq!(element("W", &Shape::from([2, 3]), 5, false), "W[1,2]");
        assert_eq!(element("y", &Shape::from([1]), 0, true), "y");
    }
}
