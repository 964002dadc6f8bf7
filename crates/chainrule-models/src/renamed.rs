//! A module whose parameters have the names that a file gives them.

use crate::{bert, gpt, vit};
use chainrule_core::{
    Args, BoxModule, Context, Error, Example, Facts, FromSpec, Grads, Learning, Memory, Mode, Module,
    ModuleCall, Param, Parameters, Params, ParamsMut, Parts, Path, Result, Scalar, Shape, Spec, Summary,
    Tensor, text,
};
use chainrule_layers::TransformerEncoderLayer;
use std::fmt::{self, Write};

/// Where a library has the parameters of an encoder's layer.
pub(crate) struct Names {
    /// What a spec calls it.
    pub(crate) of: &'static str,
    /// Names of the parameters, and the parts of other names for them.
    pub(crate) list: &'static [(&'static str, &'static [&'static str])],
}

/// All that there are.
const ALL: [&Names; 3] = [&bert::NAMES, &gpt::NAMES, &vit::NAMES];

/// A module under other names; parameters that are not listed keep theirs.
#[derive(Clone)]
pub(crate) struct Renamed<M> {
    pub(crate) inner: M,
    pub(crate) names: &'static Names,
}

/// A path as text on the stack.
struct Text {
    bytes: [u8; 96],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let to = self.bytes.get_mut(self.len..self.len + s.len()).ok_or(fmt::Error)?;
        to.copy_from_slice(s.as_bytes());
        self.len += s.len();
        Ok(())
    }
}

/// The parts of the name for a path, if it is listed.
fn renamed(names: &'static Names, path: &Path<'_>) -> Option<&'static [&'static str]> {
    let mut text = Text { bytes: [0; 96], len: 0 };
    write!(text, "{path}").ok()?;
    let path = &text.bytes[..text.len];
    names.list.iter().find(|(name, _)| name.as_bytes() == path).map(|(_, parts)| *parts)
}

fn place<'a, T>(out: &mut Params<'_, 'a, T>, parts: &[&str], param: &'a Param<T>) {
    match parts {
        [] => out.add_as("", param),
        [name] => out.add_as(name, param),
        [first, rest @ ..] => place(&mut out.child(first), rest, param),
    }
}

fn place_mut<'a, T>(out: &mut ParamsMut<'_, 'a, T>, parts: &[&str], param: &'a mut Param<T>) {
    match parts {
        [] => out.add_as("", param),
        [name] => out.add_as(name, param),
        [first, rest @ ..] => place_mut(&mut out.child(first), rest, param),
    }
}

impl<T: Scalar, M: Parameters<T = T>> Parameters for Renamed<M> {
    type T = T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        let names = self.names;
        self.inner.list(&mut Params::new(&mut |path: &Path<'_>, param: &'a Param<T>| match renamed(
            names, path,
        ) {
            Some(parts) => place(out, parts, param),
            None => place(out, &[&path.to_string()], param),
        }));
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        let names = self.names;
        self.inner.list_mut(&mut ParamsMut::new(
            &mut |path: &Path<'_>, param: &'a mut Param<T>| match renamed(names, path) {
                Some(parts) => place_mut(out, parts, param),
                None => place_mut(out, &[&path.to_string()], param),
            },
        ));
    }

    fn validate(&self) -> Result<()> {
        self.inner.validate()
    }
}

impl<T: Scalar, M: Module<T = T>> Module for Renamed<M> {
    type State = M::State;

    fn inputs(&self) -> usize {
        self.inner.inputs()
    }

    fn outputs(&self) -> usize {
        self.inner.outputs()
    }

    fn differentiable_input(&self, input: usize) -> bool {
        self.inner.differentiable_input(input)
    }

    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.inner.output_shapes(inputs)
    }

    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        state: &mut Self::State,
        cx: Context,
    ) -> Result<()> {
        self.inner.apply(xs, ys, state, cx)
    }

    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        state: &mut Self::State,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        self.inner.pull(call, state, grads, dxs)
    }

    fn reads_outputs(&self) -> bool {
        self.inner.reads_outputs()
    }

    fn learns(&self) -> Learning {
        self.inner.learns()
    }

    fn lend(&mut self, out: &mut Parts<'_, T>) {
        self.inner.lend(out);
    }

    fn set_mode(&mut self, path: &str, mode: Mode) -> Result<()> {
        self.inner.set_mode(path, mode)
    }

    fn fold(&mut self, state: &Self::State) {
        self.inner.fold(state);
    }

    fn remember(&self, state: &mut Self::State, out: &mut Memory<'_, T>) -> Result<()> {
        self.inner.remember(state, out)
    }

    fn cost(&self, inputs: &[Shape]) -> u64 {
        self.inner.cost(inputs)
    }

    fn to_spec(&self) -> Spec {
        Spec::new(KIND).with("names", self.names.of).child(INNER, self.inner.to_spec())
    }

    fn summarize(&self, inputs: &[Shape], out: &mut Summary) -> Result<Vec<Shape>> {
        let outputs = self.output_shapes(inputs)?;
        out.rows_of(self.inner.to_spec().kind(), &outputs, self.cost(inputs), &mut |p| self.list(p));
        Ok(outputs)
    }
}

const KIND: &str = "Renamed";
/// The name of the layer in a spec; paths of parameters leave it out.
const INNER: &str = "inner";

/// Of a layer of an encoder alone: others have no such names.
impl<T: Scalar> FromSpec<T> for Renamed<BoxModule<T>> {
    const FACTS: Facts = Facts::new(KIND).family("models").formula("a layer under a library's names");

    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let of: String = args.get("names")?;
        let Some(names) = ALL.into_iter().find(|names| names.of == of) else {
            let known = ALL.map(|names| names.of).join(", ");
            return Err(Error::value(format!(
                "{KIND}: expected names of one of {known}, got {}",
                text::quote(&of)
            )));
        };
        match args.spec().children() {
            [(name, inner)] if name == INNER && inner.kind() == "TransformerEncoderLayer" => {
                let mut children = args.children()?;
                children.pop().map(|(_, inner)| Self { inner, names }).ok_or_else(|| wrong_child(args.spec()))
            }
            _ => Err(wrong_child(args.spec())),
        }
    }

    fn examples() -> Vec<Example> {
        let layer = TransformerEncoderLayer::<T>::new(4, 2).dim_feedforward(8);
        vec![Example::new(Renamed { inner: layer, names: &vit::NAMES }.to_spec(), [[2, 3, 4]])]
    }
}

#[cold]
fn wrong_child(spec: &Spec) -> Error {
    Error::value(format!(
        "{KIND}: expected one child, `{INNER}`, a TransformerEncoderLayer, got {} children",
        spec.children().len()
    ))
}
