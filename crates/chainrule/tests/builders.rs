//! Builder methods give the same in any order; two that exclude each other are an error that names both.

use chainrule::{
    core::Objective,
    optim::{schedule::*, *},
    prelude::*,
};

/// What a module is: its spec, and the names, shapes and first values of its parameters, or why it cannot be.
fn module<M: Module<T = f32> + Clone>(module: &M) -> String {
    let mut text = module.to_spec().to_string();
    match module.clone().init(1) {
        Ok(module) => module.visit(&mut |path, p| {
            text += &format!("\n{path} {} {} {:?}", p.shape(), p.is_buffer(), p.tensor().map(Tensor::data));
        }),
        Err(error) => text += &error.to_string(),
    }
    text
}

fn loss<L: Objective<T = f32> + Clone>(loss: &L) -> String {
    format!("{} {:?}", loss.to_spec(), loss.verify().err().map(|error| error.to_string()))
}

fn optimizer<O: Optimizer<f32> + Clone>(optimizer: &O) -> String {
    // Its first steps show what is settled when a method is called.
    let (mut optimizer, mut model) = (optimizer.clone(), Linear::new(3, 2).init(1).unwrap());
    let mut grads = Grads::new(&model);
    let mut text = optimizer.spec().to_string();
    for step in 0..3 {
        grads.values_mut().iter_mut().enumerate().for_each(|(i, g)| *g = ((i + step) % 3) as f32 - 0.7);
        match optimizer.step(&mut model, &grads) {
            Ok(()) => model.visit(&mut |_, p| text += &format!("\n{:?}", p.value().unwrap())),
            Err(error) => text += &error.to_string(),
        }
    }
    text
}

fn schedule<S: Schedule + Clone>(schedule: &S) -> String {
    let factors: Vec<f64> = (0..20).map(|step| schedule.factor(step)).collect();
    format!("{} {factors:?} {:?}", schedule.spec(), schedule.check().err().map(|error| error.to_string()))
}

/// Orders of `n` things: all, or of many each before and behind each other.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n <= 4 {
        let mut all = vec![Vec::new()];
        for next in 0..n {
            let longer = |order: &Vec<usize>| {
                let order = order.clone();
                (0..=next).map(move |at| {
                    let mut order = order.clone();
                    order.insert(at, next);
                    order
                })
            };
            all = all.iter().flat_map(longer).collect();
        }
        return all;
    }
    let forward: Vec<usize> = (0..n).collect();
    let rotations = (0..n).map(|by| {
        let mut order = forward.clone();
        order.rotate_left(by);
        order
    });
    let mut all: Vec<Vec<usize>> = rotations.collect();
    all.extend(all.clone().into_iter().map(|order| order.into_iter().rev().collect::<Vec<_>>()));
    let mut rng = Rng::new(1);
    for _ in 0..20 {
        let mut order = forward.clone();
        rng.shuffle(&mut order);
        all.push(order);
    }
    all
}

fn check<B: Clone>(what: &str, plain: B, methods: &[(&str, fn(B) -> B)], text: fn(&B) -> String) {
    let build = |order: &[usize]| order.iter().fold(plain.clone(), |built, &i| methods[i].1(built));
    let forward: Vec<usize> = (0..methods.len()).collect();
    let want = text(&build(&forward));
    assert!(want != text(&plain), "{what}: the methods change nothing");
    for order in orders(methods.len()) {
        let got = text(&build(&order));
        let names: Vec<&str> = order.iter().map(|&i| methods[i].0).collect();
        assert!(got == want, "{what} in the order {names:?}:\n{got}\nand as listed:\n{want}");
    }
}

/// `what it is: constructor => method(arguments), ..;` a line.
macro_rules! table {
    ($($text:ident: $plain:expr => $($method:ident($($argument:expr),*)),+;)*) => {
        $(
            check(stringify!($plain), $plain, &[$((stringify!($method), |b| b.$method($($argument),*))),+], $text);
        )*
    };
}

#[test]
fn layers_are_the_same_in_any_order() {
    table! {
        module: Linear::<f32>::new(3, 2) => bias(false), weight_init(Init::ONES), bias_init(Init::Constant(2.0));
        module: Linear::<f32>::new(3, 2) => weight_init(Init::ONES), bias_init(Init::Constant(2.0)), bias(true);
        module: Embedding::<f32>::new(5, 3) => padding_idx(2), max_norm(1.0), norm_type(1.0), scale_grad_by_freq(true), weight_init(Init::ONES);
        module: EmbeddingBag::<f32>::new(5, 3) => mode(BagMode::Sum), padding_idx(2), offsets(true), include_last_offset(true), per_sample_weights(true), max_norm(1.0), norm_type(1.0), weight_init(Init::ONES);
        module: Scale::<f32>::new([3]) => bare(), init_value(0.5);
        module: AdaptiveLogSoftmaxWithLoss::<f32>::new(8, 9, [2, 5]) => div_value(2.0), head_bias(true);
        module: Conv2d::<f32>::new(4, 6, 3) => stride(2), padding(1), padding_mode(PaddingMode::Reflect), dilation(2), groups(2), bias(true), weight_init(Init::ONES), bias_init(Init::Constant(2.0));
        module: Conv2d::<f32>::new(4, 6, 3) => groups(2), weight_init(Init::kaiming_uniform()), bias(false);
        module: ConvTranspose2d::<f32>::new(4, 6, 3) => stride(2), padding(1), output_padding(1), dilation(2), groups(2), bias(true), weight_init(Init::ONES), bias_init(Init::Constant(2.0));
        module: Unfold::<f32>::new(2) => stride(2), padding(1), dilation(2);
        module: Fold::<f32>::new([6, 6], 2) => stride(2), padding(1), dilation(2);
        module: MaxPool2d::<f32>::new(3) => stride(2), padding(1), dilation(2), ceil_mode(true);
        module: AvgPool2d::<f32>::new(3) => stride(2), padding(1), ceil_mode(true), count_include_pad(false), divisor_override(3);
        module: MaxUnpool2d::<f32>::new(3) => stride(2), padding(1), output_size([7, 7]);
        module: LpPool2d::<f32>::new(2.0, 3) => stride(2), ceil_mode(true);
        module: BatchNorm2d::<f32>::new(3) => eps(1e-3), momentum(0.3), affine(true), bias(false), track_running_stats(true);
        module: BatchNorm2d::<f32>::new(3) => momentum(None), affine(false), bias(true), track_running_stats(false);
        module: InstanceNorm2d::<f32>::new(3) => eps(1e-3), momentum(0.3), affine(true), bias(false), track_running_stats(true);
        module: GroupNorm::<f32>::new(2, 4) => eps(1e-3), affine(true), bias(false);
        module: LayerNorm::<f32>::new([4]) => eps(1e-3), elementwise_affine(true), bias(false);
        module: LayerNorm::<f32>::new([4]) => elementwise_affine(false), bias(true);
        module: RmsNorm::<f32>::new([4]) => eps(1e-3), elementwise_affine(false);
        module: LocalResponseNorm::<f32>::new(3) => alpha(0.1), beta(0.5), k(2.0);
        module: L2Normalize::<f32>::new(1) => p(3.0), eps(1e-3);
        module: Rnn::<f32>::new(3, 4) => num_layers(2), bias(false), batch_first(false), dropout(0.1), bidirectional(true), states(true), lengths(true), last(true), nonlinearity("relu");
        module: Lstm::<f32>::new(3, 4) => num_layers(2), bias(false), batch_first(false), dropout(0.1), bidirectional(true), states(true), lengths(true), last(true), proj_size(2);
        module: Gru::<f32>::new(3, 4) => num_layers(2), bias(false), batch_first(false), dropout(0.1), bidirectional(true), final_states(true), lengths(true), last(true);
        module: RnnCell::<f32>::new(3, 4) => bias(false), nonlinearity("relu");
        module: ConvLstm2d::<f32>::new(2, 3, 3) => bias(false), states(true), last(true);
        module: ScaledDotProductAttention::<f32>::new() => attn_mask(MaskKind::Additive), dropout_p(0.1), causal(true), window(3), scale(0.5);
        module: MultiheadAttention::<f32>::new(8, 4) => num_kv_heads(2), dropout(0.1), bias(false), separate(true), add_bias_kv(true), add_zero_attn(true), kdim(5), vdim(6), batch_first(false), cross(true), key_padding_mask(MaskKind::Boolean), attn_mask(MaskKind::Additive), causal(true), window(2), alibi(true), rope(100.0, Pairing::Halves), need_weights(true), average_attn_weights(false);
        module: MultiheadAttention::<f32>::new(8, 4) => memory(true), cross(false), separate(true), bias(true);
        module: TransformerEncoderLayer::<f32>::new(8, 2) => dim_feedforward(5), dropout(0.2), activation(FeedForwardActivation::Gelu), layer_norm_eps(1e-3), batch_first(false), norm_first(true), bias(false), causal(true), separate(true), src_mask(MaskKind::Additive), src_key_padding_mask(MaskKind::Boolean);
        module: TransformerDecoderLayer::<f32>::new(8, 2) => dim_feedforward(5), dropout(0.2), activation(FeedForwardActivation::Gelu), layer_norm_eps(1e-3), batch_first(false), norm_first(true), bias(false), causal(true), tgt_mask(MaskKind::Additive), memory_mask(MaskKind::Additive), tgt_key_padding_mask(MaskKind::Boolean), memory_key_padding_mask(MaskKind::Boolean);
        module: Transformer::<f32>::new(8, 2) => num_encoder_layers(1), num_decoder_layers(2), dim_feedforward(5), dropout(0.2), activation(FeedForwardActivation::Gelu), layer_norm_eps(1e-3), batch_first(false), norm_first(true), bias(false), causal(true), src_mask(MaskKind::Additive), tgt_mask(MaskKind::Additive), memory_mask(MaskKind::Additive), src_key_padding_mask(MaskKind::Boolean), tgt_key_padding_mask(MaskKind::Boolean), memory_key_padding_mask(MaskKind::Boolean);
        module: Rope::<f32>::new(4) => base(100.0), pairing(Pairing::Halves);
        module: Upsample::<f32>::scale_factor([2.0]) => mode(UpsampleMode::Bilinear), align_corners(true), recompute_scale_factor(true);
        module: Flatten::<f32>::new() => start_dim(2), end_dim(-2);
        module: Softplus::<f32>::new() => beta(2.0), threshold(5.0);
        module: Snake::<f32>::new() => alpha(2.0), learned(3);
        module: RRelu::<f32>::new() => lower(0.2), upper(0.9);
        module: PRelu::<f32>::new() => num_parameters(3), start(0.5);
        module: Hardtanh::<f32>::new() => min_val(-2.0), max_val(3.0);
        module: Geglu::<f32>::new() => dim(1), approximate_tanh();
        module: Lora::<f32>::new(Linear::new(4, 3), 2) => alpha(3.0), dropout(0.1), on("weight");
        module: SpectralNorm::<f32>::new(Linear::new(4, 3)) => dim(1), n_power_iterations(3), eps(1e-6), on("weight");
        module: WeightNorm::<f32>::new(Linear::new(4, 3)) => dim(1), on("weight");
    }
}

#[test]
fn losses_are_the_same_in_any_order() {
    table! {
        loss: ActivityPenalty::<f32>::new() => l1(0.5), l2(2.0), reduction(Reduction::Sum);
        loss: Bce::<f32>::new() => weight(Tensor::from([0.5, 2.0])), reduction(Reduction::Sum);
        loss: BceWithLogits::<f32>::new() => weight(Tensor::from([0.5, 2.0])), pos_weight(Tensor::from([3.0, 2.0])), reduction(Reduction::Sum);
        loss: BinaryFocal::<f32>::new() => gamma(1.5), alpha(0.3), reduction(Reduction::Sum);
        loss: Contrastive::<f32>::new() => margin(2.0), reduction(Reduction::Sum);
        loss: CosineEmbedding::<f32>::new() => margin(0.5), reduction(Reduction::Sum);
        loss: CrossEntropy::<f32>::new() => weights([0.5, 2.0]), label_smoothing(0.1), ignore_index(1), reduction(Reduction::Sum), classes_last(true);
        loss: Ctc::<f32>::new() => blank(2), zero_infinity(true), reduction(Reduction::Sum);
        loss: Dice::<f32>::new() => smooth(2.0), reduction(Reduction::Sum);
        loss: Focal::<f32>::new() => gamma(1.5), weights([0.5, 2.0]), ignore_index(1), reduction(Reduction::Sum);
        loss: GaussianNll::<f32>::new() => full(true), eps(1e-3), reduction(Reduction::Sum);
        loss: Hinge::<f32>::new() => margin(2.0), reduction(Reduction::Sum);
        loss: HingeEmbedding::<f32>::new() => margin(2.0), reduction(Reduction::Sum);
        loss: Huber::<f32>::new() => delta(2.0), reduction(Reduction::Sum);
        loss: InfoNce::<f32>::new() => temperature(0.5), symmetric(true), reduction(Reduction::Sum);
        loss: KlDiv::<f32>::new() => log_target(true), reduction(Reduction::Sum);
        loss: MarginRanking::<f32>::new() => margin(2.0), reduction(Reduction::Sum);
        loss: Mape::<f32>::new() => eps(0.1), reduction(Reduction::Sum);
        loss: MultiLabelSoftMargin::<f32>::new() => weight(Tensor::from([0.5, 2.0])), reduction(Reduction::Sum);
        loss: MultiMargin::<f32>::new() => p(2), margin(2.0), weights([0.5, 2.0]), reduction(Reduction::Sum);
        loss: Nll::<f32>::new() => weights([0.5, 2.0]), ignore_index(1), reduction(Reduction::Sum);
        loss: PoissonNll::<f32>::new() => log_input(false), full(true), eps(0.1), reduction(Reduction::Sum);
        loss: Quantile::<f32>::new() => quantile(0.9), reduction(Reduction::Sum);
        loss: SmoothL1::<f32>::new() => beta(2.0), reduction(Reduction::Sum);
        loss: SquaredHinge::<f32>::new() => margin(2.0), reduction(Reduction::Sum);
        loss: TripletMargin::<f32>::new() => margin(2.0), p(3.0), eps(0.1), swap(true), reduction(Reduction::Sum);
        loss: Tversky::<f32>::new() => alpha(0.3), beta(0.7), smooth(2.0), reduction(Reduction::Sum);
    }
}

/// The group of biases: twice the rate, no decay.
fn biases() -> Group {
    Group::biases_and_norms().weight_decay(0.0).learning_rate_scale(2.0)
}

#[test]
fn optimizers_are_the_same_in_any_order() {
    table! {
        optimizer: AdaBelief::<f32>::new(0.1) => betas(0.8, 0.9), eps(1e-3), eps_root(1e-3), nesterov(true), weight_decay(0.1), decoupled_weight_decay(true), maximize(true), group(biases());
        optimizer: Adadelta::<f32>::new(0.1) => rho(0.8), eps(1e-3), weight_decay(0.1), maximize(true), group(biases());
        optimizer: Adafactor::<f32>::new(0.1) => beta2_decay(-0.5), eps(Some(1e-3), 1e-2), d(2.0), weight_decay(0.1), maximize(true), group(biases());
        optimizer: Adagrad::<f32>::new(0.1) => lr_decay(0.1), initial_accumulator_value(0.1), eps(1e-3), weight_decay(0.1), maximize(true), group(biases());
        optimizer: Adam::<f32>::new(0.1) => betas(0.8, 0.9), eps(1e-3), amsgrad(true), weight_decay(0.1), decoupled_weight_decay(true), maximize(true), group(biases());
        optimizer: AdamW::<f32>::new(0.1) => betas(0.8, 0.9), eps(1e-3), amsgrad(true), weight_decay(0.1), maximize(true), group(biases());
        optimizer: Adamax::<f32>::new(0.1) => betas(0.8, 0.9), eps(1e-3), weight_decay(0.1), maximize(true), group(biases());
        optimizer: Adan::<f32>::new(0.1) => betas([0.8, 0.7, 0.9]), eps(1e-3), eps_root(1e-3), weight_decay(0.1), maximize(true), group(biases());
        optimizer: AdEMAMix::<f32>::new(0.1) => betas([0.8, 0.9, 0.99]), alpha(2.0), eps(1e-3), eps_root(1e-3), weight_decay(0.1), maximize(true), group(biases());
        optimizer: Asgd::<f32>::new(0.1) => lambd(0.01), alpha(0.5), t0(2.0), weight_decay(0.1), maximize(true), group(biases());
        optimizer: Lamb::<f32>::new(0.1) => betas(0.8, 0.9), eps(1e-3), eps_root(1e-3), weight_decay(0.1), maximize(true), group(biases());
        optimizer: Lars::<f32>::new(0.1) => momentum(0.5), trust_coefficient(0.1), eps(1e-3), nesterov(true), weight_decay(0.1), maximize(true), group(biases());
        optimizer: Lbfgs::<f32>::new(0.1) => max_iter(5), max_eval(7), tolerance_grad(1e-6), tolerance_change(1e-8), history_size(3), strong_wolfe(false);
        optimizer: Lion::<f32>::new(0.1) => betas(0.8, 0.9), weight_decay(0.1), maximize(true), group(biases());
        optimizer: Lookahead::<f32, _>::new(Adam::new(0.1)) => period(2), step_size(0.3), reset_state(true);
        optimizer: Muon::<f32>::new(0.1) => momentum(0.5), nesterov(false), ns_steps(3), weight_decay(0.1), maximize(true), group(biases());
        optimizer: NAdam::<f32>::new(0.1) => betas(0.8, 0.9), eps(1e-3), momentum_decay(0.1), weight_decay(0.1), decoupled_weight_decay(true), maximize(true), group(biases());
        optimizer: NovoGrad::<f32>::new(0.1) => betas(0.8, 0.9), eps(1e-3), eps_root(1e-3), weight_decay(0.1), maximize(true), group(biases());
        optimizer: RAdam::<f32>::new(0.1) => betas(0.8, 0.9), eps(1e-3), weight_decay(0.1), decoupled_weight_decay(true), maximize(true), group(biases());
        optimizer: RmsProp::<f32>::new(0.1) => alpha(0.8), eps(1e-3), momentum(0.5), centered(true), weight_decay(0.1), maximize(true), group(biases());
        optimizer: Rprop::<f32>::new(0.1) => etas(0.4, 1.3), step_sizes(1e-3, 0.04), maximize(true), group(biases());
        optimizer: Sam::<f32, _>::new(Sgd::new(0.1)) => rho(0.5), adaptive(true);
        optimizer: ScheduleFreeAdamW::<f32>::new(0.1) => betas(0.8, 0.9), eps(1e-3), warmup_steps(2), r(1.0), weight_lr_power(1.0), weight_decay(0.1), maximize(true), group(biases());
        optimizer: ScheduleFreeSgd::<f32>::new(0.1) => momentum(0.5), warmup_steps(2), r(1.0), weight_lr_power(1.0), weight_decay(0.1), maximize(true), group(biases());
        optimizer: Sgd::<f32>::new(0.1) => momentum(0.5), dampening(0.1), nesterov(false), weight_decay(0.1), decoupled_weight_decay(true), maximize(true), group(biases());
        optimizer: Sgd::<f32>::new(0.1) => momentum(0.5), nesterov(true), weight_decay(0.1);
        optimizer: Yogi::<f32>::new(0.1) => betas(0.8, 0.9), eps(1e-3), initial_accumulator(1e-2), weight_decay(0.1), maximize(true), group(biases());
    }
}

#[test]
fn schedules_are_the_same_in_any_order() {
    table! {
        schedule: Cyclic::new(0.1, 1.0, 4) => down(3), peaks(Peaks::Exponential), gamma(0.9);
        schedule: LinearWarmup::new(5) => from(0.1), to(0.9);
        schedule: OneCycle::new(18) => peak(2.0), peak_at(0.4), linear(true), divisors(10.0, 100.0), three_phase(true);
        schedule: Trapezoid::new(18) => warmup(3), cooldown(5);
        schedule: WarmRestarts::new(4) => multiplier(2), minimum(0.1);
    }
}

/// Both names stand in the error.
fn excluded(error: Option<Error>, names: [&str; 2]) {
    let text = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(names.iter().all(|name| text.contains(name)), "{names:?}: {text:?}");
}

#[test]
fn methods_that_exclude_each_other_are_an_error_that_names_both() {
    let attention = || MultiheadAttention::<f32>::new(8, 4);
    for both in [attention().cross(true).memory(true), attention().memory(true).cross(true)] {
        excluded(both.validate().err(), ["cross", "memory"]);
    }
    excluded(attention().kdim(5).validate().err(), ["kdim", "self-attention"]);
    let bag = || EmbeddingBag::<f32>::new(5, 3);
    for both in
        [bag().per_sample_weights(true).mode(BagMode::Max), bag().mode(BagMode::Max).per_sample_weights(true)]
    {
        excluded(both.validate().err(), ["per_sample_weights", "mode"]);
    }
    excluded(bag().include_last_offset(true).validate().err(), ["include_last_offset", "offsets"]);
    let size = || Upsample::<f32>::size([4]);
    excluded(size().recompute_scale_factor(true).validate().err(), ["recompute_scale_factor", "size"]);
    excluded(size().align_corners(true).validate().err(), ["align_corners", "mode"]);
    let conv = || Conv2d::<f32>::new(2, 2, 3);
    for both in [conv().stride(2).padding(Padding::Same), conv().padding(Padding::Same).stride(2)] {
        excluded(both.validate().err(), ["padding", "stride"]);
    }
    let sgd = || Sgd::<f32>::new(0.1).momentum(0.9);
    for both in [sgd().dampening(0.1).nesterov(true), sgd().nesterov(true).dampening(0.1)] {
        excluded(both.check().err(), ["dampening", "nesterov"]);
    }
    excluded(Sgd::<f32>::new(0.1).nesterov(true).check().err(), ["momentum", "nesterov"]);
}
