//! Layers of any type behind one. The only place where types are erased.

use crate::{
    Call, Context, Grads, InPlace, Layer, MultiCall, MultiLayer, Params, ParamsMut, Result, Summary,
    summary::type_name,
};
use chainrule_tensor::{Error, Scalar, Shape, Tensor};
use std::any::Any;

/// The cache of a [`BoxLayer`]: empty until forward fills it with the right type.
#[derive(Default)]
pub struct AnyCache(Option<Box<dyn Any + Send>>);

impl AnyCache {
    fn for_forward<C: Default + Send + 'static>(&mut self) -> &mut C {
        if !self.0.as_ref().is_some_and(|cache| cache.is::<C>()) {
            self.0 = Some(Box::new(C::default()));
        }
        self.0.as_mut().and_then(|cache| cache.downcast_mut()).expect("just made")
    }

    fn recorded<C: 'static, L: ?Sized>(&mut self) -> Result<&mut C> {
        self.0.as_mut().and_then(|cache| cache.downcast_mut()).ok_or_else(|| {
            Error::not_recorded(format!(
                "{}: expected the cache that forward filled, got another or an empty one",
                type_name::<L>()
            ))
        })
    }
}

impl std::fmt::Debug for AnyCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "AnyCache(filled)" } else { "AnyCache(empty)" })
    }
}

macro_rules! erased {
    ($twin:ident, $contract:ident, $boxed:ident, $input:ty, $xs:ty, $call:ty, $dx:ty,
     {$($declared:tt)*} {$($of_layer:tt)*} {$($of_box:tt)*}) => {
        trait $twin<T: Scalar>: Send + Sync {
            fn clone_box(&self) -> Box<dyn $twin<T>>;
            fn check(&self) -> Result<()>;
            fn output_shape(&self, input: $input) -> Result<Shape>;
            fn forward(
                &self,
                x: $xs,
                y: &mut Tensor<T>,
                cache: &mut AnyCache,
                cx: &mut Context,
            ) -> Result<()>;
            fn backward(
                &self,
                call: $call,
                cache: &mut AnyCache,
                grads: &mut Grads<T>,
                dx: $dx,
            ) -> Result<()>;
            fn reads_output(&self) -> bool;
            $($declared)*
            fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>);
            fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>);
            fn absorb(&mut self, cache: &AnyCache);
            fn multiply_adds(&self, input: $input) -> u64;
            fn describe(&self, input: $input, out: &mut Summary) -> Result<Shape>;
        }

        impl<T: Scalar, L: $contract<T> + Clone + 'static> $twin<T> for L {
            fn clone_box(&self) -> Box<dyn $twin<T>> {
                Box::new(self.clone())
            }
            fn check(&self) -> Result<()> {
                $contract::check(self)
            }
            fn output_shape(&self, input: $input) -> Result<Shape> {
                $contract::output_shape(self, input)
            }
            fn forward(
                &self,
                x: $xs,
                y: &mut Tensor<T>,
                cache: &mut AnyCache,
                cx: &mut Context,
            ) -> Result<()> {
                $contract::forward(self, x, y, cache.for_forward(), cx)
            }
            fn backward(
                &self,
                call: $call,
                cache: &mut AnyCache,
                grads: &mut Grads<T>,
                dx: $dx,
            ) -> Result<()> {
                $contract::backward(self, call, cache.recorded::<L::Cache, L>()?, grads, dx)
            }
            fn reads_output(&self) -> bool {
                $contract::reads_output(self)
            }
            $($of_layer)*
            fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
                $contract::params(self, out);
            }
            fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
                $contract::params_mut(self, out);
            }
            fn absorb(&mut self, cache: &AnyCache) {
                if let Some(cache) = cache.0.as_ref().and_then(|cache| cache.downcast_ref()) {
                    $contract::absorb(self, cache);
                }
            }
            fn multiply_adds(&self, input: $input) -> u64 {
                $contract::multiply_adds(self, input)
            }
            fn describe(&self, input: $input, out: &mut Summary) -> Result<Shape> {
                $contract::describe(self, input, out)
            }
        }

        impl<T: Scalar> $boxed<T> {
            /// Boxes a layer.
            pub fn new(layer: impl $contract<T> + Clone + 'static) -> Self {
                Self(Box::new(layer))
            }
        }

        impl<T: Scalar> Clone for $boxed<T> {
            fn clone(&self) -> Self {
                Self(self.0.clone_box())
            }
        }

        impl<T: Scalar> $contract<T> for $boxed<T> {
            type Cache = AnyCache;
            fn check(&self) -> Result<()> {
                self.0.check()
            }
            fn output_shape(&self, input: $input) -> Result<Shape> {
                self.0.output_shape(input)
            }
            fn forward(
                &self,
                x: $xs,
                y: &mut Tensor<T>,
                cache: &mut AnyCache,
                cx: &mut Context,
            ) -> Result<()> {
                self.0.forward(x, y, cache, cx)
            }
            fn backward(
                &self,
                call: $call,
                cache: &mut AnyCache,
                grads: &mut Grads<T>,
                dx: $dx,
            ) -> Result<()> {
                self.0.backward(call, cache, grads, dx)
            }
            fn reads_output(&self) -> bool {
                self.0.reads_output()
            }
            $($of_box)*
            fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
                self.0.params(out);
            }
            fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
                self.0.params_mut(out);
            }
            fn absorb(&mut self, cache: &AnyCache) {
                self.0.absorb(cache);
            }
            fn multiply_adds(&self, input: $input) -> u64 {
                self.0.multiply_adds(input)
            }
            fn describe(&self, input: $input, out: &mut Summary) -> Result<Shape> {
                self.0.describe(input, out)
            }
        }
    };
}

/// A layer of any type. Containers hold these.
pub struct BoxLayer<T: Scalar>(Box<dyn AnyLayer<T>>);
erased!(
    AnyLayer,
    Layer,
    BoxLayer,
    &[usize],
    &Tensor<T>,
    Call<'_, T>,
    Option<&mut Tensor<T>>,
    {
        fn in_place(&self) -> Option<&dyn InPlace<T>>;
    }
    {
        fn in_place(&self) -> Option<&dyn InPlace<T>> {
            Layer::in_place(self)
        }
    }
    {
        fn in_place(&self) -> Option<&dyn InPlace<T>> {
            self.0.in_place()
        }
    }
);

/// A layer of several inputs and any type.
pub struct BoxMulti<T: Scalar>(Box<dyn AnyMulti<T>>);
erased!(
    AnyMulti,
    MultiLayer,
    BoxMulti,
    &[&[usize]],
    &[&Tensor<T>],
    MultiCall<'_, T>,
    &mut [Option<&mut Tensor<T>>],
    {}
    {}
    {}
);
