//! What a model is made of, as a table.

use crate::{Param, ParamId, Params};
use chainrule_tensor::{Scalar, Shape};
use std::{collections::HashSet, fmt};

/// The rows of [`Module::summary`](crate::Module::summary), printed as a table.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    inputs: Vec<Shape>,
    rows: Vec<Row>,
    path: Vec<String>,
    /// The parameters that are counted.
    known: HashSet<ParamId>,
}

/// One layer of a [`Summary`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Row {
    /// The path in the model, `encoder.0`.
    pub path: String,
    /// The layer's kind.
    pub kind: String,
    /// The shape of its output.
    pub output: Shape,
    /// Learned elements, frozen ones included.
    pub parameters: usize,
    /// How many of them are frozen.
    pub frozen: usize,
    /// Multiplications with additions of one forward pass.
    pub multiply_adds: u64,
    /// Bytes of one element.
    scalar: usize,
    /// Whether the output overwrites that of the row before.
    shared: bool,
}

impl Summary {
    /// An empty table for shapes of the inputs.
    pub fn new(inputs: &[Shape]) -> Self {
        Self { inputs: inputs.to_vec(), ..Self::default() }
    }

    /// The rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Calls `f` with this summary inside a child named `name`.
    pub fn child<R>(&mut self, name: &str, f: impl FnOnce(&mut Self) -> R) -> R {
        self.path.push(name.to_owned());
        let result = f(self);
        self.path.pop();
        result
    }

    /// Adds a row for a module with one output.
    pub fn row<'a, T: Scalar>(
        &mut self,
        kind: &str,
        output: Shape,
        multiply_adds: u64,
        list: &mut dyn FnMut(&mut Params<'_, 'a, T>),
    ) {
        self.rows_of(kind, &[output], multiply_adds, list);
    }

    /// Adds a row for each output of a module; the first has its parameters. Those of a layer that has a row already count
    /// once.
    pub fn rows_of<'a, T: Scalar>(
        &mut self,
        kind: &str,
        outputs: &[Shape],
        multiply_adds: u64,
        list: &mut dyn FnMut(&mut Params<'_, 'a, T>),
    ) {
        let (mut parameters, mut frozen) = (0, 0);
        let known = &mut self.known;
        list(&mut Params::new(&mut |_, p: &'a Param<T>| {
            if !p.is_buffer() && known.insert(p.id()) {
                parameters += p.volume();
                frozen += if p.trainable() { 0 } else { p.volume() };
            }
        }));
        for (i, &output) in outputs.iter().enumerate() {
            let first = i == 0;
            self.rows.push(Row {
                path: self.path.join("."),
                kind: kind.to_owned(),
                output,
                parameters: if first { parameters } else { 0 },
                frozen: if first { frozen } else { 0 },
                multiply_adds: if first { multiply_adds } else { 0 },
                scalar: size_of::<T>(),
                shared: false,
            });
        }
    }

    /// Tells that the output of the last row overwrites that of the row before: it takes no memory of its own.
    pub fn share_output(&mut self) {
        if let Some(row) = self.rows.last_mut() {
            row.shared = true;
        }
    }

    /// The elements of each output that has memory of its own.
    fn activations(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().filter(|row| !row.shared).map(|row| row.output.volume())
    }

    /// All learned elements.
    pub fn parameters(&self) -> usize {
        self.rows.iter().map(|r| r.parameters).sum()
    }

    /// All multiply-adds of one forward pass.
    pub fn multiply_adds(&self) -> u64 {
        self.rows.iter().map(|r| r.multiply_adds).sum()
    }

    /// Bytes that inference holds: the parameters, the input and the two largest activations.
    pub fn inference_bytes(&self) -> usize {
        let mut volumes: Vec<usize> = self.activations().collect();
        volumes.sort_unstable_by(|a, b| b.cmp(a));
        let activations = volumes.iter().take(2).sum::<usize>();
        (self.parameters() + self.input_volume() + activations) * self.scalar()
    }

    /// Bytes that training holds: parameters and their gradients, every activation, and two gradients of activations.
    /// The optimizer's own state and the scratch of single layers come on top.
    pub fn training_bytes(&self) -> usize {
        let activations: usize = self.activations().sum();
        let largest = self.activations().max().unwrap_or(0);
        (2 * self.parameters() + self.input_volume() + activations + 2 * largest) * self.scalar()
    }

    fn input_volume(&self) -> usize {
        self.inputs.iter().map(Shape::volume).sum()
    }

    fn scalar(&self) -> usize {
        self.rows.first().map_or(4, |r| r.scalar)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.rows.iter().map(|r| r.path.len()).max().unwrap_or(0).max(5);
        let kind = self.rows.iter().map(|r| r.kind.len()).max().unwrap_or(0).max(4);
        let shape = self.rows.iter().map(|r| r.output.to_string().len()).max().unwrap_or(0).max(12);
        writeln!(
            f,
            "{:path$}  {:kind$}  {:shape$}  {:>10}  {:>13}",
            "layer", "type", "output shape", "parameters", "multiply-adds"
        )?;
        writeln!(f, "{}", "─".repeat(path + kind + shape + 31))?;
        for r in &self.rows {
            writeln!(
                f,
                "{:path$}  {:kind$}  {:shape$}  {:>10}  {:>13}",
                r.path,
                r.kind,
                r.output.to_string(),
                grouped(r.parameters as u64),
                grouped(r.multiply_adds)
            )?;
        }
        writeln!(f, "{}", "─".repeat(path + kind + shape + 31))?;
        let frozen: usize = self.rows.iter().map(|r| r.frozen).sum();
        writeln!(
            f,
            "input {}: {} parameters ({} frozen), {} multiply-adds",
            self.inputs.iter().map(Shape::to_string).collect::<Vec<_>>().join(", "),
            grouped(self.parameters() as u64),
            grouped(frozen as u64),
            grouped(self.multiply_adds())
        )?;
        let mb = |bytes: usize| bytes as f64 / 1e6;
        write!(
            f,
            "memory: {:.2} MB in training, {:.2} MB in inference, without the optimizer's state",
            mb(self.training_bytes()),
            mb(self.inference_bytes())
        )
    }
}

/// 1234567 as `1,234,567`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
