//! Whole networks: outputs, loss, gradients, statistics after the pass, and the losses of a few steps of training.

use crate::{
    Report, Step, Stop,
    args::Args,
    case::{Array, File},
    compare::{Kind, agree, gradient, values},
    each_case,
    module::{each, set_state},
};
use chainrule_core::{
    AnyState, BoxModule, Classes, Context, Error, Grads, Module, ModuleCall, Objective, Registry, Result,
    Scalar, Shape, Spec, Target, Tensor,
};
use chainrule_layers::FeedForwardActivation;
use chainrule_losses::{Bce, CrossEntropy, Mse};
use chainrule_models::{
    AutoEncoder, Bert, ConvNeXt, Gpt, GruClassifier, LeNet, LstmClassifier, Mlp, MobileNetV2, ResNet, Stage,
    Stem, UNet, Vae, VaeLoss, Vgg, VisionTransformer, WaveNet, WganCritic,
};
use serde_json::Value;
use std::marker::PhantomData;

/// A network, and what its loss compares.
struct Net<T: Scalar> {
    module: BoxModule<T>,
    /// Of its inputs and outputs, in their order.
    inputs: &'static [&'static str],
    outputs: &'static [&'static str],
    loss: Box<dyn Objective<T = T>>,
    /// Of the outputs that the loss reads, and of its targets: targets of the case, or its inputs.
    of: (&'static [&'static str], &'static [&'static str]),
}

/// Runs the network of a folder.
pub fn run<T: Scalar>(
    (case, weights): (&[u8], &[u8]),
    registry: &Registry<T>,
    wanted: &dyn Fn(&str) -> bool,
    report: &mut Report,
) -> Result<()> {
    let (file, weights) = (File::parse(case)?, File::without_cases(weights)?);
    let run = |arch: &str, case: &Value| compare(registry, &file, &weights, arch, case);
    each_case(&file, "arch", wanted, report, &run)
}

/// The network of an architecture, from the sizes of the case.
fn build<T: Scalar>(registry: &Registry<T>, arch: &str, config: &Value) -> Step<Net<T>> {
    let size = |name: &str| one(&config[name], name);
    let sizes = |name: &str| list(&config[name], name);
    let activation = || -> Step<BoxModule<T>> {
        Ok(registry.build_module(&activation(config["act"].as_str().unwrap_or_default())?)?)
    };
    let on = |name: &str| config[name] == Value::Bool(true);
    let number = |name: &str| config[name].as_f64().unwrap_or_default();
    let classifier = |module: BoxModule<T>| {
        let smoothing = config["label_smoothing"].as_f64().unwrap_or(0.0);
        Net {
            module,
            inputs: &["x"],
            outputs: &["logits"],
            loss: Box::new(CrossEntropy::new().label_smoothing(smoothing)) as Box<dyn Objective<T = T>>,
            of: (&["logits"], &["labels"]),
        }
    };
    Ok(match arch {
        "LeNet" => classifier(BoxModule::new(
            LeNet {
                size: array(sizes("size")?)?,
                width: array(sizes("width")?)?,
                hidden: array(sizes("hidden")?)?,
                average: config["pool"] == "avg",
                activation: activation()?,
                ..LeNet::of(size("channels")?, size("classes")?)
            }
            .build()?,
        )),
        "MLPBatchNorm" => classifier(BoxModule::new(
            Mlp {
                bias: on("bias"),
                batch_norm: true,
                norm: (number("eps"), number("momentum")),
                activation: activation()?,
                ..Mlp::of(size("features")?, sizes("hidden")?, size("classes")?)
            }
            .build(),
        )),
        "VGG" => {
            let stages = config["plan"].as_array().into_iter().flatten();
            let stage = |v: &Value| Ok(if v == "M" { Stage::Pool } else { Stage::Conv(one(v, "plan")?) });
            let vgg = Vgg {
                plan: stages.map(stage).collect::<Step<_>>()?,
                batch_norm: on("batch_norm"),
                pooled: size("pooled")?,
                hidden: size("hidden")?,
                dropout: 0.0,
                ..Vgg::vgg11(size("channels")?, size("classes")?)
            };
            classifier(BoxModule::new(vgg.build()))
        }
        "ResNet" => {
            let stem = if config["stem"] == "imagenet" { Stem::ImageNet } else { Stem::Cifar };
            let (width, blocks) = (sizes("width")?, sizes("blocks")?);
            let resnet =
                ResNet { channels: size("channels")?, stem, width, blocks, classes: size("classes")? };
            classifier(BoxModule::new(resnet.build()))
        }
        "MobileNetV2" => {
            let rows = config["plan"].as_array().into_iter().flatten();
            let plan = rows.map(|row| array(list(row, "plan")?)).collect::<Step<_>>()?;
            let (channels, stem, last) = (size("channels")?, size("stem")?, size("last")?);
            let net = MobileNetV2 { channels, stem, plan, last, dropout: 0.0, classes: size("classes")? };
            classifier(BoxModule::new(net.build()))
        }
        "ConvNeXt" => {
            let (channels, patch, kernel) = (size("channels")?, size("patch")?, size("kernel")?);
            let (width, blocks, classes) = (sizes("width")?, sizes("blocks")?, size("classes")?);
            classifier(BoxModule::new(ConvNeXt { channels, patch, width, blocks, kernel, classes }.build()))
        }
        "UNet" => {
            let (width, up_kernel) = (sizes("width")?, size("up_kernel")?);
            let net = UNet { width, up_kernel, ..UNet::new(size("channels")?, size("classes")?) };
            Net { of: (&["logits"], &["mask"]), ..classifier(BoxModule::new(net.build())) }
        }
        "WaveNet" => {
            let (levels, width, skip) = (size("levels")?, size("width")?, size("skip")?);
            let net =
                WaveNet { levels, width, skip, kernel: size("kernel")?, dilations: sizes("dilations")? };
            let net = classifier(BoxModule::new(net.build()));
            Net { inputs: &["levels"], of: (&["logits"], &["next"]), ..net }
        }
        "GPT" => {
            let (vocab, context, embed) = (size("vocab")?, size("context")?, size("embed")?);
            let gpt = Gpt {
                layers: size("layers")?,
                bias: on("bias"),
                tied: config["tied"] != Value::Bool(false),
                activation: feed_forward(config)?,
                ..Gpt::new(vocab, context, embed, size("heads")?)
            };
            Net {
                module: BoxModule::new(gpt.build()),
                inputs: &["tokens"],
                outputs: &["logits"],
                loss: Box::new(Steps(CrossEntropy::new().ignore_index(-1i64 as usize))),
                of: (&["logits"], &["next"]),
            }
        }
        "BERT" => {
            let (vocab, context, embed) = (size("vocab")?, size("context")?, size("embed")?);
            let bert = Bert {
                feed_forward: size("ff")?,
                layers: size("layers")?,
                eps: number("eps"),
                activation: feed_forward(config)?,
                dropout: 0.0,
                ..Bert::new(vocab, context, embed, size("heads")?, size("classes")?)
            };
            let net = classifier(BoxModule::new(bert.build()));
            Net { inputs: &["tokens", "types", "mask"], outputs: &["logits", "hidden"], ..net }
        }
        "ViT" => {
            let (channels, image, patch) = (size("channels")?, array(sizes("size")?)?, size("patch")?);
            let (embed, heads, classes) = (size("embed")?, size("heads")?, size("classes")?);
            let vit = VisionTransformer {
                feed_forward: size("ff")?,
                layers: size("layers")?,
                class_token: config["pool"] == "cls",
                activation: feed_forward(config)?,
                ..VisionTransformer::new(channels, image, patch, embed, heads, classes)
            };
            if !on("qkv_bias") {
                return Err(Stop::Skip("qkv_bias = false".into()));
            }
            classifier(BoxModule::new(vit.build()))
        }
        "LSTMClassifier" => {
            let mean = config["pool"] == "mean";
            let (vocabulary, embedding, hidden) = (size("vocab")?, size("embed")?, size("hidden")?);
            let net = LstmClassifier {
                layers: size("layers")?,
                mean,
                ..LstmClassifier::new(vocabulary, embedding, hidden, size("classes")?)
            };
            Net { inputs: &["tokens"], ..classifier(BoxModule::new(net.build())) }
        }
        "GRUPacked" => {
            let net = GruClassifier {
                layers: size("layers")?,
                bidirectional: on("bidirectional"),
                ..GruClassifier::new(size("features")?, size("hidden")?, size("classes")?)
            };
            Net {
                inputs: &["x", "lengths"],
                outputs: &["logits", "sequence"],
                ..classifier(BoxModule::new(net.build()))
            }
        }
        "AutoEncoder" => {
            let net = AutoEncoder {
                width: array(sizes("width")?)?,
                up_kernel: size("up_kernel")?,
                activation: activation()?,
                ..AutoEncoder::of(size("channels")?, array(sizes("size")?)?, size("code")?)
            };
            let mse = config["loss"] == "mse";
            Net {
                module: BoxModule::new(net.build()?),
                inputs: &["x"],
                outputs: &["reconstruction", "code"],
                loss: if mse { Box::new(Mse::new()) } else { Box::new(Bce::new()) },
                of: (&["reconstruction"], &["x"]),
            }
        }
        "VAE" => {
            let (features, hidden, code) = (size("features")?, size("hidden")?, size("code")?);
            let net = Vae { activation: activation()?, ..Vae::of(features, hidden, code) };
            Net {
                module: BoxModule::new(net.build()),
                inputs: &["x", "noise"],
                outputs: &["logits", "mu", "logvar"],
                loss: Box::new(VaeLoss::new().beta(number("beta"))),
                of: (&["logits", "mu", "logvar"], &["x"]),
            }
        }
        "WGANCritic" => {
            let (channels, sides) = (size("channels")?, sizes("size")?);
            let layer_norm = config["norm"] == "layer";
            let net =
                WganCritic { width: sizes("width")?, layer_norm, ..WganCritic::new(channels, sides[0]) };
            Net {
                module: BoxModule::new(net.build()),
                inputs: &["x"],
                outputs: &["score"],
                loss: Box::new(Scores(PhantomData)),
                of: (&["score"], &["fake"]),
            }
        }
        _ => return Err(Stop::Skip("architecture".into())),
    })
}

/// Cross-entropy of each step of logits (N, T, C).
struct Steps<T: Scalar>(CrossEntropy<T>);

/// y (N, T, C) as (N T, C).
fn flat<T: Scalar>(y: &Tensor<T>) -> Result<Tensor<T>> {
    let mut flat = y.clone();
    let classes = y.shape().last().copied().unwrap_or(1);
    flat.reshape([y.len() / classes.max(1), classes])?;
    Ok(flat)
}

/// Classes (N, T) as (N T).
fn flat_target<'t, T: Scalar>(targets: &[Target<'t, T>]) -> Result<Target<'t, T>> {
    match targets {
        [Target::Classes(classes)] => {
            let all = classes.indices();
            Ok(Target::Classes(Classes::new(all, Shape::new(&[all.len()])?)?))
        }
        _ => Err(Error::value("expected classes")),
    }
}

impl<T: Scalar> Objective for Steps<T> {
    type T = T;

    fn evaluate(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>], loss: &mut Tensor<T>) -> Result<()> {
        self.0.evaluate(&[&flat(ys[0])?], &[flat_target(targets)?], loss)
    }

    fn differentiate(
        &self,
        ys: &[&Tensor<T>],
        targets: &[Target<'_, T>],
        dloss: &Tensor<T>,
        dys: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        self.0.differentiate(&[&flat(ys[0])?], &[flat_target(targets)?], dloss, dys)?;
        dys.iter_mut().flatten().try_for_each(|dy| dy.reshape(*ys[0].shape()))
    }
}

/// The mean score of fakes less that of reals; the target is 1 for a fake.
struct Scores<T>(PhantomData<T>);

impl<T: Scalar> Scores<T> {
    /// ∂E/∂score of each sample.
    fn slopes(targets: &[Target<'_, T>]) -> Result<Vec<T>> {
        let [target] = targets else { return Err(Error::value("expected one target")) };
        let fake = target.classes()?;
        let fakes = fake.iter().filter(|&&fake| fake == 1).count();
        let [fakes, reals] = [fakes, fake.len() - fakes].map(|n| n as f64);
        let slope = |&fake: &usize| if fake == 1 { 1.0 / fakes } else { -1.0 / reals };
        Ok(fake.iter().map(|fake| T::from_f64(slope(fake))).collect())
    }
}

impl<T: Scalar> Objective for Scores<T> {
    type T = T;

    fn evaluate(&self, ys: &[&Tensor<T>], targets: &[Target<'_, T>], loss: &mut Tensor<T>) -> Result<()> {
        let slopes = Self::slopes(targets)?;
        loss.reset([])[0] = ys[0].data().iter().zip(slopes).map(|(&y, slope)| y * slope).sum();
        Ok(())
    }

    fn differentiate(
        &self,
        ys: &[&Tensor<T>],
        targets: &[Target<'_, T>],
        dloss: &Tensor<T>,
        dys: &mut [Option<&mut Tensor<T>>],
    ) -> Result<()> {
        let slopes = Self::slopes(targets)?;
        if let [Some(dy)] = dys {
            let dy = dy.reset(*ys[0].shape());
            dy.iter_mut().zip(slopes).for_each(|(dy, slope)| *dy = dloss.data()[0] * slope);
        }
        Ok(())
    }
}

fn one(value: &Value, name: &str) -> Step<usize> {
    value
        .as_u64()
        .map(|n| n as usize)
        .ok_or_else(|| Stop::Fail(format!("expected a size `{name}`, got {value}")))
}

fn list(value: &Value, name: &str) -> Step<Vec<usize>> {
    value.as_array().into_iter().flatten().map(|v| one(v, name)).collect()
}

fn array<const N: usize>(sizes: Vec<usize>) -> Step<[usize; N]> {
    sizes.try_into().map_err(|sizes| Stop::Fail(format!("expected {N} sizes, got {sizes:?}")))
}

fn feed_forward(config: &Value) -> Step<FeedForwardActivation> {
    Ok(match config["act"].as_str() {
        Some("relu") => FeedForwardActivation::Relu,
        Some("gelu") => FeedForwardActivation::Gelu,
        Some("gelu_tanh") => FeedForwardActivation::GeluTanh,
        other => return Err(Stop::Skip(format!("activation {other:?}"))),
    })
}

fn activation(name: &str) -> Step<Spec> {
    Ok(match name {
        "relu" => Spec::new("Relu"),
        "tanh" => Spec::new("Tanh"),
        "leaky_relu" => Spec::new("LeakyRelu").with("negative_slope", 0.1),
        "elu" => Spec::new("Elu"),
        "silu" => Spec::new("Silu"),
        "gelu" => Spec::new("Gelu"),
        "gelu_tanh" => Spec::new("Gelu").with("approximate", "tanh"),
        "sigmoid" => Spec::new("Sigmoid"),
        "selu" => Spec::new("Selu"),
        other => return Err(Stop::Skip(format!("activation {other}"))),
    })
}

fn compare<T: Scalar>(
    registry: &Registry<T>,
    file: &File<'_>,
    weights: &File<'_>,
    arch: &str,
    case: &Value,
) -> Step<()> {
    let net = build(registry, arch, &case["config"])?;
    // A tied weight stands under its first name.
    let tied = |name: &&str| {
        arch != "GPT" || *name != "lm_head.weight" || case["config"]["tied"] == Value::Bool(false)
    };
    let names = case["state_dict"].as_array().into_iter().flatten().filter_map(Value::as_str).filter(tied);
    let stored = names.map(|name| Ok((name.to_owned(), weights.array(name)?))).collect::<Result<_>>()?;
    let tensor = |v: &Value, name: &str| match v[name].as_str() {
        Some(key) => Ok(file.array(key)?),
        None => Err(Stop::Fail(format!("the case has no `{name}`"))),
    };
    let given = net.inputs.iter().map(|name| tensor(&case["inputs"], name)).collect::<Step<Vec<_>>>()?;
    let xs: Vec<Tensor<T>> = given.iter().map(Array::cast).collect();
    let xs: Vec<&Tensor<T>> = xs.iter().collect();
    let of_loss = |name: &&str| tensor(&case["targets"], name).or_else(|_| tensor(&case["inputs"], name));
    let targets = Targets::new(&net.of.1.iter().map(of_loss).collect::<Step<Vec<_>>>()?);

    let mut module = net.module.clone();
    set_state(&stored, &mut module)?;
    let (mut ys, mut state) = (vec![Tensor::default(); net.outputs.len()], AnyState::default());
    module.apply(&xs, &mut ys, &mut state, Context::infer())?;
    for (name, y) in net.outputs.iter().zip(&ys) {
        agree(&format!("output {name}"), Kind::Value, y, &tensor(&case["eval"]["outputs"], name)?, false)?;
    }

    let (train, mut grads) = (&case["train"], Grads::new(&module));
    let mut dxs = vec![Tensor::default(); xs.len()];
    let (loss, ys, state) = step(&net, &module, &xs, &targets, &mut grads, Some((&given, &mut dxs)))?;
    for (name, y) in net.outputs.iter().zip(&ys) {
        agree(
            &format!("output {name} in training"),
            Kind::Value,
            y,
            &tensor(&train["outputs"], name)?,
            false,
        )?;
    }
    let want = file.array(train["loss"].as_str().unwrap_or_default())?;
    values("loss", Kind::Value, &[loss], &want)?;
    for (i, name) in net.inputs.iter().enumerate().filter(|(i, _)| given[*i].float) {
        if train["grad_inputs"][*name].is_string() {
            let want = tensor(&train["grad_inputs"], name)?;
            gradient(&format!("gradient of {name}"), dxs[i].data(), Some(&want))?;
        }
    }
    let mut seen = 0;
    each(&module, &mut |path, p| {
        if train["grad_params"][path].is_null() {
            return Ok(());
        }
        seen += 1;
        let want = tensor(&train["grad_params"], path)?;
        gradient(&format!("gradient of {path}"), grads.get(p).unwrap_or_default(), Some(&want))
    })?;
    if Some(seen) != train["grad_params"].as_object().map(serde_json::Map::len) {
        return Err(Stop::Fail(format!("{seen} parameters are among those with gradients")));
    }
    module.fold(&state);
    each(&module, &mut |path, p| match train["buffers_after"][path].as_str() {
        Some(key) => values(&format!("{path} after the pass"), Kind::Value, p.value()?, &file.array(key)?),
        None => Ok(()),
    })?;

    // In f32 each step amplifies the rounding of those before.
    let runs = case["trajectories"].as_object().filter(|_| T::NAME == "F64");
    for (name, run) in runs.into_iter().flatten() {
        let spec = Args::plain(&run["args"]).spec(registry.optimizers(), name)?;
        let Some(spec) = spec else { return Err(Stop::Skip(format!("optimizer {name}"))) };
        let (mut optimizer, mut module) = (registry.build_optimizer(&spec)?, net.module.clone());
        set_state(&stored, &mut module)?;
        let mut grads = Grads::new(&module);
        let want = file.array(run["losses"].as_str().unwrap_or_default())?;
        let mut losses = Vec::new();
        for _ in 0..want.values.len() {
            grads.zero();
            let (loss, _, state) = step(&net, &module, &xs, &targets, &mut grads, None)?;
            module.fold(&state);
            optimizer.step(&mut module, &grads)?;
            losses.push(loss);
        }
        values(&format!("losses of {name}"), Kind::Value, &losses, &want)?;
    }
    Ok(())
}

/// Forward in training, the loss, and backward.
fn step<T: Scalar>(
    net: &Net<T>,
    module: &BoxModule<T>,
    xs: &[&Tensor<T>],
    targets: &Targets<T>,
    grads: &mut Grads<T>,
    dxs: Option<(&[Array], &mut Vec<Tensor<T>>)>,
) -> Step<(T, Vec<Tensor<T>>, AnyState)> {
    let (mut ys, mut state) = (vec![Tensor::default(); net.outputs.len()], AnyState::default());
    module.apply(xs, &mut ys, &mut state, Context::train(0))?;
    let read: Vec<usize> =
        net.outputs.iter().enumerate().filter(|(_, y)| net.of.0.contains(y)).map(|(i, _)| i).collect();
    let predictions: Vec<&Tensor<T>> = read.iter().map(|&i| &ys[i]).collect();
    let mut slopes = vec![Tensor::default(); read.len()];
    let loss = net.loss.value_and_gradients(&predictions, &targets.each()?, &mut slopes)?;
    let mut dys = vec![None; ys.len()];
    read.iter().zip(&slopes).for_each(|(&i, dy)| dys[i] = Some(dy));
    let mut none = Vec::new();
    let (floats, dxs) = match dxs {
        Some((given, dxs)) => (given.iter().map(|x| x.float).collect(), dxs),
        None => (Vec::new(), &mut none),
    };
    let mut requested: Vec<_> =
        dxs.iter_mut().zip(&floats).map(|(dx, &float): (_, &bool)| float.then_some(dx)).collect();
    requested.resize_with(xs.len(), || None);
    module.pull(ModuleCall::new(module, xs, &ys, &dys)?, &mut state, grads, &mut requested)?;
    Ok((loss, ys, state))
}

/// Targets of a loss, kept where [`Target`] can borrow them.
struct Targets<T: Scalar>(Vec<(Tensor<T>, Vec<usize>, bool)>);

impl<T: Scalar> Targets<T> {
    fn new(arrays: &[Array]) -> Self {
        Self(arrays.iter().map(|a| (a.cast(), a.classes(), a.float)).collect())
    }

    fn each(&self) -> Result<Vec<Target<'_, T>>> {
        let each = self.0.iter().map(|(values, classes, float)| match float {
            true => Ok(Target::Values(values)),
            false => Ok(Target::Classes(Classes::new(classes, *values.shape())?)),
        });
        each.collect()
    }
}
