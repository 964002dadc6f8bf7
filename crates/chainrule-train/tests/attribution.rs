//! Attributions against what can be worked out, and on networks.

use chainrule_core::{Module, Parameters, Result, Scalar, Shape, Tensor};
use chainrule_layers::{
    AvgPool2d, BatchNorm2d, Conv2d, Dropout, Embedding, Flatten, Linear, MaxPool2d, Mul, Relu, Sequential,
    Tanh,
};
use chainrule_tensor::par;
use chainrule_train::attribution::{Attribution, GradCam, IntegratedGradients, Occlusion, Saliency};

/// y = W x + b with W = ((1, −2, 0.5), (−3, 0, 4)).
fn linear() -> Linear<f64> {
    let mut model = Linear::new(3, 2).init(1).unwrap();
    model.visit_mut(&mut |_, p| {
        let values: &[f64] =
            if p.name() == "weight" { &[1.0, -2.0, 0.5, -3.0, 0.0, 4.0] } else { &[10.0, 20.0] };
        p.value_mut().unwrap().copy_from_slice(values);
    });
    model
}

fn x() -> Tensor<f64> {
    Tensor::from([[1.0, 2.0, 3.0], [-0.5, 0.25, 8.0]])
}

fn values(a: Result<Attribution<f64>>) -> Vec<f64> {
    a.unwrap().values().unwrap().data().to_vec()
}

/// ∂y₁/∂x = w₁ = (−3, 0, 4) for every x, so the magnitudes are (3, 0, 4), and x ∂y₁/∂x = (−3, 0, 12), (1.5, 0, 32).
#[test]
fn saliency_of_a_linear_model_is_its_weight() {
    let saliency = Saliency::new();
    assert_eq!(values(saliency.attribute(&linear(), &x(), 1)), [3.0, 0.0, 4.0, 3.0, 0.0, 4.0]);
    assert_eq!(values(saliency.signed(true).attribute(&linear(), &x(), 1)), [-3.0, 0.0, 4.0, -3.0, 0.0, 4.0]);
    let product = saliency.signed(true).times_input(true);
    assert_eq!(values(product.attribute(&linear(), &x(), 1)), [-3.0, 0.0, 12.0, 1.5, 0.0, 32.0]);
    // y = (1 − 4 + 1.5 + 10, −3 + 12 + 20) and (−0.5 − 0.5 + 4 + 10, 1.5 + 32 + 20): another class for each sample
    let each = saliency.attribute(&linear(), &x(), &[0, 1]).unwrap();
    assert_eq!((each.scores(), each.values().unwrap().row(0)), (&[8.5, 53.5][..], &[1.0, 2.0, 0.5][..]));
}

/// The gradient is w₁ all the way, so a = w₁ (x − x⁰), whatever the number of steps.
#[test]
fn integrated_gradients_of_a_linear_model_are_exact() {
    let wanted = [-3.0, 0.0, 12.0, 1.5, 0.0, 32.0];
    for steps in [1, 2, 64] {
        let a = IntegratedGradients::new().steps(steps).attribute(&linear(), &x(), 1).unwrap();
        assert_eq!(a.values().unwrap().data(), wanted);
        assert_eq!(a.completeness()[1].sum, 33.5);
        assert_eq!((a.completeness()[1].difference, a.largest_gap()), (33.5, 0.0));
    }
    // x⁰ = 1: −3 (x − 1), 4 (x − 1)
    let wanted = [0.0, 0.0, 8.0, 4.5, 0.0, 28.0];
    let method = IntegratedGradients::new().baseline(1.0);
    assert_eq!(values(method.attribute(&linear(), &x(), 1)), wanted);
    for ones in [Tensor::full([2, 3], 1.0), Tensor::full([1, 3], 1.0), Tensor::full([3], 1.0)] {
        assert_eq!(values(method.attribute_from(&linear(), &x(), &ones, 1)), wanted);
    }
    let own = Tensor::from([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]);
    assert_eq!(values(method.attribute_from(&linear(), &x(), &own, 1)), [0.0, 0.0, 0.0, 1.5, 0.0, 32.0]);
}

/// With windows of one element a = w₁ (x − fill). Windows of two at 0..2 and 1..3 lose −3 and 12; the element between has their
/// mean.
#[test]
fn occlusion_of_a_linear_model_by_hand() {
    let one = Occlusion::new([1]);
    assert_eq!(values(one.attribute(&linear(), &x(), 1)), [-3.0, 0.0, 12.0, 1.5, 0.0, 32.0]);
    assert_eq!(values(one.fill(1.0).attribute(&linear(), &x(), 1)), [0.0, 0.0, 8.0, 4.5, 0.0, 28.0]);
    let two = Occlusion::new([2]);
    assert_eq!(values(two.attribute(&linear(), &x(), 1)), [-3.0, 4.5, 12.0, 1.5, 16.75, 32.0]);
    // Windows of two in strides of two: 0..2, and 2..3, which is cut.
    let apart = Occlusion::new([2]).stride([2]);
    assert_eq!(values(apart.attribute(&linear(), &x(), 1)), [-3.0, -3.0, 12.0, 1.5, 1.5, 32.0]);
}

/// s = a b: ∂s/∂a = b, and from zeros both get half of the product: ∫ α b dα = b/2, exact in the middle of one step.
#[test]
fn every_input_with_a_derivative_is_explained() {
    let (a, b) = (Tensor::from([[2.0], [-3.0]]), Tensor::from([[5.0], [0.5]]));
    let s = Saliency::new().attribute(&Mul::new(), [&a, &b], 0).unwrap();
    assert_eq!((s.input(0).unwrap().data(), s.input(1).unwrap().data()), (&[5.0, 0.5][..], &[2.0, 3.0][..]));
    let g = IntegratedGradients::new().steps(1).attribute(&Mul::new(), [&a, &b], 0).unwrap();
    assert_eq!(
        (g.input(0).unwrap().data(), g.input(1).unwrap().data()),
        (&[5.0, -0.75][..], &[5.0, -0.75][..])
    );
    assert_eq!((g.completeness()[0].sum, g.completeness()[0].difference), (10.0, 10.0));
    let o = Occlusion::new([1]).input(1).attribute(&Mul::new(), [&a, &b], 0).unwrap();
    assert!(o.input(0).is_none());
    assert_eq!(o.input(1).unwrap().data(), [10.0, -1.5]);
}

/// A function of the outputs: y₁ − y₀, whose weight is (−4, 2, 3.5).
#[test]
fn a_function_of_the_outputs_is_explained() {
    let ahead = |ys: &[Tensor<f64>], dys: &mut [Tensor<f64>]| {
        let of = |n| {
            (dys[0][[n, 0]], dys[0][[n, 1]]) = (-1.0, 1.0);
            ys[0][[n, 1]] - ys[0][[n, 0]]
        };
        Ok((0..ys[0].shape()[0]).map(of).collect())
    };
    assert_eq!(values(Saliency::new().signed(true).attribute(&linear(), &x(), ahead))[..3], [-4.0, 2.0, 3.5]);
    assert_eq!(values(IntegratedGradients::new().attribute(&linear(), &x(), ahead))[..3], [-4.0, 4.0, 10.5]);
    assert_eq!(values(Occlusion::new([1]).attribute(&linear(), &x(), ahead))[..3], [-4.0, 4.0, 10.5]);
}

/// As the digits example, smaller.
fn network<T: Scalar>() -> Sequential<T> {
    Sequential::of()
        .add(Conv2d::new(1, 6, 3).padding(1).bias(false))
        .add(BatchNorm2d::new(6))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Conv2d::new(6, 8, 3).padding(1))
        .add(Tanh::new())
        .add(AvgPool2d::new(2))
        .add(Flatten::new())
        .add(Dropout::new(0.5))
        .add(Linear::new(32, 10))
        .init(3)
        .unwrap()
}

fn images<T: Scalar>() -> Tensor<T> {
    chainrule_data::samples::digits::<T>().x().rows(0, 5)
}

/// The gradient that a difference quotient gives, in f64.
#[test]
fn saliency_of_a_network_is_its_slope() {
    let (model, x, h) = (network::<f64>(), images::<f64>(), 1e-6);
    let map = Saliency::new().signed(true).attribute(&model, &x, 3).unwrap();
    for at in [10, 64 + 35, 3 * 64 + 20] {
        let y = |step: f64| {
            let mut x = x.clone();
            x.data_mut()[at] += step;
            model.infer(&x).unwrap()[[at / 64, 3]]
        };
        let slope = (y(h) - y(-h)) / (2.0 * h);
        assert!((map.values().unwrap().data()[at] - slope).abs() < 1e-7, "{at}");
    }
}

#[test]
fn integrated_gradients_of_a_network_sum_to_the_difference() {
    let (model, x) = (network::<f32>(), images::<f32>());
    let predicted = model.infer(&x).unwrap().argmax_rows();
    let gap = |steps| {
        let method = IntegratedGradients::new().steps(steps);
        method.attribute(&model, &x, &predicted).unwrap().largest_gap()
    };
    assert!(gap(64) < 0.01 && gap(512) < 0.002, "{} {}", gap(64), gap(512));
}

/// A model treats its samples alike, each for itself, and leaves no trace in it.
#[test]
fn a_sample_of_a_batch_is_explained_as_alone() {
    let (model, x) = (network::<f64>(), images::<f64>());
    type Method<'a> = &'a dyn Fn(&Tensor<f64>) -> Attribution<f64>;
    let methods: [Method<'_>; 3] = [
        &|x| Saliency::new().attribute(&model, x, 7).unwrap(),
        &|x| IntegratedGradients::new().steps(8).attribute(&model, x, 7).unwrap(),
        &|x| Occlusion::new([1, 3, 3]).stride([1, 2, 2]).attribute(&model, x, 7).unwrap(),
    ];
    for (i, method) in methods.iter().enumerate() {
        let all = method(&x);
        for n in 0..5 {
            let one = method(&x.rows(n, n + 1));
            for (a, b) in one.values().unwrap().data().iter().zip(all.values().unwrap().row(n)) {
                assert!((a - b).abs() < 1e-12, "method {i}, sample {n}: {a} {b}");
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let (model, x) = (network::<f32>(), images::<f32>());
    let run = |threads| {
        par::with_threads(threads, || {
            let all = [
                Saliency::new().attribute(&model, &x, 2).unwrap(),
                IntegratedGradients::new().steps(5).attribute(&model, &x, 2).unwrap(),
                Occlusion::new([1, 4, 4]).stride([1, 4, 4]).attribute(&model, &x, 2).unwrap(),
            ];
            all.map(|a| a.values().unwrap().data().iter().map(|v| v.to_bits()).collect::<Vec<_>>())
        })
    };
    let one = run(1);
    assert!((2..=4).all(|threads| run(threads) == one));
}

#[test]
fn every_method_draws_its_picture() {
    let (model, x) = (network::<f32>(), images::<f32>());
    let a = IntegratedGradients::new().steps(4).attribute(&model, &x, 2).unwrap();
    let svg = a.picture("integrated gradients", &x).unwrap();
    assert_eq!(svg.as_str().matches("s = ").count(), 5);
    assert!(svg.as_str().contains("#b2182b") || svg.as_str().contains("#2166ac"));
}

#[test]
fn settings_that_make_no_sense_are_errors() {
    let text = |result: Result<Attribution<f64>>| result.unwrap_err().to_string();
    let (model, x) = (linear(), x());
    let ig = IntegratedGradients::new();
    for wrong in [0, usize::MAX] {
        assert!(ig.steps(wrong).check().is_err());
        assert!(text(ig.steps(wrong).attribute(&model, &x, 0)).contains("expected 1 to 1048576 steps"));
    }
    for wrong in [f64::NAN, f64::INFINITY] {
        assert!(text(ig.baseline(wrong).attribute(&model, &x, 0)).contains("a finite baseline"));
        assert!(text(Occlusion::new([1]).fill(wrong).attribute(&model, &x, 0)).contains("a finite fill"));
        let mut from = Tensor::zeros([2, 3]);
        from.data_mut()[4] = wrong;
        assert!(text(ig.attribute_from(&model, &x, &from, 0)).contains("baseline 0: expected finite values"));
    }
    let single = linear_f32();
    let wide = IntegratedGradients::new().baseline(1e300).attribute(&single, &Tensor::zeros([1, 3]), 0);
    assert!(wide.unwrap_err().to_string().contains("that F32 can hold"));
    for shape in [Shape::from([2, 2]), Shape::from([3, 3]), Shape::from([1, 1, 3]), Shape::from([2])] {
        assert!(
            text(ig.attribute_from(&model, &x, &Tensor::zeros(shape), 0)).contains("that of one sample"),
            "{shape}"
        );
    }
    assert!(text(ig.attribute_from(&model, &x, [&x, &x], 0)).contains("1 baselines, got 2"));

    let occlude = |method: Occlusion| text(method.attribute(&model, &x, 0));
    assert!(occlude(Occlusion::new([4])).contains("within samples of shape [3]"));
    assert!(occlude(Occlusion::new([1, 1])).contains("within samples"));
    assert!(occlude(Occlusion::new([0])).contains("one element or more"));
    assert!(occlude(Occlusion::new([2]).stride([3])).contains("strides from 1 to the window's"));
    assert!(occlude(Occlusion::new([2]).stride([0])).contains("strides from 1"));
    assert!(occlude(Occlusion::new([2]).stride([1, 1])).contains("expected 1 strides"));
    assert!(occlude(Occlusion::new([1]).input(1)).contains("an input below 1"));
    assert!(occlude(Occlusion::new([usize::MAX]).stride([usize::MAX])).contains("within samples"));
}

fn linear_f32() -> Linear {
    Linear::new(3, 2).init(1).unwrap()
}

#[test]
fn data_and_models_that_do_not_fit_are_errors() {
    let text = |result: Result<Attribution<f64>>| result.unwrap_err().to_string();
    let (model, x, saliency) = (linear(), x(), Saliency::new());
    assert!(text(saliency.attribute(&model, &Tensor::zeros([2, 4]), 0)).contains("Linear"));
    assert!(text(saliency.attribute(&model, [&x, &x], 0)).contains("expected 1 inputs, got 2"));
    assert!(text(saliency.attribute(&model, &Tensor::zeros([0, 3]), 0)).contains("one sample or more"));
    assert!(text(saliency.attribute(&model, &x, 2)).contains("a class below 2"));
    let mut nan = x.clone();
    nan.data_mut()[1] = f64::NAN;
    assert!(text(saliency.attribute(&model, &nan, 0)).contains("in sample 0 of the batch, position [1]"));
    let few = |_: &[Tensor<f64>], _: &mut [Tensor<f64>]| Ok(vec![0.0]);
    assert!(text(saliency.attribute(&model, &x, few)).contains("each of 2 samples, got 1"));
    let infinite = |_: &[Tensor<f64>], _: &mut [Tensor<f64>]| Ok(vec![0.0, f64::INFINITY]);
    assert!(text(saliency.attribute(&model, &x, infinite)).contains("inf of sample 1"));
    let other = |_: &[Tensor<f64>], dys: &mut [Tensor<f64>]| {
        dys[0] = Tensor::zeros([1]);
        Ok(vec![0.0, 0.0])
    };
    assert!(text(saliency.attribute(&model, &x, other)).contains("∂E/∂y"));
    assert!(saliency.attribute(&Linear::<f64>::new(3, 2), &x, 0).is_err(), "not initialised");

    // Ids have no derivative; what is behind them has.
    let ids = Tensor::from([[0.0, 1.0], [2.0, 2.0]]);
    let words = Sequential::<f64>::of()
        .add(Embedding::new(3, 4))
        .add(Flatten::new())
        .add(Linear::new(8, 2))
        .init(1)
        .unwrap();
    assert!(text(saliency.attribute(&words, &ids, 0)).contains("ids or masks"));
    assert!(text(IntegratedGradients::new().attribute(&words, &ids, 0)).contains("ids or masks"));
    assert!(Occlusion::new([1]).attribute(&words, &ids, 0).is_ok());
}

/// A₀ = 2 x and A₁ = −x; s = v₀·A₀ + v₁·A₁ with v₀ = (1, 1, 1, 1), v₁ = (2, 0, 0, 2), so that w = (1, 1) and a = max(0, x).
#[test]
fn grad_cam_by_hand() {
    let model = Sequential::of().named("maps", Conv2d::new(1, 2, 1).bias(false)).add(Flatten::new());
    let mut model = model.add(Linear::<f64>::new(8, 1).bias(false)).init(1).unwrap();
    let values = [&[2.0, -1.0][..], &[1.0, 1.0, 1.0, 1.0, 2.0, 0.0, 0.0, 2.0]];
    let mut next = values.iter();
    model.visit_mut(&mut |_, p| p.value_mut().unwrap().copy_from_slice(next.next().unwrap()));
    let x = Tensor::from_vec([2, 1, 2, 2], vec![1.0, -2.0, 3.0, 0.5, -1.0, -1.0, 4.0, 0.0]).unwrap();
    let before = model.infer(&x).unwrap();
    let cam = GradCam::new("maps").attribute(&mut model, &x, 0).unwrap();
    assert_eq!(cam.values().unwrap().shape()[..], [2, 2, 2]);
    assert_eq!(cam.values().unwrap().data(), [1.0, 0.0, 3.0, 0.5, 0.0, 0.0, 4.0, 0.0]);
    let signed = GradCam::new("maps").signed(true).attribute(&mut model, &x, 0).unwrap();
    assert_eq!(signed.values().unwrap().data(), x.data());
    assert_eq!(model.infer(&x).unwrap(), before);
    assert!(cam.picture("maps", &x).unwrap().as_str().contains("#b2182b"));

    let error = |path: &str, model: &mut Sequential<f64>| {
        GradCam::new(path).attribute(model, &x, 0).unwrap_err().to_string()
    };
    assert!(error("nowhere", &mut model).contains("got `nowhere`; there are `maps`"));
    assert!(error("*", &mut model).contains("one part, got that of 3"));
    assert!(error("1", &mut model).contains("(2, channels, positions..), got [2, 8]"));
    let error = GradCam::new("maps").attribute(&mut model, &x, 1).unwrap_err().to_string();
    assert!(error.contains("a class below 1"));
    assert!(
        model.children().next().unwrap().1.downcast_ref::<Conv2d<f64>>().is_some(),
        "nothing is watched any more"
    );
}

/// A map of 2 × 2 positions becomes one of 8 × 8 pixels.
#[test]
fn grad_cam_of_a_network_has_the_size_of_the_image() {
    let (mut model, x) = (network::<f32>(), images::<f32>());
    let small = GradCam::new("5").resized(false).attribute(&mut model, &x, 4).unwrap();
    assert_eq!(small.values().unwrap().shape()[..], [5, 4, 4]);
    let run = |threads, model: &mut Sequential| {
        par::with_threads(threads, || {
            GradCam::new("5").attribute(model, &x, 4).unwrap().values().unwrap().clone()
        })
    };
    let large = run(1, &mut model);
    assert_eq!(large.shape()[..], [5, 8, 8]);
    assert_eq!(
        (large.data()[0], large.data()[63]),
        (small.values().unwrap().data()[0], small.values().unwrap().data()[15])
    );
    assert!((2..=4).all(|threads| run(threads, &mut model) == large));
}

/// Words have no derivative, but the activations behind their embedding have.
#[test]
fn grad_cam_explains_models_of_ids() {
    let words = Sequential::<f64>::of().named("words", Embedding::new(3, 4)).add(Flatten::new());
    let mut model = words.add(Linear::new(8, 2)).init(1).unwrap();
    let ids = Tensor::from([[0.0, 1.0], [2.0, 2.0]]);
    let cam = GradCam::new("words").channels_last(true).signed(true).attribute(&mut model, &ids, 0).unwrap();
    assert_eq!(cam.values().unwrap().shape()[..], [2, 2]);
    // ∂s/∂A is the first row of the weight, (2 words, 4 channels): w_k = (v₀k + v₁k)/2, a_t = Σ w_k A_tk
    let mut values = Vec::new();
    model.visit(&mut |_, p| values.push(p.value().unwrap().to_vec()));
    for (t, id) in [0, 1, 2, 2].into_iter().enumerate() {
        let of = |k: usize| (values[1][k] + values[1][4 + k]) / 2.0 * values[0][id * 4 + k];
        let want: f64 = (0..4).map(of).sum();
        assert!((cam.values().unwrap().data()[t] - want).abs() < 1e-12);
    }
}
