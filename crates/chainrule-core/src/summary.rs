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
    /// The parameters and buffers that are counted.
    known: HashSet<ParamId>,
    /// Bytes of buffers.
    buffers: usize,
    /// Bytes beside parameters, buffers and inputs, in training and in inference.
    held: [usize; 2],
    /// Whether ∂E/∂x of each input of the module that is being described is requested.
    requested: Vec<bool>,
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

    /// Calls `f` with this summary for a child of which ∂E/∂x of these inputs is requested.
    pub fn requesting<R>(&mut self, requested: &[bool], f: impl FnOnce(&mut Self) -> R) -> R {
        let outer = std::mem::replace(&mut self.requested, requested.to_vec());
        let result = f(self);
        self.requested = outer;
        result
    }

    /// Whether ∂E/∂x of an input of the module that is being described is requested.
    pub fn requests(&self, input: usize) -> bool {
        self.requested.get(input).is_some_and(|&requested| requested)
    }

    /// Calls `f` with this summary, and returns the bytes that it held in training and in inference instead of adding them: a
    /// container whose children share memory counts it once.
    pub fn apart<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> (R, [usize; 2]) {
        let outer = std::mem::take(&mut self.held);
        let result = f(self);
        (result, std::mem::replace(&mut self.held, outer))
    }

    /// Adds bytes that the module being described holds in a training step: the outputs of its children, and what else is in
    /// its cache. Its own output and its ∂E/∂x are the caller's.
    pub fn hold_in_training(&mut self, bytes: usize) {
        self.held[0] = self.held[0].saturating_add(bytes);
    }

    /// As [`Summary::hold_in_training`], in inference.
    pub fn hold_in_inference(&mut self, bytes: usize) {
        self.held[1] = self.held[1].saturating_add(bytes);
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
        let (known, buffers) = (&mut self.known, &mut self.buffers);
        list(&mut Params::new(&mut |_, p: &'a Param<T>| {
            if !known.insert(p.id()) {
            } else if p.is_buffer() {
                *buffers += p.volume() * size_of::<T>();
            } else {
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
            });
        }
    }

    /// All learned elements.
    pub fn parameters(&self) -> usize {
        self.rows.iter().map(|r| r.parameters).sum()
    }

    /// All multiply-adds of one forward pass.
    pub fn multiply_adds(&self) -> u64 {
        self.rows.iter().map(|r| r.multiply_adds).sum()
    }

    /// Bytes that a session holds: parameters, inputs, outputs, and what containers and layers keep between.
    pub fn inference_bytes(&self) -> usize {
        self.bytes(1, self.held[1])
    }

    /// Bytes that a training step holds: parameters and their gradients, inputs, outputs and ∂E/∂y, every activation that
    /// is kept, gradients of activations, and the caches of the layers. The optimizer's own state comes on top.
    pub fn training_bytes(&self) -> usize {
        self.bytes(2, self.held[0])
    }

    /// With each parameter so many times.
    fn bytes(&self, times: usize, held: usize) -> usize {
        let elements = self.parameters().saturating_mul(times).saturating_add(self.input_volume());
        elements.saturating_mul(self.scalar()).saturating_add(self.buffers).saturating_add(held)
    }

    fn input_volume(&self) -> usize {
        self.inputs.iter().fold(0, |sum, input| sum.saturating_add(input.volume()))
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
        write!(
            f,
            "memory: {} in training, {} in inference, without the optimizer's state",
            binary(self.training_bytes()),
            binary(self.inference_bytes())
        )
    }
}

/// Bytes in the largest binary unit of which there is one: `1.50 KiB`.
fn binary(bytes: usize) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = bytes.max(1).ilog2() as usize / 10;
    match power.checked_sub(1) {
        None => format!("{bytes} B"),
        Some(unit) => format!("{:.2} {}", bytes as f64 / 1024f64.powi(power as i32), units[unit]),
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
    fn bytes_have_a_unit() {
        let cases =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1536, "1.50 KiB"), (5 << 20, "5.00 MiB")];
        for (bytes, text) in cases.into_iter().chain([(usize::MAX, "16.00 EiB")]) {
            assert_eq!(binary(bytes), text);
        }
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
