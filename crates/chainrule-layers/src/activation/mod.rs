//! Functions of single elements, and softmax.

#[allow(clippy::module_inception)]
mod activation;
mod elu;
mod gelu;
mod identity;
mod leaky_relu;
mod log_softmax;
mod relu;
mod sigmoid;
mod silu;
mod softmax;
mod softplus;
mod tanh;

pub use activation::Activation;
pub use elu::Elu;
pub use gelu::Gelu;
pub use identity::Identity;
pub use leaky_relu::LeakyRelu;
pub use log_softmax::LogSoftmax;
pub use relu::Relu;
pub use sigmoid::Sigmoid;
pub use silu::Silu;
pub use softmax::Softmax;
pub use softplus::Softplus;
pub use tanh::Tanh;

use chainrule_core::{Error, Result, Shape};

/// Implements `Layer` for a function of single elements: `forward` is y of x, `backward` is ∂y/∂x of x or of y.
///
/// `numbers` are fields that must be finite, here as values of the scalar type; `nonzero` one of them that must not be 0;
/// `flag` is a field that is true or false; the loops are compiled for both. In the expressions, `FMA` says whether the
/// processor multiplies and adds in one instruction.
macro_rules! elementwise {
    ($layer:ident,
     $(flag: $flag:ident,)? $(numbers: [$($number:ident),*],)? $(nonzero: $nonzero:ident,)?
     forward: |$x:ident| $forward:expr,
     backward: |$v:ident| $slope:expr, from $from:ident $(,)?) => {
        const _: () = {
            #[derive(Clone, Copy)]
            struct Value<N, const FLAG: bool>(N);
            impl<T: chainrule_core::Scalar, const FLAG: bool> chainrule_tensor::kernels::elementwise::Function<T, T>
                for Value<[T; crate::activation::count!($($($number)*)?)], FLAG>
            {
                #[inline(always)]
                fn of<const FMA: bool>(self, $x: T) -> T {
                    let [$($($number),*)?] = self.0;
                    $(let $flag = FLAG;)?
                    $forward
                }
            }

            #[derive(Clone, Copy)]
            struct Gradient<N, const FLAG: bool>(N);
            impl<T: chainrule_core::Scalar, const FLAG: bool> chainrule_tensor::kernels::elementwise::Function<(T, T), T>
                for Gradient<[T; crate::activation::count!($($($number)*)?)], FLAG>
            {
                #[inline(always)]
                fn of<const FMA: bool>(self, ($v, dy): (T, T)) -> T {
                    let [$($($number),*)?] = self.0;
                    $(let $flag = FLAG;)?
                    dy * $slope // dx = dy ∂y/∂x
                }
            }

            impl<T: chainrule_core::Scalar> chainrule_core::Layer<T> for $layer {
                type Cache = ();

                fn check(&self) -> chainrule_core::Result<()> {
                    $($(crate::activation::finite(stringify!($layer), stringify!($number), self.$number)?;)*)?
                    $(crate::activation::nonzero(stringify!($layer), stringify!($nonzero), self.$nonzero)?;)?
                    Ok(())
                }

                fn output_shape(&self, input: &[usize]) -> chainrule_core::Result<chainrule_core::Shape> {
                    chainrule_core::Layer::<T>::check(self)?;
                    chainrule_core::Shape::new(input)
                }

                fn forward(
                    &self,
                    x: &chainrule_core::Tensor<T>,
                    y: &mut chainrule_core::Tensor<T>,
                    _: &mut (),
                    _: &mut chainrule_core::Context,
                ) -> chainrule_core::Result<()> {
                    use chainrule_tensor::kernels::elementwise::map;
                    chainrule_core::Layer::<T>::check(self)?;
                    let numbers: [T; crate::activation::count!($($($number)*)?)] = [$($(T::from_f64(self.$number)),*)?];
                    let y = y.reset(*x.shape());
                    crate::activation::by_flag!(self $($flag)?, FLAG => map(x.data(), y, Value::<_, FLAG>(numbers)));
                    Ok(())
                }

                fn backward(
                    &self,
                    call: chainrule_core::Call<'_, T>,
                    _: &mut (),
                    _: &mut chainrule_core::Grads<T>,
                    dx: Option<&mut chainrule_core::Tensor<T>>,
                ) -> chainrule_core::Result<()> {
                    use chainrule_tensor::kernels::elementwise::map2;
                    let Some(dx) = dx else { return Ok(()) };
                    let numbers: [T; crate::activation::count!($($($number)*)?)] = [$($(T::from_f64(self.$number)),*)?];
                    let (v, dy, dx) = (call.$from.data(), call.dy.data(), dx.reset(*call.x.shape()));
                    crate::activation::by_flag!(self $($flag)?, FLAG => map2(v, dy, dx, Gradient::<_, FLAG>(numbers)));
                    Ok(())
                }

                crate::activation::shared!($from hook);
            }
            crate::activation::shared!($from $layer [$($($number),*)?] [$($flag)?] |$v| $slope);
        };
    };
}
use elementwise;

/// A loop with a constant, compiled for each value of the flag if there is one: a loop that asks for it in every step
/// does not vectorise.
macro_rules! by_flag {
    ($this:ident, $constant:ident => $loop:expr) => {{
        const $constant: bool = false;
        $loop
    }};
    ($this:ident $flag:ident, $constant:ident => $loop:expr) => {
        if $this.$flag {
            const $constant: bool = true;
            $loop
        } else {
            const $constant: bool = false;
            $loop
        }
    };
}
use by_flag;

/// How many names there are.
macro_rules! count {
    ($($name:ident)*) => {
        { const NAMES: &[&str] = &[$(stringify!($name)),*]; NAMES.len() }
    };
}
use count;

/// The part of `elementwise` for derivatives that follow from y, where x and y may share memory.
macro_rules! shared {
    (x $($rest:tt)*) => {};
    (y hook) => {
        fn in_place(&self) -> Option<&dyn chainrule_core::InPlace<T>> {
            Some(self)
        }
    };
    (y $layer:ident [$($number:ident),*] [$($flag:ident)?] |$v:ident| $slope:expr) => {
        impl<T: chainrule_core::Scalar> chainrule_core::InPlace<T> for $layer {
            fn forward_in_place(&self, x: &mut chainrule_core::Tensor<T>) -> chainrule_core::Result<()> {
                chainrule_core::Layer::<T>::check(self)?;
                let numbers = [$(T::from_f64(self.$number)),*];
                let x = x.data_mut();
                crate::activation::by_flag!(self $($flag)?, FLAG => {
                    chainrule_tensor::kernels::elementwise::apply(x, Value::<_, FLAG>(numbers))
                });
                Ok(())
            }

            fn backward_in_place(&self, y: &chainrule_core::Tensor<T>, dy: &mut chainrule_core::Tensor<T>) {
                $(let $number = T::from_f64(self.$number);)*
                // dx = dy ∂y/∂x
                chainrule_tensor::kernels::elementwise::update(dy.data_mut(), y.data(), |dy: T, $v: T| dy * $slope);
            }
        }
    };
}
use shared;

fn finite(layer: &str, name: &str, value: f64) -> Result<()> {
    if value.is_finite() {
        return Ok(());
    }
    Err(Error::value(format!("{layer}: expected a finite {name}, got {value}")))
}

fn nonzero(layer: &str, name: &str, value: f64) -> Result<()> {
    if value != 0.0 {
        return Ok(());
    }
    Err(Error::value(format!("{layer}: expected {name} other than 0")))
}

/// An axis counted from the front, or from the back when negative, as (outer, n, inner) of the shape around it.
fn around(layer: &str, axis: isize, shape: &[usize]) -> Result<(usize, usize, usize)> {
    let rank = shape.len();
    let at = if axis < 0 { axis + rank as isize } else { axis };
    if at < 0 || at as usize >= rank {
        return Err(Error::shape(format!(
            "{layer}: expected an input with axis {axis}, got shape {shape:?}"
        )));
    }
    Shape::new(shape)?;
    let at = at as usize;
    Ok((shape[..at].iter().product(), shape[at], shape[at + 1..].iter().product()))
}

#[cfg(test)]
mod tests {
    use chainrule_core::{Call, Context, Grads, Layer, Tensor};

    /// Compares y and, for ∂E/∂y = 5 everywhere, ∂E/∂x with values worked out on paper.
    pub fn by_hand<const N: usize>(
        layer: impl Layer<f64, Cache = ()>,
        x: [f64; N],
        y: [f64; N],
        dx: [f64; N],
    ) {
        let (x, dy) = (Tensor::from(x), Tensor::from([5.0; N]));
        let (mut got_y, mut got_dx, mut grads) = (Tensor::default(), Tensor::default(), Grads::new(&layer));
        layer.forward(&x, &mut got_y, &mut (), &mut Context::train(0)).unwrap();
        let call = Call { x: &x, y: &got_y, dy: &dy };
        layer.backward(call, &mut (), &mut grads, Some(&mut got_dx)).unwrap();
        for (got, want) in got_y.data().iter().zip(y).chain(got_dx.data().iter().zip(dx)) {
            assert!((got - want).abs() < 1e-14 * want.abs().max(1.0) * 10.0, "{got} for {want}");
        }
    }

    #[test]
    fn layers_that_work_in_place_give_the_same_bits() {
        fn check(layer: impl Layer<f64, Cache = ()>) {
            let x = Tensor::from_fn([41], |i| i as f64 * 0.3 - 6.0);
            let dy = Tensor::from_fn([41], |i| 1.0 - i as f64 * 0.07);
            let (mut y, mut dx) = (Tensor::default(), Tensor::default());
            layer.forward(&x, &mut y, &mut (), &mut Context::train(0)).unwrap();
            let mut grads = Grads::new(&layer);
            layer.backward(Call { x: &x, y: &y, dy: &dy }, &mut (), &mut grads, Some(&mut dx)).unwrap();
            let (mut y_in_place, mut dx_in_place) = (x, dy);
            let in_place = layer.in_place().unwrap();
            in_place.forward_in_place(&mut y_in_place).unwrap();
            in_place.backward_in_place(&y, &mut dx_in_place);
            let bits = |t: &Tensor<f64>| t.data().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!([bits(&y_in_place), bits(&dx_in_place)], [bits(&y), bits(&dx)]);
        }
        check(super::Relu::new());
        check(super::Sigmoid::new());
        check(super::Tanh::new());
        assert!(Layer::<f64>::in_place(&super::Gelu::new()).is_none());
    }

    #[test]
    fn hyper_parameters_that_make_no_sense_are_told_at_construction() {
        let text = |layer: Result<super::Softplus, chainrule_core::Error>| layer.unwrap_err().to_string();
        assert_eq!(
            text(Layer::<f32>::init(super::Softplus::new().beta(0.0), 1)),
            "Softplus: expected beta other than 0"
        );
        assert!(Layer::<f32>::init(super::Elu::new().alpha(f64::NAN), 1).is_err());
    }
}
