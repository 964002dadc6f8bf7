//! The rows of a prediction: each holds one distribution over the classes.

use crate::elementwise::finite_weights;
use chainrule_core::{Args, Classes, Error, Result, Scalar, Shape, Value};

/// The rows of a prediction (outer, classes, inner).
#[derive(Clone, Copy)]
pub struct Rows {
    pub outer: usize,
    pub classes: usize,
    pub inner: usize,
}

/// One of them: where its first class stands, and how far apart its classes are.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its number, row-major over (outer, inner).
    pub index: usize,
    first: usize,
    stride: usize,
    classes: usize,
}

impl Rows {
    /// The i-th of rows whose classes are contiguous.
    pub fn row(self, i: usize) -> Row {
        Row { index: i, first: i * self.classes, stride: 1, classes: self.classes }
    }

    pub fn each(self) -> impl Iterator<Item = Row> {
        let Self { outer, classes, inner } = self;
        (0..outer).flat_map(move |o| {
            (0..inner).map(move |i| Row {
                index: o * inner + i,
                first: o * classes * inner + i,
                stride: inner,
                classes,
            })
        })
    }
}

impl Row {
    /// Where class c stands.
    #[inline]
    pub fn at(self, c: usize) -> usize {
        self.first + c * self.stride
    }

    /// The maximum m of a row and ln Σᶜ exp(yᶜ − m): −ln pᶜ = (m − yᶜ) + ln Σ, exact for rows far from 0.
    pub fn log_sum_exp<T: Scalar>(self, y: &[T]) -> (T, T) {
        let each = || (0..self.classes).map(|c| y[self.at(c)]);
        let max = each().fold(T::NEG_INFINITY, |m, v| if v > m { v } else { m });
        let sum = each().map(|v| (max - v).v_exp_neg::<false>().to_f64()).sum();
        (max, T::from_f64(sum).v_ln::<false>())
    }
}

/// The settings of a loss of one class a row: class weights, and the class that is ignored.
#[derive(Clone, Copy)]
pub struct Labels<'a, T> {
    pub kind: &'static str,
    pub weights: Option<&'a [T]>,
    pub ignored: Option<usize>,
}

impl<T: Scalar> Labels<'_, T> {
    pub fn check(self) -> Result<()> {
        finite_weights(self.kind, "class weight", self.weights.unwrap_or_default())
    }

    /// The rows of a prediction (N, C, ..) or (C), and the shape of the classes: (N, ..) or none.
    pub fn rows(self, y: &[usize]) -> Result<(Rows, Shape)> {
        let kind = self.kind;
        let (rows, labels) = match *y {
            [] => {
                return Err(Error::shape(format!("{kind}: expected a prediction (N, C, ..) or (C), got []")));
            }
            [classes] => (Rows { outer: 1, classes, inner: 1 }, Shape::default()),
            [outer, classes, ref rest @ ..] => {
                let labels = rest.iter().try_fold(Shape::from([outer]), |shape, &n| shape.push(n))?;
                (Rows { outer, classes, inner: rest.iter().product() }, labels)
            }
        };
        match self.weights.filter(|w| w.len() != rows.classes) {
            Some(weights) => Err(Error::shape(format!(
                "{kind}: expected {} class weights for a prediction {y:?}, got {}",
                rows.classes,
                weights.len()
            ))),
            None => Ok((rows, labels)),
        }
    }

    /// An error unless there is a class below C, or the ignored one, for each row.
    pub fn fit(self, y: &[usize], (rows, labels): (Rows, Shape), classes: Classes<'_>) -> Result<()> {
        let kind = self.kind;
        // The class of a single sample may stand in a list of one.
        if *classes.shape() != labels && !(labels.is_empty() && *classes.shape() == Shape::from([1])) {
            return Err(Error::shape(format!(
                "{kind}: expected classes of shape {labels} for a prediction {y:?}, got {}",
                classes.shape()
            )));
        }
        let wrong = |&(_, &t): &(usize, &usize)| t >= rows.classes && Some(t) != self.ignored;
        match classes.iter().enumerate().find(wrong) {
            Some((i, t)) => Err(Error::index(format!(
                "{kind}: expected classes below {}, got {t} at position {i}",
                rows.classes
            ))),
            None => Ok(()),
        }
    }

    /// The weight of a class. One out of range counts as 1: it has been refused, or will be.
    pub fn weight(self, class: usize) -> T {
        self.weights.and_then(|w| w.get(class)).copied().unwrap_or(T::ONE)
    }

    /// The weights of the rows that are not ignored.
    pub fn sum(self, classes: Classes<'_>) -> f64 {
        if self.weights.is_none() && self.ignored.is_none() {
            return classes.len() as f64;
        }
        let counted = classes.iter().filter(|&&t| Some(t) != self.ignored);
        counted.map(|&t| self.weight(t).to_f64()).sum()
    }
}

/// The attribute `weight` of a spec.
pub fn class_weights<T: Scalar>(args: &Args<'_, T>) -> Result<Option<Vec<T>>> {
    let weights: Option<Vec<f64>> = args.optional("weight")?;
    Ok(weights.map(|w| w.into_iter().map(T::from_f64).collect()))
}

/// Class weights as the attribute of a spec.
pub fn weights_as_attribute<T: Scalar>(weights: &Option<Vec<T>>) -> Value {
    weights.as_ref().map(|w| w.iter().map(|w| w.to_f64()).collect::<Vec<_>>()).into()
}
