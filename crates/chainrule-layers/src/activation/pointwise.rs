//! Activations of single elements, each written as its value and its derivative.

use chainrule_core::{Call, Example, Layer, Result, Scalar, Spec, Tensor};
use chainrule_tensor::kernels::elementwise::{Function, apply, map, map2, update};

/// A function of one element.
///
/// Both methods are `inline(always)`: a loop with a call is not vectorised. `FMA` says whether the processor has fused
/// multiply-add. Hyper-parameters are the layer's `f64`; the compiler hoists their conversion out of the loop.
pub(super) trait Pointwise<T>: Copy + Sync {
    /// y = f(x)
    fn value<const FMA: bool>(self, x: T) -> T;

    /// ∂y/∂x as a function of x or of y, whichever [`pointwise!`] names.
    fn slope<const FMA: bool>(self, v: T) -> T;
}

/// Where sigmoids, tanh and Φ have long been 0 or 1 in both scalar types.
const FAR: f64 = 1e4;

/// x, or −[`FAR`] beyond: a factor that meets 0 there gives 0, and not −∞ · 0. NaN stays.
#[inline(always)]
pub(super) fn above<T: Scalar>(x: T) -> T {
    let low = T::from_f64(-FAR);
    if x < low { low } else { x }
}

/// x within ±[`FAR`], as [`above`] on both sides.
#[inline(always)]
pub(super) fn within<T: Scalar>(x: T) -> T {
    let (x, high) = (above(x), T::from_f64(FAR));
    if x > high { high } else { x }
}

/// x within [low, high]. NaN stays.
#[inline(always)]
pub(super) fn clamp<T: Scalar>(x: T, low: T, high: T) -> T {
    let x = if x <= low { low } else { x };
    if x >= high { high } else { x }
}

/// 1 for low < v < high, 0 elsewhere; NaN stays.
#[inline(always)]
pub(super) fn inside<T: Scalar>(v: T, low: T, high: T) -> T {
    let slope = if v > low && v < high { T::ONE } else { T::ZERO };
    if v.is_nan() { v } else { slope }
}

/// The hyper-parameters of a pointwise layer, for `Layer::check` and `Layer::spec`.
pub(super) trait Settings {
    /// Whether their values are valid.
    fn check_settings(&self) -> Result<()> {
        Ok(())
    }

    /// Kind and attributes.
    fn settings(&self) -> Spec;
}

#[derive(Clone, Copy)]
struct Value<F>(F);

impl<T: Scalar, F: Pointwise<T>> Function<T, T> for Value<F> {
    #[inline(always)]
    fn of<const FMA: bool>(self, x: T) -> T {
        self.0.value::<FMA>(x)
    }
}

#[derive(Clone, Copy)]
struct Gradient<F>(F);

impl<T: Scalar, F: Pointwise<T>> Function<(T, T), T> for Gradient<F> {
    #[inline(always)]
    fn of<const FMA: bool>(self, (v, dy): (T, T)) -> T {
        dy * self.0.slope::<FMA>(v) // dx = dy ∂y/∂x
    }
}

/// y = f(x)
pub(super) fn forward<T: Scalar>(f: impl Pointwise<T>, x: &Tensor<T>, y: &mut Tensor<T>) {
    map(x.data(), y.reset(*x.shape()), Value(f));
}

/// dx = dy ∂y/∂x; `v` is the x or y of the derivative.
pub(super) fn backward<T: Scalar>(
    f: impl Pointwise<T>,
    v: &Tensor<T>,
    call: Call<'_, T>,
    dx: &mut Tensor<T>,
) {
    map2(v.data(), call.dy.data(), dx.reset(*call.x.shape()), Gradient(f));
}

/// x = f(x)
pub(super) fn forward_in_place<T: Scalar>(f: impl Pointwise<T>, x: &mut Tensor<T>) {
    apply(x.data_mut(), Value(f));
}

/// dy = dy ∂y/∂x, a function of y.
pub(super) fn backward_in_place<T: Scalar>(f: impl Pointwise<T>, y: &Tensor<T>, dy: &mut Tensor<T>) {
    // Slopes of y are a few plain operations, of which FMA changes no bit.
    update(dy.data_mut(), y.data(), |dy, y| Gradient(f).of::<false>((y, dy)));
}

/// Cases of a pointwise layer; the first one is also a bench.
pub(super) fn examples<L: Layer>(layers: impl IntoIterator<Item = L>) -> Vec<Example> {
    let mut examples: Vec<_> = layers.into_iter().map(|l| Example::new(l.spec(), [[3, 5]])).collect();
    let bench = examples.first().map(|first| Example::bench(first.spec.clone(), [[256, 1024]]));
    examples.extend(bench);
    examples
}

/// Implements `Layer` by [`Pointwise`] and [`Settings`]; and `InPlace` if the derivative is a function of y.
macro_rules! pointwise {
    ($layer:ident, slope of $v:ident) => {
        impl<T: chainrule_core::Scalar> chainrule_core::Layer for $layer<T> {
            type T = T;
            type Cache = ();

            fn check(&self) -> chainrule_core::Result<()> {
                $crate::activation::pointwise::Settings::check_settings(self)
            }

            fn output_shape(&self, input: &[usize]) -> chainrule_core::Result<chainrule_core::Shape> {
                chainrule_core::Layer::check(self)?;
                chainrule_core::Shape::new(input)
            }

            fn forward(
                &self,
                x: &chainrule_core::Tensor<T>,
                y: &mut chainrule_core::Tensor<T>,
                _: &mut (),
                _: chainrule_core::Context,
            ) -> chainrule_core::Result<()> {
                chainrule_tensor::compiled! {
                    fn forward[T](f: $layer<T>, x: &chainrule_core::Tensor<T>, y: &mut chainrule_core::Tensor<T>) {
                        $crate::activation::pointwise::forward(f, x, y);
                    }
                }
                chainrule_core::Layer::check(self)?;
                forward(*self, x, y);
                Ok(())
            }

            fn backward(
                &self,
                call: chainrule_core::Call<'_, T>,
                _: &mut (),
                _: &mut chainrule_core::Grads<T>,
                dx: Option<&mut chainrule_core::Tensor<T>>,
            ) -> chainrule_core::Result<()> {
                chainrule_tensor::compiled! {
                    fn backward[T](
                        f: $layer<T>,
                        call: chainrule_core::Call<'_, T>,
                        dx: &mut chainrule_core::Tensor<T>,
                    ) {
                        $crate::activation::pointwise::backward(f, call.$v, call, dx);
                    }
                }
                if let Some(dx) = dx {
                    backward(*self, call, dx);
                }
                Ok(())
            }

            $crate::activation::pointwise::pointwise!(@hooks $v);

            fn spec(&self) -> chainrule_core::Spec {
                $crate::activation::pointwise::Settings::settings(self)
            }
        }

        $crate::activation::pointwise::pointwise!(@twin $v $layer);
    };
    (@hooks x) => {
        fn reads_output(&self) -> bool {
            false
        }
    };
    (@hooks y) => {
        fn in_place(&self) -> Option<&dyn chainrule_core::InPlace<T>> {
            Some(self)
        }
    };
    (@twin x $layer:ident) => {};
    (@twin y $layer:ident) => {
        impl<T: chainrule_core::Scalar> chainrule_core::InPlace<T> for $layer<T> {
            fn forward_in_place(&self, x: &mut chainrule_core::Tensor<T>) -> chainrule_core::Result<()> {
                chainrule_tensor::compiled! {
                    fn forward[T](f: $layer<T>, x: &mut chainrule_core::Tensor<T>) {
                        $crate::activation::pointwise::forward_in_place(f, x);
                    }
                }
                chainrule_core::Layer::check(self)?;
                forward(*self, x);
                Ok(())
            }

            fn backward_in_place(
                &self,
                y: &chainrule_core::Tensor<T>,
                dy: &mut chainrule_core::Tensor<T>,
            ) {
                chainrule_tensor::compiled! {
                    fn backward[T](f: $layer<T>, y: &chainrule_core::Tensor<T>, dy: &mut chainrule_core::Tensor<T>) {
                        $crate::activation::pointwise::backward_in_place(f, y, dy);
                    }
                }
                backward(*self, y, dy);
            }
        }
    };
}
pub(super) use pointwise;
