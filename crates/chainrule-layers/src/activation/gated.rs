//! Gated linear units: one half of an axis multiplies the other, after a function.

use crate::rank::axis;
use chainrule_core::{Call, Error, Example, Layer, Result, Scalar, Shape, Tensor};
use chainrule_tensor::kernels::{elementwise::Function, layers::gate};

/// The function f of a gate, of y = a f(b).
///
/// `gate` is `inline(always)`, as the methods of [`Pointwise`](super::pointwise::Pointwise) are.
pub(super) trait Gate<T>: Copy + Sync {
    /// (f(b), f′(b))
    fn gate<const FMA: bool>(self, b: T) -> (T, T);
}

#[derive(Clone, Copy)]
struct Value<G>(G);

impl<T: Scalar, G: Gate<T>> Function<(T, T), T> for Value<G> {
    #[inline(always)]
    fn of<const FMA: bool>(self, (a, b): (T, T)) -> T {
        a * self.0.gate::<FMA>(b).0
    }
}

#[derive(Clone, Copy)]
struct Gradient<G>(G);

impl<T: Scalar, G: Gate<T>> Function<(T, T, T), (T, T)> for Gradient<G> {
    #[inline(always)]
    fn of<const FMA: bool>(self, (a, b, dy): (T, T, T)) -> (T, T) {
        let (value, slope) = self.0.gate::<FMA>(b);
        (dy * value, dy * a * slope) // da = dy f(b), db = dy a f′(b)
    }
}

/// The shape of y for the halves of the axis `dim` of x, and the elements of a half from that axis on.
pub(super) fn halved(layer: &str, dim: isize, shape: &[usize]) -> Result<(Shape, usize)> {
    let shape = Shape::new(shape)?;
    match axis(dim, shape.len()) {
        None => Err(Error::shape(format!("{layer}: expected an input with axis {dim}, got shape {shape}"))),
        Some(at) if shape[at].is_multiple_of(2) => {
            let y = shape.with(at, shape[at] / 2);
            Ok((y, y[at..].iter().product()))
        }
        Some(_) => {
            Err(Error::shape(format!("{layer}: expected an even size along axis {dim}, got shape {shape}")))
        }
    }
}

/// y = a f(b)
pub(super) fn forward<T: Scalar>(f: impl Gate<T>, h: usize, x: &Tensor<T>, y: &mut [T]) {
    gate::forward(x.data(), h, y, Value(f));
}

/// da = dy f(b), db = dy a f′(b)
pub(super) fn backward<T: Scalar>(f: impl Gate<T>, h: usize, call: Call<'_, T>, dx: &mut Tensor<T>) {
    gate::backward(call.x.data(), call.dy.data(), h, dx.reset(*call.x.shape()), Gradient(f));
}

/// Cases along the last axis and along an inner one.
pub(super) fn examples<L: Layer>(along: impl Fn(isize) -> L) -> Vec<Example> {
    vec![
        Example::new(along(-1).spec(), [[3, 6]]),
        Example::new(along(1).spec(), [[2, 4, 3]]),
        Example::bench(along(-1).spec(), [[256, 2048]]),
    ]
}

/// Implements `Layer` by [`Gate`] and the fields `dim` and, if there are any, those of a spec's `options`.
macro_rules! gated {
    ($layer:ident $(, $option:literal: $value:expr)?) => {
        impl<T: chainrule_core::Scalar> Default for $layer<T> {
            fn default() -> Self {
                Self::new()
            }
        }

        impl<T: chainrule_core::Scalar> chainrule_core::Layer for $layer<T> {
            type T = T;
            type Cache = ();

            fn output_shape(&self, input: &[usize]) -> chainrule_core::Result<chainrule_core::Shape> {
                Ok($crate::activation::gated::halved(stringify!($layer), self.dim, input)?.0)
            }

            fn forward(
                &self,
                x: &chainrule_core::Tensor<T>,
                y: &mut chainrule_core::Tensor<T>,
                _: &mut (),
                _: chainrule_core::Context,
            ) -> chainrule_core::Result<()> {
                chainrule_tensor::compiled! {
                    fn forward[T](f: $layer<T>, h: usize, x: &chainrule_core::Tensor<T>, y: &mut [T]) {
                        $crate::activation::gated::forward(f, h, x, y);
                    }
                }
                let (shape, h) = $crate::activation::gated::halved(stringify!($layer), self.dim, x.shape())?;
                forward(*self, h, x, y.reset(shape)); // y = a f(b)
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
                        h: usize,
                        call: chainrule_core::Call<'_, T>,
                        dx: &mut chainrule_core::Tensor<T>,
                    ) {
                        $crate::activation::gated::backward(f, h, call, dx);
                    }
                }
                let (_, h) = $crate::activation::gated::halved(stringify!($layer), self.dim, call.x.shape())?;
                if let Some(dx) = dx {
                    backward(*self, h, call, dx); // da = dy f(b), db = dy a f′(b)
                }
                Ok(())
            }

            fn reads_output(&self) -> bool {
                false
            }

            fn spec(&self) -> chainrule_core::Spec {
                let spec = chainrule_core::Spec::new(stringify!($layer)).with("dim", self.dim);
                $(let spec = spec.with($option, $value(self));)?
                spec
            }
        }
    };
}
pub(super) use gated;

#[cfg(test)]
pub(crate) mod tests {
    use chainrule_core::{Call, Grads, Layer, Module, Tensor};

    /// The shape with twice as many elements along an axis.
    pub fn doubled(shape: &[usize], axis: isize) -> Vec<usize> {
        let mut shape = shape.to_vec();
        let at = axis.rem_euclid(shape.len() as isize) as usize;
        shape[at] *= 2;
        shape
    }

    /// Compares y and, for ∂E/∂y = 5 everywhere, ∂E/∂x with values worked out on paper, along the last axis.
    pub fn assert_by_hand<const N: usize, const H: usize>(
        layer: impl Layer<T = f64, Cache = ()>,
        x: [f64; N],
        y: [f64; H],
        dx: [f64; N],
    ) {
        let (x, dy) = (Tensor::from([x]), Tensor::from([[5.0; H]]));
        let (got_y, mut got_dx, mut grads) =
            (layer.infer(&x).unwrap(), Tensor::default(), Grads::new(&layer));
        layer
            .backward(Call::new(&layer, &x, &got_y, &dy).unwrap(), &mut (), &mut grads, Some(&mut got_dx))
            .unwrap();
        for (got, want) in got_y.data().iter().zip(y).chain(got_dx.data().iter().zip(dx)) {
            assert!((got - want).abs() < 1e-13 * want.abs().max(1.0), "{got} for {want}");
        }
    }
}
