//! A struct of layers in a row as a layer: [`sequence!`](crate::sequence), and what its implementation shares.

use super::{check_output, children::one_to_one, not_recorded, only};
use chainrule_core::{
    Call, Context, Grads, Learning, Module, Parameters, Result, Scalar, Shape, Summary, Tensor,
};
use std::mem;

/// Declares a struct whose fields are layers, and makes it a [`Layer`](crate::core::Layer): x goes through the fields in
/// their order. It stands wherever a layer stands, in a trainer or inside a container; its paths begin with the fields' names;
/// it prints as a tree, and a model file holds it as a [`Sequential`](crate::Sequential) of the same names.
///
/// A field is any layer or module of one input and one output, another such struct included. `struct Net { .. }` is a layer
/// for `f32`, `struct Net<T> { .. }` for either scalar type; containers need `#[derive(Clone)]`. What is not a row is a
/// [`Graph`](crate::Graph), or a module written by hand.
///
/// ```
/// use chainrule_layers::{Linear, Tanh, core::{Module, Parameters, Tensor}, sequence};
///
/// sequence! {
///     /// A network of two layers.
///     #[derive(Clone)]
///     pub struct Net<T = f32> {
///         body: Linear<T>,
///         activation: Tanh<T>,
///         head: Linear<T>,
///     }
/// }
///
/// let net = Net { body: Linear::new(4, 8), activation: Tanh::new(), head: Linear::new(8, 2) };
/// let mut net: Net = net.init(1)?;
/// assert_eq!(net.infer(&Tensor::zeros([5, 4]))?.shape()[..], [5, 2]);
/// assert_eq!(net.set_frozen(true, &|path| path.starts_with("body.")), 2);
/// println!("{net}"); // Net(⏎  (body): Linear(in_features=4, …
/// # Ok::<(), chainrule_layers::core::Error>(())
/// ```
#[macro_export]
macro_rules! sequence {
    (@layer [$($bounds:tt)*] [$($args:tt)*] $t:ty, $name:ident { $($field:ident: $layer:ty),+ }) => {
        const _: () = {
            use $crate::{__sequence as row, core};

            /// What each field keeps.
            pub struct States<$($bounds)*> {
                $($field: <$layer as core::Module>::State,)+
            }

            impl<$($bounds)*> Default for States<$($args)*> {
                fn default() -> Self {
                    Self { $($field: Default::default(),)+ }
                }
            }

            impl<$($bounds)*> core::Layer for $name<$($args)*> {
                type T = $t;
                type Cache = row::Cache<$t, States<$($args)*>>;

                fn check(&self) -> core::Result<()> {
                    $(row::check(stringify!($field), &self.$field)?;)+
                    Ok(())
                }

                fn output_shape(&self, input: &[usize]) -> core::Result<core::Shape> {
                    let shape = core::Shape::new(input)?;
                    $(let shape = row::output_shape(stringify!($field), &self.$field, shape)?;)+
                    Ok(shape)
                }

                fn forward(
                    &self,
                    x: &core::Tensor<$t>,
                    y: &mut core::Tensor<$t>,
                    cache: &mut Self::Cache,
                    cx: core::Context,
                ) -> core::Result<()> {
                    let row::Cache { states, row } = cache;
                    row.forward(x, y, cx, &mut [$((stringify!($field), &mut |x, y, cx| {
                        core::Module::apply_one(&self.$field, x, y, &mut states.$field, cx)
                    })),+])
                }

                fn backward(
                    &self,
                    call: core::Call<'_, $t>,
                    cache: &mut Self::Cache,
                    grads: &mut core::Grads<$t>,
                    dx: Option<&mut core::Tensor<$t>>,
                ) -> core::Result<()> {
                    let row::Cache { states, row } = cache;
                    let parts = [$(row::Part::of(&self.$field)),+];
                    row.backward(stringify!($name), call, grads, dx, &parts, &mut [$((
                        stringify!($field),
                        &mut |call, grads, dx| {
                            core::Module::pull_one(&self.$field, call, &mut states.$field, grads, dx)
                        },
                    )),+])
                }

                fn differentiable(&self) -> bool {
                    $(core::Module::differentiable_input(&self.$field, 0))&&+
                }

                fn reads_output(&self) -> bool {
                    [$(core::Module::reads_outputs(&self.$field)),+].last() == Some(&true)
                }

                fn params<'a>(&'a self, out: &mut core::Params<'_, 'a, $t>) {
                    $(core::Parameters::list(&self.$field, &mut out.child(stringify!($field)));)+
                }

                fn params_mut<'a>(&'a mut self, out: &mut core::ParamsMut<'_, 'a, $t>) {
                    $(core::Parameters::list_mut(&mut self.$field, &mut out.child(stringify!($field)));)+
                }

                fn learning(&self) -> core::Learning {
                    core::Learning::Nothing$(.max(core::Module::learns(&self.$field)))+
                }

                fn absorb(&mut self, cache: &Self::Cache) {
                    $(core::Module::fold(&mut self.$field, &cache.states.$field);)+
                }

                fn memory(
                    &self,
                    cache: &mut Self::Cache,
                    out: &mut core::Memory<'_, $t>,
                ) -> core::Result<()> {
                    $({
                        let mut out = out.child(stringify!($field));
                        core::Module::remember(&self.$field, &mut cache.states.$field, &mut out)?;
                    })+
                    Ok(())
                }

                fn multiply_adds(&self, input: &[usize]) -> u64 {
                    let (shape, sum) = (core::Shape::new(input).ok(), 0u64);
                    $(let (shape, sum) = row::cost(&self.$field, shape, sum);)+
                    shape.map_or(0, |_| sum)
                }

                fn spec(&self) -> core::Spec {
                    core::Spec::new("Sequential")
                        $(.child(stringify!($field), core::Module::to_spec(&self.$field)))+
                }

                fn describe(&self, input: &[usize], out: &mut core::Summary) -> core::Result<core::Shape> {
                    let shape = core::Shape::new(input)?;
                    $(let shape = row::describe(stringify!($field), &self.$field, shape, out)?;)+
                    Ok(shape)
                }
            }

            impl<$($bounds)*> ::std::fmt::Display for $name<$($args)*> {
                fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                    let spec = core::Spec::new(stringify!($name))
                        $(.child(stringify!($field), core::Module::to_spec(&self.$field)))+;
                    ::std::fmt::Display::fmt(&spec, f)
                }
            }
        };
    };
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident<$t:ident $(= $default:ty)?> {
            $($(#[$about:meta])* $see:vis $field:ident: $layer:ty),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name<$t: $crate::core::Scalar $(= $default)?> {
            $($(#[$about])* $see $field: $layer,)+
        }
        $crate::sequence!(@layer [$t: $crate::core::Scalar] [$t] $t, $name { $($field: $layer),+ });
    };
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[$about:meta])* $see:vis $field:ident: $layer:ty),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[$about])* $see $field: $layer,)+
        }
        $crate::sequence!(@layer [] [] f32, $name { $($field: $layer),+ });
    };
}

/// What a struct of layers in a row keeps.
#[derive(Debug)]
pub struct Cache<T, S> {
    /// What each layer keeps.
    pub states: S,
    /// What lies between them.
    pub row: Row<T>,
}

impl<T: Scalar, S: Default> Default for Cache<T, S> {
    fn default() -> Self {
        Self { states: S::default(), row: Row { ys: Vec::new(), dys: Default::default(), recorded: None } }
    }
}

/// What lies between layers in a row.
#[derive(Debug)]
pub struct Row<T> {
    /// The outputs but for the last.
    ys: Vec<Tensor<T>>,
    /// ∂E/∂yᵢ and ∂E/∂yᵢ₋₁, in turn.
    dys: [Tensor<T>; 2],
    /// The shape of x, if the pass was recorded.
    recorded: Option<Shape>,
}

/// Which gradients of a field lead anywhere.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    differentiable: bool,
    learns: bool,
}

impl Part {
    /// Those of a layer.
    pub fn of<M: Module>(layer: &M) -> Self {
        Self { differentiable: layer.differentiable_input(0), learns: layer.learns() == Learning::Active }
    }
}

/// The forward pass of a field.
pub type Forward<'a, T> = &'a mut dyn FnMut(&Tensor<T>, &mut Tensor<T>, Context) -> Result<()>;

/// The backward pass of a field.
pub type Backward<'a, T> =
    &'a mut dyn FnMut(Call<'_, T>, &mut Grads<T>, Option<&mut Tensor<T>>) -> Result<()>;

impl<T: Scalar> Row<T> {
    /// y = fₙ(… f₀(x))
    pub fn forward(
        &mut self,
        x: &Tensor<T>,
        y: &mut Tensor<T>,
        cx: Context,
        layers: &mut [(&str, Forward<'_, T>)],
    ) -> Result<()> {
        self.recorded = None;
        let last = layers.len() - 1;
        self.ys.resize_with(last, Tensor::default);
        for (k, (name, layer)) in layers.iter_mut().enumerate() {
            let (before, rest) = self.ys.split_at_mut(k);
            let (input, output) = (before.last().unwrap_or(x), rest.first_mut().unwrap_or(y));
            let made = layer(input, output, cx.child(k));
            made.and_then(|()| check_output(output, cx)).map_err(|e| e.in_layer(*name))?;
        }
        self.recorded = cx.recording().then(|| *x.shape());
        Ok(())
    }

    /// Gᵢ₋₁ = (∂fᵢ/∂yᵢ₋₁)ᵀ Gᵢ, from the last layer to the first that a requested gradient needs.
    pub fn backward(
        &mut self,
        kind: &str,
        call: Call<'_, T>,
        grads: &mut Grads<T>,
        mut dx: Option<&mut Tensor<T>>,
        parts: &[Part],
        layers: &mut [(&str, Backward<'_, T>)],
    ) -> Result<()> {
        let Self { ys, dys: [dy, dx_inner], recorded } = self;
        if recorded.as_ref() != Some(call.x.shape()) {
            return Err(not_recorded(kind));
        }
        // No gradient passes a layer without a derivative.
        let cut = parts.iter().rposition(|part| !part.differentiable);
        if let Some(dx) = dx.take_if(|_| cut.is_some()) {
            dx.reset(call.x.shape()).fill(T::ZERO);
        }
        let first = parts.iter().position(|part| part.learns).unwrap_or(parts.len());
        let start = if dx.is_some() { 0 } else { first.max(cut.unwrap_or(0)) };
        let (mut dy, mut dx_inner) = (dy, dx_inner);
        for (k, (name, layer)) in layers.iter_mut().enumerate().skip(start).rev() {
            let (y, g) = ys.get(k).map_or((call.y, call.dy), |y| (y, &*dy));
            let inner = Call::recorded(if k == 0 { call.x } else { &ys[k - 1] }, y, g)?;
            let requested = if k == start { dx.take() } else { Some(&mut *dx_inner) };
            layer(inner, grads, requested).map_err(|e| e.in_layer(*name))?; // Gᵢ₋₁ from Gᵢ
            mem::swap(&mut dy, &mut dx_inner);
        }
        Ok(())
    }
}

/// An error unless a field has one input and one output and its hyper-parameters make sense.
pub fn check<M: Module>(name: &str, layer: &M) -> Result<()> {
    one_to_one(layer).and_then(|()| Parameters::validate(layer)).map_err(|e| e.in_layer(name))
}

/// The shape that a field gives.
pub fn output_shape<M: Module>(name: &str, layer: &M, input: Shape) -> Result<Shape> {
    layer.output_shapes(&[input]).and_then(only).map_err(|e| e.in_layer(name))
}

/// The multiply-adds with those of a field, and the shape that it gives.
pub fn cost<M: Module>(layer: &M, input: Option<Shape>, sum: u64) -> (Option<Shape>, u64) {
    let Some(input) = input else { return (None, sum) };
    let output = layer.output_shapes(&[input]).and_then(only).ok();
    (output, sum.saturating_add(layer.cost(&[input])))
}

/// The rows of a field in a summary.
pub fn describe<M: Module>(name: &str, layer: &M, input: Shape, out: &mut Summary) -> Result<Shape> {
    let shapes = out.child(name, |out| layer.summarize(&[input], out));
    shapes.and_then(only).map_err(|e| e.in_layer(name))
}

#[cfg(test)]
mod tests {
    use crate::{Activation, BatchNorm1d, Dropout, Embedding, Flatten, Gelu, Linear, Sequential, Split};
    use chainrule_core::{Context, Error, Kind, Layer, Module, Parameters, Pass, Tensor};
    use chainrule_gradcheck::laws;
    use std::cell::Cell;

    sequence! {
        /// A network with batch statistics and noise.
        #[derive(Clone)]
        struct Net<T> {
            first: Linear<T>,
            norm: BatchNorm1d<T>,
            activation: Gelu<T>,
            dropout: Dropout<T>,
            inner: Inner<T>,
        }
    }

    sequence! {
        /// A row in a row.
        #[derive(Clone)]
        struct Inner<T> {
            head: Linear<T>,
        }
    }

    sequence! {
        /// Ids come first.
        #[derive(Clone)]
        struct Words<T> {
            flatten: Flatten<T>,
            table: Embedding<T>,
            head: Linear<T>,
        }
    }

    fn net<T: chainrule_core::Scalar>([a, b, c]: [usize; 3], p: f64) -> Net<T> {
        Net {
            first: Linear::new(a, b),
            norm: BatchNorm1d::new(b),
            activation: Gelu::new(),
            dropout: Dropout::new(p),
            inner: Inner { head: Linear::new(b, c) },
        }
    }

    laws! {
        obeys_the_laws(rows in 4..8usize, a in 1..6usize, b in 1..6usize, c in 1..6usize, p in 0.0..0.9) {
            layer: net::<T>([a, b, c], p),
            input: [rows, a],
            wrong: [rows, a + 1],
        }
        obeys_the_laws_over_ids(rows in 1..5usize, count in 2..6usize, width in 1..4usize) {
            layer: Words::<T> {
                flatten: Flatten::new(),
                table: Embedding::new(count, width),
                head: Linear::new(width, 2),
            },
            input: [rows, 3],
            values: Values::Indices(0..count),
        }
    }

    #[test]
    fn a_struct_gives_the_bits_of_a_sequential_of_the_same_names() {
        let twin = Sequential::of()
            .named("first", Linear::new(3, 5))
            .named("norm", BatchNorm1d::new(5))
            .named("activation", Gelu::new())
            .named("dropout", Dropout::new(0.4))
            .named("inner", Sequential::of().named("head", Linear::new(5, 2)))
            .init(7)
            .unwrap();
        let mut net = net::<f32>([3, 5, 2], 0.4).init(7).unwrap();
        let x = Tensor::from_fn([6, 3], |i| (i as f32 * 0.7).sin());
        fn run<M: Module<T = f32>>(model: &M, x: &Tensor) -> (Vec<f32>, Vec<f32>) {
            let mut pass = Pass::new(model);
            let y = pass.forward(model, x, Context::train(3).step(2)).unwrap().data().to_vec();
            pass.output_gradients_mut().push(Tensor::full([6, 2], 1.0));
            pass.backward(model, x).unwrap();
            (y, pass.grads().values().to_vec())
        }
        assert_eq!(run(&net, &x), run(&twin, &x));
        assert_eq!(net.to_spec(), twin.to_spec());
        assert_eq!(net.to_string(), twin.to_string().replacen("Sequential", "Net", 1));
        let rows = |model: &dyn Fn() -> chainrule_core::Summary| {
            model().rows().iter().map(|r| (r.path.clone(), r.output, r.parameters)).collect::<Vec<_>>()
        };
        assert_eq!(rows(&|| net.summary(x.shape()).unwrap()), rows(&|| twin.summary(x.shape()).unwrap()));
        assert_eq!(net.multiply_adds(x.shape()), twin.multiply_adds(x.shape()));
        assert_eq!(net.set_frozen(true, &|path| path.starts_with("inner.head.")), 2);
    }

    sequence! {
        /// A row whose second part counts its backward calls.
        #[derive(Clone)]
        struct Counted {
            first: Linear,
            count: Activation<fn(f32) -> f32, fn(f32) -> f32>,
            head: Linear,
        }
    }

    thread_local!(static CALLS: Cell<usize> = const { Cell::new(0) });

    #[test]
    fn backward_stops_at_the_first_part_that_learns() {
        fn slope(_: f32) -> f32 {
            CALLS.set(CALLS.get() + 1);
            1.0
        }
        let count = Activation::new((|x| x) as fn(f32) -> f32, slope as fn(f32) -> f32);
        let net = Counted { first: Linear::new(2, 1), count, head: Linear::new(1, 1) };
        let (mut net, x) = (net.init(1).unwrap(), Tensor::full([1, 2], 0.5));
        let mut pass = Pass::new(&net);
        for (frozen, which, calls) in
            [(false, "", 1), (true, "first.", 1), (true, "head.", 1), (false, "first.", 2), (true, "", 2)]
        {
            net.set_frozen(frozen, &|path| path.starts_with(which));
            pass.forward(&net, &x, Context::train(1)).unwrap();
            *pass.output_gradients_mut() = vec![Tensor::full([1, 1], 1.0)];
            pass.backward(&net, &x).unwrap();
            assert_eq!(CALLS.get(), calls, "{which} {frozen}");
        }
    }

    sequence! {
        /// Something that is not a row.
        #[derive(Clone)]
        struct Forked {
            first: Linear,
            split: Split,
        }
    }

    #[test]
    fn errors_name_the_field() {
        let text = |error: Error| error.to_string();
        let wrong = Net { inner: Inner { head: Linear::new(4, 2) }, ..net::<f32>([3, 5, 2], 0.4) };
        assert!(
            text(wrong.output_shape(&[6, 3]).unwrap_err()).starts_with("in layer `inner.head`: Linear: ")
        );
        assert!(text(net::<f32>([3, 5, 2], 2.0).init(1).err().unwrap()).starts_with("in layer `dropout`: "));
        let forked = Forked { first: Linear::new(2, 4), split: Split::new([2, 2], 1) };
        let error = forked.check().unwrap_err();
        assert!(matches!(error.kind(), Kind::Value(_)));
        assert_eq!(
            text(error),
            "in layer `split`: expected a module of one input and one output, got 1 and 2"
        );
    }
}
