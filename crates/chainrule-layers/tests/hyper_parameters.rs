//! Constructors and builder methods take any hyper-parameters, in any order.

use chainrule_core::{Init, InputShapes, Layer, Module, Parameters, Shape};
use chainrule_layers::{
    AdaptiveAvgPool2d, AvgPool2d, BatchNorm1d, BatchNorm2d, Conv2d, Embedding, LayerNorm, Linear, MaxPool2d,
    Padding, PaddingMode,
};

const SIZES: [usize; 6] = [0, 1, 2, 1 << 31, 1 << 59, usize::MAX];
const REALS: [f64; 7] = [0.0, 1.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX];

/// Everything that can be asked of a layer without memory for its parameters gives a value or an error, and a layer that
/// [`Layer::check`] refuses is refused everywhere.
fn check(layer: impl Layer<T = f32> + Clone, inputs: &[&[usize]]) {
    let (checked, text) = (layer.check(), layer.spec().to_string());
    let (mut elements, mut fits) = (0, checked.is_ok());
    layer.visit(&mut |_, p| {
        elements += p.volume();
        fits &= p.initializer().check::<f32>().is_ok();
    });
    for input in inputs {
        let shape = layer.output_shape(input);
        assert!(checked.is_ok() || shape.is_err(), "{text} gives {shape:?}");
        layer.multiply_adds(input);
        if let Ok(inputs) = input.shapes() {
            let _ = layer.summary(&inputs[..]);
        }
    }
    if !fits {
        assert!(layer.init(0).is_err(), "{text} is initialised");
    } else if elements < 1 << 20 {
        assert!(layer.init(0).is_ok(), "{text} is not initialised");
    }
}

fn images(layer: impl Layer<T = f32> + Clone) {
    check(layer, &[&[2, 4, 9, 8], &[0, 4, 1, 1], &[1, 4, 1 << 30, 1 << 28], &[1, 4, usize::MAX, 1], &[4]]);
}

fn rows(layer: impl Layer<T = f32> + Clone) {
    check(layer, &[&[3, 4], &[0, 1 << 58, 4], &[2, 4, 7], &[usize::MAX, 4], &[4], &[]]);
}

#[test]
fn no_size_makes_a_constructor_panic() {
    for n in SIZES {
        rows(Linear::new(n, 3));
        rows(Linear::new(4, n));
        rows(Linear::new(n, n).bias(false));
        rows(Embedding::new(n, 3));
        rows(Embedding::new(4, n));
        rows(Embedding::new(4, 3).padding_idx(n));
        rows(LayerNorm::new(n));
        rows(LayerNorm::new([n, n]));
        rows(LayerNorm::new([4, n]).elementwise_affine(false));
        rows(BatchNorm1d::new(n));
        images(BatchNorm2d::new(n).affine(false));
        for layer in [
            Conv2d::new(n, 4, 3),
            Conv2d::new(4, n, 3),
            Conv2d::new(4, 4, n),
            Conv2d::new(n, n, n),
            Conv2d::new(4, 4, 3).groups(n),
            Conv2d::new(4, 4, 3).stride(n),
            Conv2d::new(4, 4, 3).dilation(n),
            Conv2d::new(4, 4, [1, n]).dilation(n).padding(Padding::Same),
        ] {
            images(layer);
        }
        for mode in [PaddingMode::Zeros, PaddingMode::Reflect, PaddingMode::Replicate, PaddingMode::Circular]
        {
            images(Conv2d::new(4, 4, 3).padding(n).padding_mode(mode));
            images(Conv2d::new(4, 4, n).padding([[n, 0], [0, n]]).padding_mode(mode));
        }
        for ceil in [false, true] {
            images(MaxPool2d::new(n).ceil_mode(ceil));
            images(MaxPool2d::new(n).padding(n / 2).ceil_mode(ceil));
            images(MaxPool2d::new(2).stride(n).padding(1).ceil_mode(ceil));
            images(MaxPool2d::new(2).padding(n).ceil_mode(ceil));
            images(MaxPool2d::new(n).stride(n).dilation(n).padding(n / 2).ceil_mode(ceil));
            images(AvgPool2d::new(n).padding(n / 2).ceil_mode(ceil));
            images(AvgPool2d::new(2).stride(n).padding(1).ceil_mode(ceil).divisor_override(n));
        }
        images(AdaptiveAvgPool2d::new(n));
        images(AdaptiveAvgPool2d::new([None, Some(n)]));
    }
}

#[test]
fn no_real_number_makes_a_constructor_panic() {
    for v in REALS {
        rows(LayerNorm::new(4).eps(v));
        rows(BatchNorm1d::new(4).eps(v));
        rows(BatchNorm1d::new(4).momentum(v));
        images(BatchNorm2d::new(4).eps(v).momentum(v));
        rows(Linear::new(4, 3).weight_init(Init::Constant(v)).bias_init(Init::Constant(v)));
    }
}

#[test]
fn sizes_that_fit_no_memory_are_errors() {
    let error = |checked: chainrule_core::Result<()>| checked.unwrap_err().to_string();
    assert!(error(LayerNorm::<f32>::new([1 << 31, 1 << 31]).check()).contains("fits in memory"));
    assert!(error(BatchNorm1d::<f32>::new(usize::MAX).check()).contains("fits in memory"));
    assert!(error(Linear::<f32>::new(1 << 31, 1 << 31).check()).contains("fits in memory"));
    let text = error(MaxPool2d::<f32>::new(usize::MAX).stride(usize::MAX).check());
    assert_eq!(text, format!("MaxPool2d: expected kernel_size from 1 to 2³¹ − 1, got {:?}", [usize::MAX; 2]));
    assert!(error(Conv2d::<f32>::new(1, 1, usize::MAX).check()).contains("kernel_size"));
    // y is larger than memory though x and the parameters are not.
    assert!(Linear::<f32>::new(1, 1 << 30).output_shape(&[1 << 40, 1]).is_err());
    assert!(Shape::new(&[1 << 40, 1]).is_ok());
}

/// The same layer by its specs and by the values it starts from.
fn same<L: Layer<T = f32>>(layers: impl IntoIterator<Item = L>) {
    let described = |layer: L| {
        let spec = layer.spec();
        let mut values = Vec::new();
        let layer = layer.init(7).unwrap();
        layer.visit(&mut |path, p| values.push((path.to_string(), *p.shape(), p.value().unwrap().to_vec())));
        (spec, values)
    };
    let mut all = layers.into_iter().map(described);
    let first = all.next().unwrap();
    assert!(all.all(|other| other == first), "{} depends on the order of its builder methods", first.0);
}

#[test]
fn builder_methods_give_the_same_layer_in_any_order() {
    let (w, b) = (Init::kaiming_normal(), Init::Constant(0.5));
    same([
        Linear::new(4, 3).weight_init(w).bias_init(b).bias(true),
        Linear::new(4, 3).bias(false).bias_init(b).bias(true).weight_init(w),
        Linear::new(4, 3).bias_init(b).bias(false).weight_init(w).bias(true),
    ]);
    same([Linear::new(4, 3).bias_init(b).bias(false), Linear::new(4, 3).bias(false).bias_init(b)]);
    same([
        Conv2d::new(4, 6, 3).groups(2).weight_init(w).bias_init(b).padding(1),
        Conv2d::new(4, 6, 3).weight_init(w).bias(false).padding(1).bias_init(b).groups(2).bias(true),
        Conv2d::new(4, 6, 3).bias_init(b).groups(4).weight_init(w).groups(2).padding(1),
    ]);
    same([Conv2d::new(4, 6, 3).bias(false).groups(2), Conv2d::new(4, 6, 3).groups(2).bias(false)]);
    same([
        Embedding::new(5, 2).padding_idx(1).weight_init(w),
        Embedding::new(5, 2).weight_init(w).padding_idx(1),
    ]);
    same([LayerNorm::new(4).bias(false).elementwise_affine(true), LayerNorm::new(4).bias(false)]);
    same([
        LayerNorm::new(4).elementwise_affine(false).bias(false).elementwise_affine(true).eps(0.1),
        LayerNorm::new(4).eps(0.1).bias(false),
    ]);
    same([
        BatchNorm2d::new(4).affine(false).bias(false).affine(true).track_running_stats(false),
        BatchNorm2d::new(4).track_running_stats(false).bias(false),
    ]);
    same([
        MaxPool2d::new(3).stride(2).dilation(2).padding(1),
        MaxPool2d::new(3).padding(1).dilation(2).stride(2),
    ]);
}
