//! Anything with parameters.

use crate::{Layer, Param, Params, ParamsMut, Path, Result};
use chainrule_tensor::{Error, Init, Rng, Scalar};
use std::collections::HashSet;

/// Anything with parameters: every layer, every module, and a plain struct that lists its layers. It is what gradients,
/// optimizers, files and counters take.
///
/// A struct of layers implements it by [`parameters!`](crate::parameters).
pub trait Parameters {
    /// The element type, `f32` or `f64`.
    type T: Scalar;

    /// Lists every parameter and buffer, in a fixed order.
    fn list<'a>(&'a self, out: &mut Params<'_, 'a, Self::T>);

    /// Lists every parameter and buffer, to be changed, in the order of [`Parameters::list`].
    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, Self::T>);

    /// Whether the hyper-parameters make sense together; see [`Layer::check`].
    ///
    /// # Errors
    /// A value error that says which is wrong and why.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// Whether both lists have the same parameters in the same order, one that stands in several places counted where it comes
    /// first: what one of them misses is never initialised, loaded or trained. [`Parameters::init`] and the gradient checker ask.
    ///
    /// # Errors
    /// A state error that names what is missing.
    fn same_lists(&mut self) -> Result<()> {
        let [mut in_order, mut in_order_mut] = [Vec::new(), Vec::new()];
        let [mut shared, mut exclusive] = [HashSet::new(), HashSet::new()];
        self.visit(&mut |_, p| in_order.extend(shared.insert(p.id()).then(|| p.id())));
        self.visit_mut(&mut |_, p| in_order_mut.extend(exclusive.insert(p.id()).then(|| p.id())));
        if in_order == in_order_mut {
            return Ok(());
        }
        let [mut listed, mut changed] = [Vec::new(), Vec::new()];
        self.visit(&mut |path, p| listed.extend((!exclusive.contains(&p.id())).then(|| format!("`{path}`"))));
        self.visit_mut(&mut |path, p| {
            changed.extend((!shared.contains(&p.id())).then(|| format!("`{path}`")))
        });
        Err(Error::state(match (&listed[..], &changed[..]) {
            ([], []) => "expected params_mut to list the parameters in the order of params".to_owned(),
            (_, []) => {
                format!("expected params_mut to list what params lists, got none of {}", listed.join(", "))
            }
            _ => format!("expected params to list what params_mut lists, got none of {}", changed.join(", ")),
        }))
    }

    /// Calls `f` with every parameter and buffer.
    fn visit(&self, f: &mut dyn FnMut(&Path<'_>, &Param<Self::T>)) {
        self.list(&mut Params::new(&mut |path, p| f(path, p)));
    }

    /// Calls `f` with every parameter and buffer, to be changed.
    fn visit_mut(&mut self, f: &mut dyn FnMut(&Path<'_>, &mut Param<Self::T>)) {
        self.list_mut(&mut ParamsMut::new(&mut |path, p| f(path, p)));
    }

    /// Calls `f` with every parameter and buffer until it fails: what a closure with `?` goes to.
    ///
    /// # Errors
    /// The first error of `f`.
    fn try_visit(&self, f: &mut dyn FnMut(&Path<'_>, &Param<Self::T>) -> Result<()>) -> Result<()> {
        let mut result = Ok(());
        self.visit(&mut |path, p| {
            if result.is_ok() {
                result = f(path, p);
            }
        });
        result
    }

    /// Calls `f` with every parameter and buffer, to be changed, until it fails.
    ///
    /// # Errors
    /// The first error of `f`.
    fn try_visit_mut(
        &mut self,
        f: &mut dyn FnMut(&Path<'_>, &mut Param<Self::T>) -> Result<()>,
    ) -> Result<()> {
        let mut result = Ok(());
        self.visit_mut(&mut |path, p| {
            if result.is_ok() {
                result = f(path, p);
            }
        });
        result
    }

    /// The number of learned elements, frozen ones included, buffers not. A parameter that is listed twice counts once.
    fn parameter_count(&self) -> usize {
        let (mut n, mut known) = (0, HashSet::new());
        self.visit(&mut |_, p| n += if p.is_buffer() || !known.insert(p.id()) { 0 } else { p.volume() });
        n
    }

    /// Freezes (or thaws) the parameters whose path satisfies `which`; returns how many parameters that were.
    fn set_frozen(&mut self, frozen: bool, which: &dyn Fn(&str) -> bool) -> usize {
        let mut n = 0;
        self.visit_mut(&mut |path, p| {
            if !p.is_buffer() && which(&path.to_string()) {
                p.set_frozen(frozen);
                n += 1;
            }
        });
        n
    }

    /// Fills the parameters whose path satisfies `which` by another initialiser, which they keep, each from the stream that
    /// [`Parameters::init`] would take; returns how many parameters that were. A parameter that is listed twice is filled once.
    ///
    /// # Errors
    /// The initialiser could give a value that is not finite; nothing has changed then.
    fn init_where(&mut self, seed: u64, init: Init, which: &dyn Fn(&str) -> bool) -> Result<usize> {
        init.check::<Self::T>()?;
        let mut n = 0;
        self.visit_mut(&mut |path, p| {
            if !p.is_buffer() && which(&path.to_string()) {
                p.set_initializer(init);
                p.fill(&mut Rng::keyed(seed, path));
                n += 1;
            }
        });
        Ok(n)
    }

    /// Fills every parameter by its initialiser, each from its own stream keyed by (seed, path): adding a layer changes
    /// no other layer's start.
    ///
    /// # Errors
    /// An initialiser that could give a value that is not finite, [`Parameters::list_mut`] misses a parameter that
    /// [`Parameters::list`] has, or as [`Parameters::validate`].
    fn init(mut self, seed: u64) -> Result<Self>
    where
        Self: Sized,
    {
        self.validate()?;
        self.same_lists()?;
        self.try_visit(&mut |path, param| {
            param.initializer().check::<Self::T>().map_err(|e| e.in_layer(path.to_string()))
        })?;
        self.visit_mut(&mut |path, param| param.fill(&mut Rng::keyed(seed, path)));
        self.visit_mut(&mut |_, _| {}); // for those that start from the values of others: `Param::is_fresh`
        Ok(self)
    }
}

impl<L: Layer> Parameters for L {
    type T = L::T;

    fn list<'a>(&'a self, out: &mut Params<'_, 'a, L::T>) {
        self.params(out);
    }

    fn list_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, L::T>) {
        self.params_mut(out);
    }

    fn validate(&self) -> Result<()> {
        self.check()
    }
}

/// Implements [`Parameters`](crate::Parameters) for a struct whose named fields are layers, modules or other such structs;
/// the fields' names begin the paths.
///
/// ```
/// # use chainrule_core::{Call, Context, Grads, Init, Layer, Param, Params, ParamsMut, Result, Scalar, Shape, Tensor};
/// use chainrule_core::{Parameters, parameters};
/// # #[derive(Clone)] struct Gain<T>(Param<T>);
/// # impl<T: Scalar> Layer for Gain<T> {
/// #     type T = T;
/// #     type Cache = ();
/// #     fn output_shape(&self, input: &[usize]) -> Result<Shape> { Shape::new(input) }
/// #     fn forward(&self, _: &Tensor<T>, _: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> { Ok(()) }
/// #     fn backward(&self, _: Call<'_, T>, _: &mut (), _: &mut Grads<T>, _: Option<&mut Tensor<T>>) -> Result<()> { Ok(()) }
/// #     fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) { out.add(&self.0) }
/// #     fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) { out.add(&mut self.0) }
/// # }
/// # fn gain<T: Scalar>() -> Gain<T> { Gain(Param::new("weight", [1], Init::ONES)) }
///
/// struct Actor<T> {
///     body: Gain<T>,
///     policy: Gain<T>,
/// }
/// parameters! { Actor<T> { body, policy } }
///
/// let actor = Actor::<f32> { body: gain(), policy: gain() }.init(1)?;
/// let mut paths = Vec::new();
/// actor.visit(&mut |path, _| paths.push(path.to_string()));
/// assert_eq!(paths, ["body.weight", "policy.weight"]);
/// # Ok::<(), chainrule_core::Error>(())
/// ```
#[macro_export]
macro_rules! parameters {
    ($name:ident<$t:ident> { $($field:ident),* $(,)? }) => {
        impl<$t: $crate::Scalar> $crate::Parameters for $name<$t> {
            type T = $t;
            $crate::parameters!(@methods $t, $($field),*);
        }
    };
    ($name:ident: $t:ty { $($field:ident),* $(,)? }) => {
        impl $crate::Parameters for $name {
            type T = $t;
            $crate::parameters!(@methods $t, $($field),*);
        }
    };
    (@methods $t:ty, $($field:ident),*) => {
        fn list<'a>(&'a self, out: &mut $crate::Params<'_, 'a, $t>) {
            $($crate::Parameters::list(&self.$field, &mut out.child(stringify!($field)));)*
        }

        fn list_mut<'a>(&'a mut self, out: &mut $crate::ParamsMut<'_, 'a, $t>) {
            $($crate::Parameters::list_mut(&mut self.$field, &mut out.child(stringify!($field)));)*
        }

        fn validate(&self) -> $crate::Result<()> {
            $($crate::Parameters::validate(&self.$field).map_err(|e| e.in_layer(stringify!($field)))?;)*
            Ok(())
        }
    };
}
