//! Constructors and builder methods take any hyper-parameters, in any order.

use chainrule_core::{Init, InputShapes, Layer, Module, Parameters, Shape, Spec, Value};
use chainrule_layers::*;

const SIZES: [usize; 6] = [0, 1, 2, 1 << 31, 1 << 59, usize::MAX];
const AXES: [isize; 7] = [0, 1, -1, 7, 1 << 31, isize::MAX, isize::MIN];
const REALS: [f64; 7] = [0.0, 1.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX];

/// Everything that can be asked of a layer without memory for its parameters gives a value or an error, and a layer that
/// [`Layer::check`] refuses is refused everywhere.
fn check(layer: impl Layer<T = f32> + Clone, inputs: &[&[usize]]) {
    let (checked, text) = (layer.check(), layer.spec().to_string());
    if let Err(error) = &checked {
        assert!(error.to_string().contains(layer.spec().kind()), "{error} does not name {text}");
    }
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

/// The same for a module of any number of inputs, which are given one shape.
fn module(module: impl Module<T = f32> + Clone, inputs: &[&[usize]]) {
    let (checked, spec) = (module.validate(), module.to_spec());
    if let Err(error) = &checked {
        assert!(error.to_string().contains(spec.kind()), "{error} does not name {spec}");
    }
    let (mut elements, mut fits) = (0usize, checked.is_ok());
    module.visit(&mut |_, p| {
        elements = elements.saturating_add(p.volume());
        fits &= p.initializer().check::<f32>().is_ok();
    });
    for input in inputs {
        let Ok(shape) = Shape::new(input) else { continue };
        let shapes = vec![shape; module.inputs().min(4)];
        let outputs = module.output_shapes(&shapes);
        assert!(checked.is_ok() || outputs.is_err(), "{spec} gives {outputs:?}");
        module.cost(&shapes);
        let _ = module.summary(&shapes[..]);
    }
    if !fits {
        assert!(module.init(0).is_err(), "{spec} is initialised");
    } else if elements < 1 << 20 {
        assert!(module.init(0).is_ok(), "{spec} is not initialised");
    }
}

/// Shapes of R axes behind (N, C): small, empty, long, and of another rank.
fn grids<const R: usize>(layer: impl Module<T = f32> + Clone) {
    let of = |n: usize, c: usize, axis: usize| [&[n, c][..], &[axis; R]].concat();
    let long = [&[1, 4, 1 << 40][..], &[1, 1][..R - 1]].concat();
    module(layer, &[&of(2, 4, 6), &of(0, 4, 1), &of(1, 4, 0), &long, &of(1, usize::MAX >> 12, 3), &[4], &[]]);
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

/// Every size of the layers with windows, of every rank.
macro_rules! windows {
    ($test:ident, $r:literal, $conv:ident, $transposed:ident, $max:ident, $avg:ident, $lp:ident, $unpool:ident, $adaptive_max:ident,
     $adaptive_avg:ident) => {
        #[test]
        fn $test() {
            for n in SIZES {
                let conv = |k: usize| $conv::new(4, 4, k);
                for layer in [
                    $conv::new(n, 4, 3),
                    $conv::new(4, n, 3),
                    conv(n),
                    $conv::new(n, n, n),
                    conv(3).groups(n),
                    conv(3).stride(n),
                    conv(3).dilation(n),
                    conv(n).dilation(n).padding(Padding::Same),
                    conv(3).padding(n),
                    conv(n).padding(n).padding_mode(PaddingMode::Reflect),
                    conv(2).padding(n).padding_mode(PaddingMode::Circular),
                    conv(2).padding(n).padding_mode(PaddingMode::Replicate).stride(n),
                ] {
                    grids::<$r>(layer);
                }
                let up = |k: usize| $transposed::new(4, 4, k);
                for layer in [
                    $transposed::new(n, 4, 3),
                    $transposed::new(4, n, 3),
                    up(n),
                    up(3).groups(n),
                    up(3).stride(n),
                    up(3).dilation(n),
                    up(3).padding(n),
                    up(n).padding(n),
                    up(3).output_padding(n),
                    up(3).stride(n).output_padding(n),
                    up(n).stride(n).dilation(n).padding(n).output_padding(n).groups(n),
                ] {
                    grids::<$r>(layer);
                }
                for ceil in [false, true] {
                    let pool = $max::new(3).ceil_mode(ceil);
                    let pools = [
                        $max::new(n).ceil_mode(ceil),
                        pool.stride(n),
                        pool.padding(n),
                        pool.dilation(n),
                        $max::new(n).stride(n).dilation(n).padding(n / 2),
                    ];
                    for layer in pools {
                        grids::<$r>(layer);
                        grids::<$r>(layer.with_indices());
                    }
                    let pool = $avg::new(3).ceil_mode(ceil);
                    for layer in [
                        $avg::new(n).ceil_mode(ceil),
                        pool.stride(n),
                        pool.padding(n),
                        $avg::new(n).padding(n / 2).ceil_mode(ceil),
                    ] {
                        grids::<$r>(layer);
                    }
                    grids::<$r>($lp::new(2.0, n).ceil_mode(ceil));
                    grids::<$r>($lp::new(3.0, 2).stride(n).ceil_mode(ceil));
                }
                let unpool = $unpool::new(2);
                for layer in [
                    $unpool::new(n),
                    unpool.stride(n),
                    unpool.padding(n),
                    unpool.output_size(n),
                    $unpool::new(n).stride(n),
                ] {
                    grids::<$r>(layer);
                }
                grids::<$r>($adaptive_max::new(n));
                grids::<$r>($adaptive_avg::new(n));
            }
            for p in REALS {
                grids::<$r>($lp::new(p, 2));
            }
        }
    };
}

#[rustfmt::skip]
windows!(sizes_of_windows_over_sequences, 1, Conv1d, ConvTranspose1d, MaxPool1d, AvgPool1d, LpPool1d, MaxUnpool1d, AdaptiveMaxPool1d, AdaptiveAvgPool1d);
#[rustfmt::skip]
windows!(sizes_of_windows_over_images, 2, Conv2d, ConvTranspose2d, MaxPool2d, AvgPool2d, LpPool2d, MaxUnpool2d, AdaptiveMaxPool2d, AdaptiveAvgPool2d);
#[rustfmt::skip]
windows!(sizes_of_windows_over_volumes, 3, Conv3d, ConvTranspose3d, MaxPool3d, AvgPool3d, LpPool3d, MaxUnpool3d, AdaptiveMaxPool3d, AdaptiveAvgPool3d);

/// Margins, and the modes that copy, of every rank.
macro_rules! margins {
    ($test:ident, $r:literal, $constant:ident, $zero:ident, $crop:ident, $($copies:ident),*) => {
        #[test]
        fn $test() {
            for n in AXES {
                for margins in [[[n, n]; $r], [[n, 0]; $r], [[0, n]; $r]] {
                    grids::<$r>($constant::new(margins, 1.0));
                    grids::<$r>($zero::new(margins));
                    grids::<$r>($crop::new(margins));
                    $(grids::<$r>($copies::new(margins));)*
                }
            }
            REALS.into_iter().for_each(|v| grids::<$r>($constant::new(1, v)));
        }
    };
}

#[rustfmt::skip]
margins!(margins_of_sequences, 1, ConstantPad1d, ZeroPad1d, Crop1d, ReflectionPad1d, ReplicationPad1d, CircularPad1d);
#[rustfmt::skip]
margins!(margins_of_images, 2, ConstantPad2d, ZeroPad2d, Crop2d, ReflectionPad2d, ReplicationPad2d, CircularPad2d);
#[rustfmt::skip]
margins!(margins_of_volumes, 3, ConstantPad3d, ZeroPad3d, Crop3d, ReflectionPad3d, ReplicationPad3d, CircularPad3d);

#[test]
fn sizes_of_all_other_layers() {
    for n in SIZES {
        for layer in [
            Fold::new(n, 2),
            Fold::new(4, n),
            Fold::new(4, 2).stride(n),
            Fold::new(4, 2).padding(n),
            Fold::new(4, 2).dilation(n),
        ] {
            module(layer, &[&[1, 4, 9], &[1, 4, 1 << 40], &[0, 4, 9], &[4]]);
        }
        for layer in [
            Unfold::new(n),
            Unfold::new(2).stride(n),
            Unfold::new(2).padding(n),
            Unfold::new(2).dilation(n),
            Unfold::new(n).dilation(n),
        ] {
            grids::<2>(layer);
        }
        grids::<2>(FractionalMaxPool2d::new(n, 2));
        grids::<2>(FractionalMaxPool2d::new(2, n));
        grids::<2>(FractionalMaxPool2d::of_ratio(n, 0.5));
        grids::<3>(FractionalMaxPool3d::new(n, 2));
        grids::<3>(FractionalMaxPool3d::new(2, n));
        for layer in [GroupNorm::new(n, 4), GroupNorm::new(2, n), GroupNorm::new(n, n).affine(false)] {
            grids::<2>(layer);
        }
        grids::<1>(InstanceNorm1d::new(n).affine(true).track_running_stats(true));
        grids::<2>(InstanceNorm2d::new(n));
        grids::<3>(InstanceNorm3d::new(n).affine(true));
        grids::<3>(BatchNorm3d::new(n));
        grids::<2>(LayerNorm2d::new(n));
        grids::<2>(LocalResponseNorm::new(n));
        grids::<2>(ChannelShuffle::new(n));
        grids::<2>(PixelShuffle::new(n));
        grids::<2>(PixelUnshuffle::new(n));
        grids::<1>(PRelu::new().num_parameters(n));
        grids::<1>(Snake::new().learned(n));
        for size in [vec![n], vec![n, n], vec![n; 3], vec![n; 9], vec![]] {
            grids::<1>(Upsample::size(size.clone()));
            grids::<2>(Upsample::size(size.clone()).mode(UpsampleMode::Bilinear).align_corners(true));
            grids::<2>(Upsample::size(size.clone()).mode(UpsampleMode::Bicubic));
            grids::<3>(Upsample::size(size).mode(UpsampleMode::Trilinear));
        }
        for layer in [
            Maxout::new(n, 3, 2),
            Maxout::new(4, n, 2),
            Maxout::new(4, 3, n),
            Maxout::new(n, n, n).bias(false),
        ] {
            rows(layer);
        }
        for layer in [
            Bilinear::new(n, 4, 3),
            Bilinear::new(4, n, 3),
            Bilinear::new(4, 4, n),
            Bilinear::new(n, n, n).bias(false),
        ] {
            module(layer, &[&[3, 4], &[0, 4], &[4]]);
        }
        let bag = || EmbeddingBag::new(4, 3);
        for layer in [
            EmbeddingBag::new(n, 3),
            EmbeddingBag::new(4, n),
            bag().padding_idx(n),
            bag().padding_idx(n).mode(BagMode::Max),
        ] {
            module(layer, &[&[3, 4], &[1 << 40, 1 << 20], &[0, 0], &[4]]);
        }
        rows(RmsNorm::new(n));
        rows(RmsNorm::new([n, n]).elementwise_affine(false));
        rows(Scale::new(n));
        rows(Scale::new([n, 1]).bare());
        rows(Bias::new([n, n]));
        rows(Permute::new([n, 0]));
        rows(Reshape::new([n, 2]));
        for dim in AXES {
            rows(Narrow::new(dim, n, 1));
            rows(Narrow::new(dim, 0, n));
            rows(Narrow::new(dim, n, n));
            rows(Repeat::new(dim, n));
            rows(Unflatten::new(dim, [n, 2]));
            module(Chunk::new(n, dim), &[&[3, 4], &[0, 4]]);
            module(Split::new([n, n], dim), &[&[3, 4], &[0, 4]]);
        }
        module(Add::new().terms(n), &[&[3, 4], &[0, 4]]);
        module(Mul::new().factors(n), &[&[3, 4], &[0, 4]]);
        module(Concat::new(0).parts(n), &[&[3, 4], &[0, 4]]);
        module(Stack::new(0).parts(n), &[&[3, 4], &[0, 4]]);
    }
}

#[test]
fn axes_of_all_layers() {
    for dim in AXES {
        rows(Softmax::new(dim));
        rows(LogSoftmax::new(dim));
        rows(Softmin::new(dim));
        rows(Glu::new().dim(dim));
        rows(Geglu::new().dim(dim).approximate_tanh());
        rows(Swiglu::new().dim(dim));
        rows(Reglu::new().dim(dim));
        rows(BilinearGlu::new().dim(dim));
        rows(L2Normalize::new(dim));
        for other in AXES {
            rows(Flatten::new().start_dim(dim).end_dim(other));
            rows(Transpose::new(dim, other));
            rows(Sum::new([dim, other]).keepdim(true));
            rows(Mean::new([dim, other]));
            rows(Max::new([dim, other]));
        }
        module(Stack::new(dim), &[&[3, 4], &[]]);
        module(Concat::new(dim), &[&[3, 4], &[]]);
    }
}

#[test]
fn real_numbers_of_all_layers() {
    for v in REALS {
        for layer in [
            LocalResponseNorm::new(3).alpha(v),
            LocalResponseNorm::new(3).beta(v),
            LocalResponseNorm::new(3).k(v),
        ] {
            grids::<2>(layer);
        }
        grids::<2>(GroupNorm::new(2, 4).eps(v));
        grids::<2>(InstanceNorm2d::new(4).eps(v).momentum(v));
        grids::<3>(BatchNorm3d::new(4).eps(v).momentum(v));
        grids::<2>(LayerNorm2d::new(4).eps(v));
        rows(RmsNorm::new(4).eps(v));
        rows(L2Normalize::new(1).eps(v));
        rows(L2Normalize::new(1).p(v));
        grids::<2>(FractionalMaxPool2d::of_ratio(2, v));
        grids::<3>(FractionalMaxPool3d::of_ratio(2, v));
        for factors in [vec![v], vec![v; 2], vec![v; 3]] {
            grids::<1>(Upsample::scale_factor(factors.clone()).recompute_scale_factor(true));
            grids::<2>(Upsample::scale_factor(factors.clone()).mode(UpsampleMode::Bilinear));
            grids::<3>(Upsample::scale_factor(factors));
        }
        rows(Dropout::new(v));
        rows(AlphaDropout::new(v));
        rows(FeatureAlphaDropout::new(v));
        grids::<1>(Dropout1d::new(v));
        grids::<2>(Dropout2d::new(v));
        grids::<3>(Dropout3d::new(v));
        rows(DropPath::new(v));
        rows(GaussianDropout::new(v));
        rows(GaussianNoise::new(v));
        rows(Celu::new().alpha(v));
        rows(Elu::new().alpha(v));
        rows(Hardshrink::new().lambd(v));
        rows(Softshrink::new().lambd(v));
        rows(Hardtanh::new().min_val(v));
        rows(Hardtanh::new().max_val(v));
        rows(LeakyRelu::new().negative_slope(v));
        rows(PRelu::new().start(v));
        rows(RRelu::new().lower(v));
        rows(RRelu::new().upper(v));
        rows(Sine::new().omega(v));
        rows(Snake::new().alpha(v));
        rows(Softplus::new().beta(v));
        rows(Softplus::new().threshold(v));
        rows(Threshold::new(v, 1.0));
        rows(Threshold::new(1.0, v));
        rows(Scale::new(4).init_value(v));
        rows(Bias::new(4).init_value(v));
        rows(Embedding::new(4, 3).max_norm(v));
        rows(Embedding::new(4, 3).norm_type(v));
        module(EmbeddingBag::new(4, 3).max_norm(v), &[&[3, 4]]);
        module(EmbeddingBag::new(4, 3).norm_type(v), &[&[3, 4]]);
        grids::<1>(Conv1d::new(4, 4, 3).weight_init(Init::Constant(v)));
        grids::<2>(ConvTranspose2d::new(4, 4, 3).bias_init(Init::Uniform { low: -v, high: v }));
        grids::<3>(Conv3d::new(4, 4, 3).weight_init(Init::Normal { mean: 0.0, std: v }));
    }
}

/// The spec with another value of an attribute.
fn changed(spec: &Spec, name: &str, value: &Value) -> Spec {
    let mut new = Spec::new(spec.kind());
    for (other, old) in spec.attributes() {
        new = new.with(other.as_str(), if other == name { value.clone() } else { old.clone() });
    }
    spec.children().iter().fold(new, |new, (name, child)| new.child(name.as_str(), child.clone()))
}

/// Whatever stands in a spec, what is wrong with it is told with the name of the layer: the kind of the spec.
#[test]
fn what_is_wrong_in_a_spec_is_told_with_the_name_of_its_layer() {
    let ints = [0, 1, -1, 2, 1 << 31, i64::MAX, i64::MIN].map(Value::Int);
    let floats = REALS.map(Value::Float);
    let others = [Value::None, Value::Bool(true), Value::List(vec![]), Value::from("?")];
    let values: Vec<Value> = ints.into_iter().chain(floats).chain(others).collect();
    let registry = registry::<f32>();
    let mut faults = Vec::new();
    for entry in registry.modules() {
        for example in (entry.examples)().into_iter().filter(|example| !example.bench) {
            for (name, _) in example.spec.attributes() {
                for value in &values {
                    let spec = changed(&example.spec, name, value);
                    let error = match registry.build_module(&spec) {
                        Ok(module) => module.validate().err(),
                        Err(error) => Some(error),
                    };
                    if let Some(error) = error.filter(|e| !e.to_string().contains(spec.kind())) {
                        faults.push(format!("{}: {name} = {value:?}: {error}", spec.kind()));
                    }
                }
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} are told without it:\n{}",
        faults.len(),
        faults[..faults.len().min(40)].join("\n")
    );
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
