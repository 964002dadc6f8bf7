//! Real data inside the crate: 1,797 handwritten digits, 150 flowers, 442 patients.

use crate::Dataset;
use chainrule_tensor::{Scalar, Tensor};

/// The sources and licences of the embedded data; keep this text with them.
pub const ATTRIBUTION: &str = "\
digits: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, \
CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/); the test part, as scikit-learn ships it.
iris: R. A. Fisher, The use of multiple measurements in taxonomic problems, 1936, UCI Machine Learning Repository, \
CC BY 4.0.
diabetes: B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, Least angle regression, Annals of Statistics 32, 2004, \
as scikit-learn ships it.
";

/// 1,797 handwritten digits of 8×8 pixels, in classes 0 to 9 (Alpaydin and Kaynak, 1998, CC BY 4.0).
///
/// # Shapes
/// `x` (1797, 1, 8, 8), 0 for paper to 1 for ink, in steps of 1/16
///
/// # Panics
/// Never: the data are part of the crate.
///
/// ```
/// let digits = chainrule_data::digits::<f32>();
/// assert_eq!((digits.len(), digits.classes(), digits.sample_shape()), (1797, 10, &[1, 8, 8][..]));
/// ```
pub fn digits<T: Scalar>() -> Dataset<T> {
    let table = Table::new(include_str!("../data/digits.csv"), 65);
    let pixels = table.columns(0..64, |v| v / 16.0);
    let labels = table.labels(&["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    let n = labels.len();
    let x = Tensor::from_vec([n, 1, 8, 8], pixels).expect(EMBEDDED);
    Dataset::classification(x, labels, 10).expect(EMBEDDED)
}

/// 150 irises of three species (Fisher, 1936, CC BY 4.0).
///
/// # Shapes
/// `x` (150, 4): sepal length, sepal width, petal length, petal width, in cm, not scaled
///
/// # Panics
/// Never: the data are part of the crate.
///
/// ```
/// let iris = chainrule_data::iris::<f32>();
/// assert_eq!(iris.class_names(), ["setosa", "versicolor", "virginica"]);
/// ```
pub fn iris<T: Scalar>() -> Dataset<T> {
    let names = ["setosa", "versicolor", "virginica"];
    let table = Table::new(skip_head(include_str!("../data/iris.csv")), 5);
    let labels = table.labels(&names);
    let x = Tensor::from_vec([labels.len(), 4], table.columns(0..4, |v| v)).expect(EMBEDDED);
    Dataset::classification(x, labels, 3).and_then(|d| d.with_class_names(names)).expect(EMBEDDED)
}

/// 442 diabetes patients: ten measures, and how far the disease went on within a year (Efron and others, 2004).
///
/// # Shapes
/// `x` (442, 10): age, sex (1 or 2), body mass index, mean blood pressure, and six blood serum values, not scaled;
/// `values` (442, 1): progression, 25 to 346
///
/// # Panics
/// Never: the data are part of the crate.
///
/// ```
/// let patients = chainrule_data::diabetes::<f32>();
/// assert_eq!(patients.values().unwrap().shape()[..], [442, 1]);
/// ```
pub fn diabetes<T: Scalar>() -> Dataset<T> {
    let table = Table::new(skip_head(include_str!("../data/diabetes.csv")), 11);
    let values = table.columns(10..11, |v| v);
    let x = Tensor::from_vec([values.len(), 10], table.columns(0..10, |v| v)).expect(EMBEDDED);
    Dataset::regression(x, Tensor::from_vec([values.len(), 1], values).expect(EMBEDDED)).expect(EMBEDDED)
}

const EMBEDDED: &str = "the embedded data are complete";

fn skip_head(text: &str) -> &str {
    text.split_once('\n').expect(EMBEDDED).1
}

/// The cells of an embedded file: fields between commas, none quoted.
struct Table {
    cells: Vec<&'static str>,
    width: usize,
}

impl Table {
    fn new(text: &'static str, width: usize) -> Self {
        let cells: Vec<&str> = text.lines().flat_map(|line| line.split(',')).collect();
        assert!(cells.len().is_multiple_of(width), "{EMBEDDED}");
        Self { cells, width }
    }

    /// The values of some columns, row by row.
    fn columns<T: Scalar>(&self, columns: std::ops::Range<usize>, f: impl Fn(f64) -> f64) -> Vec<T> {
        let rows = self.cells.chunks_exact(self.width);
        let number = |cell: &&str| T::from_f64(f(cell.parse().expect(EMBEDDED)));
        rows.flat_map(|row| row[columns.clone()].iter().map(number)).collect()
    }

    /// The positions of the last column's cells in `names`.
    fn labels(&self, names: &[&str]) -> Vec<usize> {
        let rows = self.cells.chunks_exact(self.width);
        rows.map(|row| names.iter().position(|n| *n == row[self.width - 1]).expect(EMBEDDED)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_the_1797_known_ones() {
        let d = digits::<f32>();
        assert_eq!(d.class_counts(), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        assert_eq!(&d.x().data()[..8], [0.0, 0.0, 5.0 / 16.0, 13.0 / 16.0, 9.0 / 16.0, 1.0 / 16.0, 0.0, 0.0]);
        assert!(d.x().data().iter().all(|v| (0.0..=1.0).contains(v)));
        // The sum of all pixels of the file, in sixteenths.
        assert_eq!((digits::<f64>().x().data().iter().sum::<f64>() * 16.0) as usize, 561_718);
    }

    #[test]
    fn iris_has_fifty_of_each() {
        let d = iris::<f64>();
        assert_eq!((d.x().shape()[..].to_vec(), d.class_counts()), (vec![150, 4], vec![50; 3]));
        assert_eq!(d.x().data()[..4], [5.1, 3.5, 1.4, 0.2]);
        assert_eq!(d.class_name(2), "virginica");
    }

    #[test]
    fn diabetes_has_442_patients() {
        let d = diabetes::<f64>();
        assert_eq!((d.len(), d.sample_shape()), (442, &[10][..]));
        assert_eq!(d.x().data()[..3], [59.0, 2.0, 32.1]);
        let y = d.values().unwrap().data();
        assert_eq!((y[0], y.iter().copied().fold(0.0, f64::max)), (151.0, 346.0));
    }
}
