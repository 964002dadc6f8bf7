//! Looking at what the parts of a model compute.

use crate::{
    AnyState, BoxModule, Call, Context, Error, Grads, InPlace, Learning, Memory, Mode, Module, ModuleCall,
    Params, ParamsMut, Parts, Result, Spec, Summary, boxed::AnyModule,
};
use chainrule_tensor::{Scalar, Shape, Tensor, text::quote};
use std::{
    any::Any,
    mem, ptr, slice,
    sync::{Arc, Weak},
};

/// Sees what the watched parts of a model compute: see [`watch`]. Several threads may call it at once.
pub trait Observer<T: Scalar>: Send + Sync {
    /// A watched part has done its forward or its backward pass. Parts inside it have been seen before it.
    fn see(&self, seen: Seen<'_, T>);
}

/// One call of a watched part.
#[non_exhaustive]
pub struct Seen<'a, T: Scalar> {
    /// Its path in the model.
    pub path: &'a str,
    /// The part; of a re-parametrised one that with the computed weight.
    pub part: &'a BoxModule<T>,
    /// The inputs. None in the backward pass of an activation that overwrote its input.
    pub xs: &'a [&'a Tensor<T>],
    /// What it did.
    pub event: Event<'a, T>,
    /// The same in both passes of a call, another one for another place in the model; `None` of an activation that works in place.
    pub(crate) call: Option<&'a Arc<()>>,
}

/// What a watched part did.
pub enum Event<'a, T: Scalar> {
    /// It made these outputs.
    Forward(&'a [Tensor<T>]),
    /// It went backwards.
    Backward {
        /// ∂E/∂yⱼ, `None` where yⱼ was not used.
        dys: &'a [Option<&'a Tensor<T>>],
        /// ∂E/∂xᵢ, `None` where it was not requested.
        dxs: &'a [Option<&'a Tensor<T>>],
        /// The gradients that it added to; `None` of an activation that works in place, which has no parameters.
        grads: Option<&'a Grads<T>>,
    },
}

/// Lets an observer see parts of a model, given by their paths, in which `*` stands for any characters: `0`, `encoder.*`, `*`.
/// Returns the paths of all of them, in the model's order.
///
/// A part is a module that stands in a container: a child of `Sequential`, `Parallel` or `Graph`, or what `Residual` and
/// re-parametrised weights are around, called `inner` there. What a layer of several layers holds as plain fields is no part of its own. Bits, parameters,
/// paths and specs of a watched model are those of the model, and so are those of its clones, which the observer sees too. It ends with [`unwatch`], or
/// when nobody but the model knows the observer any more.
///
/// [`crate::Probe`] is the observer that keeps what it sees.
///
/// # Errors
/// A path leads to no part; it lists those that there are. Nothing is watched then.
pub fn watch<T: Scalar>(
    model: &mut (impl Module<T = T> + ?Sized),
    paths: impl IntoIterator<Item = impl AsRef<str>>,
    observer: &Arc<dyn Observer<T>>,
) -> Result<Vec<String>> {
    let mut all = Vec::new();
    model.lend(&mut Parts::new(&mut |path, _| all.push(path.to_string())));
    let mut watched = vec![false; all.len()];
    for pattern in paths {
        let pattern = pattern.as_ref();
        let mut found = false;
        for (path, watched) in all.iter().zip(&mut watched).filter(|(path, _)| fits(pattern, path)) {
            if all.iter().filter(|other| *other == path).count() > 1 {
                return Err(Error::value(format!(
                    "expected one part at each path, got two at {}",
                    quote(path)
                )));
            }
            (*watched, found) = (true, true);
        }
        if !found {
            return Err(no_part(pattern, &all));
        }
    }
    let mut at = watched.iter();
    model.lend(&mut Parts::new(&mut |path, part| {
        if at.next() == Some(&true) {
            Watched::put_around(part, path.to_string().into(), Arc::downgrade(observer));
        }
    }));
    Ok(all.into_iter().zip(watched).filter_map(|(path, watched)| watched.then_some(path)).collect())
}

/// Ends what [`watch`] began with this observer.
pub fn unwatch<T: Scalar>(model: &mut (impl Module<T = T> + ?Sized), observer: &Arc<dyn Observer<T>>) {
    let over = |w: &Watched<T>| {
        ptr::addr_eq(w.observer.as_ptr(), Arc::as_ptr(observer)) || w.observer.strong_count() == 0
    };
    model.lend(&mut Parts::new(&mut |_, part| {
        let mut place = part;
        loop {
            if place.0.watched().is_some_and(|w| over(w)) {
                if let Some(inner) = place.0.watched().and_then(|w| w.inner.take()) {
                    *place = inner;
                }
                continue;
            }
            match place.0.watched().and_then(|w| w.inner.as_mut()) {
                Some(inner) => place = inner,
                None => break,
            }
        }
    }));
}

#[cold]
fn no_part(pattern: &str, all: &[String]) -> Error {
    let paths: Vec<String> = all.iter().map(|path| quote(path).to_string()).collect();
    let paths = if paths.is_empty() { "none".to_owned() } else { paths.join(", ") };
    Error::value(format!(
        "expected the path of a part of the model, got {}; there are {paths}",
        quote(pattern)
    ))
}

/// Whether a path fits a pattern, in which `*` stands for any characters.
fn fits(pattern: &str, path: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == path };
    let (Some(mut path), mut pieces) = (path.strip_prefix(start), rest.split('*').peekable()) else {
        return false;
    };
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return path.ends_with(piece);
        }
        match path.find(piece) {
            Some(at) => path = &path[at + piece.len()..],
            None => return false,
        }
    }
    true
}

/// A module in a box that an observer sees. All else is the module's: its state, its plan in a container, its spec.
#[derive(Clone)]
pub(crate) struct Watched<T: Scalar> {
    /// Always there but while it is put around.
    inner: Option<BoxModule<T>>,
    path: Arc<str>,
    observer: Weak<dyn Observer<T>>,
}

impl<T: Scalar> Watched<T> {
    fn put_around(part: &mut BoxModule<T>, path: Arc<str>, observer: Weak<dyn Observer<T>>) {
        let inner = mem::replace(part, BoxModule(Box::new(Self { inner: None, path, observer })));
        if let Some(watched) = part.0.watched() {
            watched.inner = Some(inner);
        }
    }

    #[inline]
    fn part(&self) -> &BoxModule<T> {
        self.inner.as_ref().expect("it was put around a module")
    }

    fn part_mut(&mut self) -> &mut BoxModule<T> {
        self.inner.as_mut().expect("it was put around a module")
    }

    fn tell(&self, call: Option<&Arc<()>>, xs: &[&Tensor<T>], event: Event<'_, T>) {
        if let Some(observer) = self.observer.upgrade() {
            observer.see(Seen { path: &self.path, part: self.part(), xs, event, call });
        }
    }
}

impl<T: Scalar> AnyModule<T> for Watched<T> {
    fn clone_box(&self) -> Box<dyn AnyModule<T>> {
        Box::new(self.clone())
    }
    fn as_any(&self) -> &dyn Any {
        self.part().0.as_any()
    }
    fn watched(&mut self) -> Option<&mut Self> {
        Some(self)
    }
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.part().0.list(out);
    }
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.part_mut().0.list_mut(out);
    }
    fn lend(&mut self, out: &mut Parts<'_, T>) {
        self.part_mut().0.lend(out);
    }
    fn validate(&self) -> Result<()> {
        self.part().0.validate()
    }
    fn inputs(&self) -> usize {
        self.part().0.inputs()
    }
    fn outputs(&self) -> usize {
        self.part().0.outputs()
    }
    fn differentiable_input(&self, input: usize) -> bool {
        self.part().0.differentiable_input(input)
    }
    fn output_shapes(&self, inputs: &[Shape]) -> Result<Vec<Shape>> {
        self.part().0.output_shapes(inputs)
    }
    fn apply(
        &self,
        xs: &[&Tensor<T>],
        ys: &mut [Tensor<T>],
        state: &mut AnyState,
        cx: Context,
    ) -> Result<()> {
        self.part().0.apply(xs, ys, state, cx)?;
        self.tell(Some(state.call()), xs, Event::Forward(ys));
        Ok(())
    }
    fn pull(
        &self,
        call: ModuleCall<'_, T>,
        state: &mut AnyState,
        grads: &mut Grads<T>,
        dxs: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        self.part().0.pull(call, state, grads, dxs)?;
        let dxs: Vec<_> = dxs.iter().map(|dx| dx.as_deref()).collect();
        let event = Event::Backward { dys: call.dys, dxs: &dxs, grads: Some(grads) };
        self.tell(Some(state.call()), call.xs, event);
        Ok(())
    }
    fn apply_one(&self, x: &Tensor<T>, y: &mut Tensor<T>, state: &mut AnyState, cx: Context) -> Result<()> {
        self.part().0.apply_one(x, y, state, cx)?;
        self.tell(Some(state.call()), &[x], Event::Forward(slice::from_ref(y)));
        Ok(())
    }
    fn pull_one(
        &self,
        call: Call<'_, T>,
        state: &mut AnyState,
        grads: &mut Grads<T>,
        mut dx: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        self.part().0.pull_one(call, state, grads, dx.as_deref_mut())?;
        let event = Event::Backward { dys: &[Some(call.dy)], dxs: &[dx.as_deref()], grads: Some(grads) };
        self.tell(Some(state.call()), &[call.x], event);
        Ok(())
    }
    fn reads_outputs(&self) -> bool {
        self.part().0.reads_outputs()
    }
    fn as_in_place(&self) -> Option<&dyn InPlace<T>> {
        self.part().0.as_in_place().map(|_| self as _)
    }
    fn learns(&self) -> Learning {
        self.part().0.learns()
    }
    fn set_mode(&mut self, path: &str, mode: Mode) -> Result<()> {
        self.part_mut().0.set_mode(path, mode)
    }
    fn nesting(&self) -> usize {
        self.part().0.nesting()
    }
    fn fold(&mut self, state: &AnyState) {
        self.part_mut().0.fold(state);
    }
    fn remember(&self, state: &mut AnyState, out: &mut Memory<'_, T>) -> Result<()> {
        self.part().0.remember(state, out)
    }
    fn cost(&self, inputs: &[Shape]) -> u64 {
        self.part().0.cost(inputs)
    }
    fn to_spec(&self) -> Spec {
        self.part().0.to_spec()
    }
    fn summarize(&self, inputs: &[Shape], out: &mut Summary) -> Result<Vec<Shape>> {
        self.part().0.summarize(inputs, out)
    }
}

impl<T: Scalar> InPlace<T> for Watched<T> {
    fn forward_in_place(&self, x: &mut Tensor<T>) -> Result<()> {
        let Some(part) = self.part().0.as_in_place() else {
            return Err(Error::value("expected a layer that works in place"));
        };
        let before = x.clone();
        part.forward_in_place(x)?;
        self.tell(None, &[&before], Event::Forward(slice::from_ref(x)));
        Ok(())
    }

    fn backward_in_place(&self, y: &Tensor<T>, dy: &mut Tensor<T>) {
        let Some(part) = self.part().0.as_in_place() else { return };
        let before = dy.clone();
        part.backward_in_place(y, dy);
        self.tell(None, &[], Event::Backward { dys: &[Some(&before)], dxs: &[Some(dy)], grads: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, path, expected) in [
            ("0", "0", true),
            ("0", "0.1", false),
            ("*", "encoder.0", true),
            ("encoder.*", "encoder.0.inner", true),
            ("encoder.*", "encoder", false),
            ("*.conv", "a.b.conv", true),
            ("*.conv", "conv", false),
            ("a*b*c", "a.b.b.c", true),
            ("a*b*c", "a.c.b", false),
            ("a**", "a", true),
            ("aa*a", "aa", false),
            ("", "0", false),
        ] {
            assert_eq!(fits(pattern, path), expected, "{pattern} {path}");
        }
    }
}
