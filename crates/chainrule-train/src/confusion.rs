//! Which classes are taken for which.

use std::fmt;

/// How often each class was predicted for each true class.
///
/// ```
/// use chainrule_train::Confusion;
/// let mut confusion = Confusion::new(2).with_names(["cat", "dog"]);
/// [(0, 0), (0, 1), (1, 1), (1, 1)].into_iter().for_each(|(truth, predicted)| confusion.add(truth, predicted));
/// assert_eq!((confusion.right(), confusion.total(), confusion.count(0, 1)), (3, 4, 1));
/// assert_eq!((confusion.recall(0), confusion.precision(0)), (0.5, 1.0));
/// println!("{confusion}");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// (true, predicted), row-major.
    counts: Vec<usize>,
    names: Vec<String>,
}

impl Confusion {
    /// All counts 0.
    pub fn new(classes: usize) -> Self {
        let names = (0..classes).map(|c| c.to_string()).collect();
        Self { classes, counts: vec![0; classes * classes], names }
    }

    /// Names the classes; those without a name keep their index.
    #[must_use]
    pub fn with_names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.names.iter_mut().zip(names).for_each(|(old, new)| *old = new.into());
        self
    }

    /// Counts one sample; a class out of range is ignored.
    pub fn add(&mut self, truth: usize, predicted: usize) {
        if truth < self.classes && predicted < self.classes {
            self.counts[truth * self.classes + predicted] += 1;
        }
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How many samples of class `truth` were predicted as `predicted`.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn count(&self, truth: usize, predicted: usize) -> usize {
        assert!(truth < self.classes && predicted < self.classes, "there are {} classes", self.classes);
        self.counts[truth * self.classes + predicted]
    }

    /// All samples.
    pub fn total(&self) -> usize {
        self.counts.iter().sum()
    }

    /// The samples that were predicted right.
    pub fn right(&self) -> usize {
        (0..self.classes).map(|c| self.count(c, c)).sum()
    }

    /// The share of samples that were predicted right.
    pub fn accuracy(&self) -> f64 {
        share(self.right(), self.total())
    }

    /// Of the samples of a class, the share that was found.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn recall(&self, class: usize) -> f64 {
        share(self.count(class, class), (0..self.classes).map(|c| self.count(class, c)).sum())
    }

    /// Of the samples predicted as a class, the share that is of it.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn precision(&self, class: usize) -> f64 {
        share(self.count(class, class), (0..self.classes).map(|c| self.count(c, class)).sum())
    }

    /// The harmonic mean of precision and recall.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn f1(&self, class: usize) -> f64 {
        let (p, r) = (self.precision(class), self.recall(class));
        if p + r > 0.0 { 2.0 * p * r / (p + r) } else { 0.0 }
    }
}

/// Part of all; 0 of nothing.
fn share(part: usize, all: usize) -> f64 {
    part as f64 / all.max(1) as f64
}

impl fmt::Display for Confusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
        let side = width(&mut self.names.iter().map(|n| n.chars().count())).max("true".len());
        let cell = side.min(10).max(width(&mut self.counts.iter().map(|c| c.to_string().len()))).max(3);
        let clipped = |name: &str| name.chars().take(cell).collect::<String>();
        write!(f, "{:>side$} │", "true")?;
        self.names.iter().try_for_each(|name| write!(f, " {:>cell$}", clipped(name)))?;
        writeln!(f, " │ recall   ← predicted")?;
        let line = (cell + 1) * self.classes + 1;
        writeln!(f, "{}┼{}┼{}", "─".repeat(side + 1), "─".repeat(line), "─".repeat(8))?;
        for (truth, name) in self.names.iter().enumerate() {
            write!(f, "{name:>side$} │")?;
            for predicted in 0..self.classes {
                match self.count(truth, predicted) {
                    0 => write!(f, " {:>cell$}", "·")?,
                    n => write!(f, " {n:>cell$}")?,
                }
            }
            writeln!(f, " │ {:.3}", self.recall(truth))?;
        }
        write!(f, "accuracy {:.4} ({} of {})", self.accuracy(), self.right(), self.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_can_be_read() {
        let mut confusion = Confusion::new(3).with_names(["setosa", "versicolor", "virginica"]);
        for (truth, predicted) in [(0, 0), (0, 0), (1, 1), (1, 2), (2, 2), (9, 0)] {
            confusion.add(truth, predicted);
        }
        let expected = "
      true │     setosa versicolor  virginica │ recall   ← predicted
───────────┼──────────────────────────────────┼────────
    setosa │          2          ·          · │ 1.000
versicolor │          ·          1          1 │ 0.500
 virginica │          ·          ·          1 │ 1.000
accuracy 0.8000 (4 of 5)";
        assert_eq!(format!("\n{confusion}"), expected);
        assert_eq!((confusion.f1(1), confusion.f1(2)), (2.0 / 3.0, 2.0 / 3.0));
        assert_eq!(Confusion::new(0).accuracy(), 0.0);
    }
}
