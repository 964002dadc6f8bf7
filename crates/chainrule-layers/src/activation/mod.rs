//! Activations: functions of single elements, and softmax.

mod axis;
mod channels;
mod gated;
mod pointwise;

crate::registry::family! {
    activation => ;
    bilinear_glu => BilinearGlu;
    celu => Celu;
    elu => Elu;
    geglu => Geglu;
    gelu => Gelu;
    glu => Glu;
    hardshrink => Hardshrink;
    hardsigmoid => Hardsigmoid;
    hardswish => Hardswish;
    hardtanh => Hardtanh;
    identity => Identity;
    leaky_relu => LeakyRelu;
    log_sigmoid => LogSigmoid;
    log_softmax => LogSoftmax;
    mish => Mish;
    prelu => PRelu;
    reglu => Reglu;
    relu => Relu;
    relu6 => Relu6;
    rrelu => RRelu;
    selu => Selu;
    sigmoid => Sigmoid;
    silu => Silu;
    sine => Sine;
    snake => Snake;
    softmax => Softmax;
    softmin => Softmin;
    softplus => Softplus;
    softshrink => Softshrink;
    softsign => Softsign;
    squared_relu => SquaredRelu;
    swiglu => Swiglu;
    tanh => Tanh;
    tanhshrink => Tanhshrink;
    threshold => Threshold;
}

pub use channels::ChannelsCache;

use chainrule_core::{Error, Result};

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

fn at_least_0(layer: &str, name: &str, value: f64) -> Result<()> {
    if value >= 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::value(format!("{layer}: expected a finite {name} ≥ 0, got {value}")))
}

#[cfg(test)]
pub(crate) mod tests {
    use chainrule_core::{Call, Context, Grads, Layer, Parameters, Result, Tensor};

    /// Compares y and, for ∂E/∂y = 5 everywhere, ∂E/∂x with values worked out on paper.
    pub fn assert_by_hand<const N: usize>(
        layer: impl Layer<T = f64, Cache = ()>,
        x: [f64; N],
        y: [f64; N],
        dx: [f64; N],
    ) {
        let (x, dy) = (Tensor::from(x), Tensor::from([5.0; N]));
        let (mut got_y, mut got_dx, mut grads) = (Tensor::default(), Tensor::default(), Grads::new(&layer));
        layer.forward(&x, &mut got_y, &mut (), Context::train(0)).unwrap();
        let call = Call::new(&layer, &x, &got_y, &dy).unwrap();
        layer.backward(call, &mut (), &mut grads, Some(&mut got_dx)).unwrap();
        for (got, want) in got_y.data().iter().zip(y).chain(got_dx.data().iter().zip(dx)) {
            assert!(
                got == &want || (got - want).abs() < 1e-14 * want.abs().max(1.0) * 10.0,
                "{got} for {want}"
            );
        }
    }

    #[test]
    fn layers_that_work_in_place_give_the_same_bits() {
        fn check(layer: impl Layer<T = f64, Cache = ()>) {
            let x = Tensor::from_fn([41], |i| i as f64 * 0.3 - 6.0);
            let dy = Tensor::from_fn([41], |i| 1.0 - i as f64 * 0.07);
            let (mut y, mut dx) = (Tensor::default(), Tensor::default());
            layer.forward(&x, &mut y, &mut (), Context::train(0)).unwrap();
            let mut grads = Grads::new(&layer);
            let call = Call::new(&layer, &x, &y, &dy).unwrap();
            layer.backward(call, &mut (), &mut grads, Some(&mut dx)).unwrap();
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
        check(super::Relu6::new());
        check(super::Hardtanh::new().min_val(-2.0));
        check(super::Softshrink::new());
        check(super::Hardshrink::new());
        assert!(super::Gelu::<f64>::new().in_place().is_none());
    }

    #[test]
    fn wrong_hyper_parameters_are_errors_of_init() {
        let text = |layer: Result<super::Softplus>| layer.unwrap_err().to_string();
        assert_eq!(text(super::Softplus::new().beta(0.0).init(1)), "Softplus: expected beta other than 0");
        assert!(super::Elu::<f32>::new().alpha(f64::NAN).init(1).is_err());
    }

    #[test]
    fn nan_gives_nan_and_so_does_its_gradient() {
        fn check(layer: impl Layer<T = f64, Cache = ()>) {
            let (x, dy) = (Tensor::from([1.0, f64::NAN, -f64::NAN]), Tensor::from([1.0; 3]));
            let (mut y, mut dx, mut grads) = (Tensor::default(), Tensor::default(), Grads::new(&layer));
            layer.forward(&x, &mut y, &mut (), Context::train(0)).unwrap();
            let call = Call::new(&layer, &x, &y, &dy).unwrap();
            layer.backward(call, &mut (), &mut grads, Some(&mut dx)).unwrap();
            for values in [&y, &dx] {
                let nan: Vec<bool> = values.data().iter().map(|v| v.is_nan()).collect();
                assert_eq!(nan, [false, true, true], "{:?} {values:?}", layer.spec());
            }
        }
        check(super::Celu::new());
        check(super::Elu::new());
        check(super::Gelu::new());
        check(super::Hardshrink::new());
        check(super::Hardsigmoid::new());
        check(super::Hardswish::new());
        check(super::Hardtanh::new());
        check(super::LeakyRelu::new());
        check(super::LogSigmoid::new());
        check(super::Mish::new());
        check(super::Relu::new());
        check(super::Relu6::new());
        check(super::Selu::new());
        check(super::Sigmoid::new());
        check(super::Silu::new());
        check(super::Sine::new());
        check(super::Softplus::new());
        check(super::Softshrink::new());
        check(super::Softsign::new());
        check(super::SquaredRelu::new());
        check(super::Tanh::new());
        check(super::Tanhshrink::new());
        check(super::Threshold::new(0.5, 2.0));
    }

    #[test]
    fn infinities_have_their_limits() {
        fn check(layer: impl Layer<T = f64, Cache = ()>, y: [f64; 2], dx: [f64; 2]) {
            assert_by_hand(layer, [f64::NEG_INFINITY, f64::INFINITY], y, dx.map(|slope| 5.0 * slope));
        }
        let inf = f64::INFINITY;
        check(super::Celu::new().alpha(2.0), [-2.0, inf], [0.0, 1.0]);
        check(super::Hardshrink::new(), [-inf, inf], [1.0, 1.0]);
        check(super::Hardsigmoid::new(), [0.0, 1.0], [0.0, 0.0]);
        check(super::Hardtanh::new(), [-1.0, 1.0], [0.0, 0.0]);
        check(super::LogSigmoid::new(), [-inf, 0.0], [1.0, 0.0]);
        check(super::Mish::new(), [0.0, inf], [0.0, 1.0]);
        check(super::Relu6::new(), [0.0, 6.0], [0.0, 0.0]);
        check(super::Softshrink::new(), [-inf, inf], [1.0, 1.0]);
        check(super::Softsign::new(), [-1.0, 1.0], [0.0, 0.0]);
        check(super::SquaredRelu::new(), [0.0, inf], [0.0, inf]);
        check(super::Tanhshrink::new(), [-inf, inf], [1.0, 1.0]);
        check(super::Threshold::new(0.5, 2.0), [2.0, inf], [0.0, 1.0]);
    }
}
