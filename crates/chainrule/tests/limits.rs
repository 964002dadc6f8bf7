//! Activations where numbers end: values and gradients at NaN, ±∞ and the largest numbers are the limits of the formula.

use chainrule::core::{Context, Grads, Module, ModuleCall, Parameters, Scalar, Spec, Tensor, Value};
use chainrule_parity::registry;

/// y and ∂y/∂x of an activation at −∞ and at ∞.
struct Limits {
    low: (f64, f64),
    high: (f64, f64),
}

fn number(spec: &Spec, name: &str) -> f64 {
    match spec.get(name) {
        Some(Value::Float(v)) => *v,
        other => panic!("{spec}: {name} is {other:?}"),
    }
}

const INF: f64 = f64::INFINITY;

/// What the formula tends to; `None` for functions of a whole row.
fn limits(spec: &Spec) -> Option<Limits> {
    let (low, high) = match spec.kind() {
        "Relu" | "Gelu" | "Silu" | "Hardswish" | "Softplus" | "Mish" => ((0.0, 0.0), (INF, 1.0)),
        "LeakyRelu" => {
            let a = number(spec, "negative_slope");
            ((a * -INF, a), (INF, 1.0))
        }
        "Elu" | "Celu" => ((-number(spec, "alpha"), 0.0), (INF, 1.0)),
        "Sigmoid" => ((0.0, 0.0), (1.0, 0.0)),
        "Selu" => ((-1.758_099_340_847_376_6, 0.0), (INF, 1.050_700_987_355_480_5)),
        "Relu6" => ((0.0, 0.0), (6.0, 0.0)),
        "Hardtanh" => ((number(spec, "min_val"), 0.0), (number(spec, "max_val"), 0.0)),
        "Hardsigmoid" => ((0.0, 0.0), (1.0, 0.0)),
        "Threshold" => ((number(spec, "value"), 0.0), (INF, 1.0)),
        "LogSigmoid" => ((-INF, 1.0), (0.0, 0.0)),
        "Tanh" | "Softsign" => ((-1.0, 0.0), (1.0, 0.0)),
        "Identity" | "Softshrink" | "Hardshrink" | "Tanhshrink" => ((-INF, 1.0), (INF, 1.0)),
        "Softmax" | "LogSoftmax" | "Softmin" => return None,
        // Without a limit, or a function of several elements, of the channel or of noise.
        "Sine" | "Snake" | "SquaredRelu" | "PRelu" | "RRelu" => return None,
        "Glu" | "Geglu" | "Swiglu" | "Reglu" | "BilinearGlu" => return None,
        other => panic!("{other}: its limits are not in this table"),
    };
    Some(Limits { low, high })
}

/// y and dx for ∂E/∂y = 1, of each x alone in its row and in a row of vectors, where other code runs.
fn run<T: Scalar>(spec: &Spec, x: T) -> Vec<(f64, f64)> {
    let layer = registry::<T>().build_module(spec).unwrap().init(1).unwrap();
    [1, 67]
        .into_iter()
        .flat_map(|n| {
            let (x, dy) = (Tensor::full([n], x), Tensor::full([n], T::ONE));
            let (mut ys, mut dxs) = ([Tensor::default()], [Tensor::default()]);
            let (mut state, mut grads) = (Default::default(), Grads::new(&layer));
            let (xs, dys) = ([&x], [Some(&dy)]);
            layer.apply(&xs, &mut ys, &mut state, Context::train(1)).unwrap();
            let call = ModuleCall::new(&layer, &xs, &ys, &dys).unwrap();
            let mut dx = [Some(&mut dxs[0])];
            layer.pull(call, &mut state, &mut grads, &mut dx).unwrap();
            let pairs = ys[0].data().iter().zip(dxs[0].data());
            pairs.map(|(y, dx)| (y.to_f64(), dx.to_f64())).collect::<Vec<_>>()
        })
        .collect()
}

fn walk<T: Scalar>(largest: T) {
    for entry in registry::<T>().modules().filter(|entry| entry.facts.family == "activation") {
        for spec in (entry.examples)().into_iter().filter(|e| !e.bench).map(|e| e.spec) {
            let Some(Limits { low, high }) = limits(&spec) else { continue };
            for (y, dx) in run(&spec, T::from_f64(f64::NAN)) {
                // The derivative of the identity is 1 whatever x is.
                let right = if spec.kind() == "Identity" { dx == 1.0 } else { dx.is_nan() };
                assert!(y.is_nan() && right, "{spec} at NaN: y = {y}, dx = {dx}");
            }
            let infinity = T::from_f64(INF);
            for (x, (y, dx)) in [(T::ZERO - infinity, low), (infinity, high)] {
                for got in run(&spec, x) {
                    assert!((got.0 - y).abs() < 1e-6 || got.0 == y, "{spec} at {x}: y = {}, not {y}", got.0);
                    assert!((got.1 - dx).abs() < 1e-6, "{spec} at {x}: dx = {}, not {dx}", got.1);
                }
            }
            // Far out, but finite: no overflow on the way to the same slopes.
            for share in [1.0, 1e-8, 1e-18, 1e-30] {
                let far = largest * T::from_f64(share);
                for (x, (y, dx)) in [(T::ZERO - far, low), (far, high)] {
                    for got in run(&spec, x) {
                        assert!((got.1 - dx).abs() < 1e-6, "{spec} at {x}: dx = {}, not {dx}", got.1);
                        let want = if y.is_infinite() { x.to_f64() * dx } else { y };
                        let want = T::from_f64(want).to_f64(); // ∞ where the type ends
                        let error = (got.0 - want).abs();
                        assert!(
                            got.0 == want || error <= 1e-6 * want.abs().max(1.0),
                            "{spec} at {x}: y = {}, not {want}",
                            got.0
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn values_and_gradients_tend_to_their_limits_and_nan_stays() {
    walk::<f32>(f32::MAX);
    walk::<f64>(f64::MAX);
}

#[test]
fn a_row_with_minus_infinity_has_the_probabilities_of_the_rest() {
    for (kind, want) in [("Softmax", [0.0, 0.5, 0.5]), ("LogSoftmax", [-INF, -2f64.ln(), -2f64.ln()])] {
        let layer = registry::<f64>().build_module(&Spec::new(kind).with("dim", 1)).unwrap();
        let y = layer.infer(&Tensor::from([[-INF, 3.0, 3.0]])).unwrap();
        for (got, want) in y.data().iter().zip(want) {
            assert!(*got == want || (got - want).abs() < 1e-15, "{kind}: {got}, not {want}");
        }
        let y = layer.infer(&Tensor::from([[1.0, f64::NAN, 3.0]])).unwrap();
        assert!(y.data().iter().all(|v| v.is_nan()), "{kind}");
    }
}
