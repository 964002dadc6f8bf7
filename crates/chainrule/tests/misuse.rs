//! The misuse table: every constructor argument at its extremes, every backward with a call that does not fit, every decoder
//! on damaged files. Errors only: no panic, no hang, no memory beyond a limit.
//!
//! What is tried walks the registry, so that a new kind is in the table by its line there. It takes some seconds;
//! `MISUSE_SECONDS=60` adds that many seconds of random cases to each test, whose seeds a failure prints.

use chainrule::{
    core::{
        AnyState, BoxModule, Example, Module, ModuleCall, OptimizerState, StateValue, Target, Targets, Value,
    },
    data::{Cifar, idx::Idx},
    gradcheck::laws::{Case, Values, call_laws},
    io,
    prelude::*,
};
use chainrule_parity::registry;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Counts the bytes that are allocated at the same time. A request that no small case can need is refused, after the name of
/// the case: the program ends then, as it would for lack of memory.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
/// What is being tried, for the allocator: written without allocating.
static TRIED: Mutex<([u8; 400], usize)> = Mutex::new(([0; 400], 0));

const REFUSED: usize = 2 << 30;

// SAFETY: every call goes to the system's allocator with the arguments that came, or gives null, which the contract allows;
// counting allocates nothing. The other methods are made of these.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > REFUSED {
            if let Ok(tried) = TRIED.try_lock() {
                let _ = std::io::stderr().write_all(&tried.0[..tried.1]);
                let _ = std::io::stderr().write_all(b": a request of too much memory\n");
            }
            return std::ptr::null_mut();
        }
        MOST.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps alloc's contract, which is the system's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: ptr came from the system's allocator with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The memory of a small case, beside a small multiple of what it is given.
const MEMORY: usize = 32 << 20;

/// The time of a small case, on a machine that does other things too.
const TIME: Duration = Duration::from_secs(5);

/// The longest message, in characters: that of a file, and the names of the layers around it.
const MESSAGE: usize = 16_100;

/// How many elements a case may have that is run, and not only asked for its shapes.
const SMALL: usize = 1 << 16;

/// The cases of one test, one test at a time: memory is counted for the whole program.
struct Table {
    faults: Vec<String>,
    tried: usize,
    begun: Instant,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Table {
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
        std::panic::set_hook(Box::new(|_| {}));
        Self { faults: Vec::new(), tried: 0, begun: Instant::now(), _turn: turn }
    }

    /// One case, of `given` bytes. It may fail, but in no other way than by an error.
    fn case(&mut self, name: &dyn Fn() -> String, given: usize, f: impl FnOnce() -> Result<()>) {
        self.tried += 1;
        if let Ok(mut tried) = TRIED.lock() {
            let text = name();
            tried.1 = text.len().min(400);
            let n = tried.1;
            tried.0[..n].copy_from_slice(&text.as_bytes()[..n]);
        }
        let before = NOW.load(Relaxed);
        MOST.store(before, Relaxed);
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(f));
        let (time, took) = (begun.elapsed(), MOST.load(Relaxed).saturating_sub(before));
        let mut fault = |what: String| self.faults.push(format!("{}: {what}", name()));
        match outcome {
            Err(payload) => {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                fault(format!("panicked: {}", text.unwrap_or_default()));
            }
            Ok(Err(error)) => {
                let text = error.to_string();
                if text.chars().count() > MESSAGE || text.contains(char::is_control) {
                    fault(format!(
                        "a message of {} bytes: {:.300}",
                        text.len(),
                        text.escape_debug().to_string()
                    ));
                }
            }
            Ok(Ok(())) => {}
        }
        if time > TIME {
            fault(format!("took {time:?}"));
        }
        if took > MEMORY + 16 * given {
            fault(format!("took {} MiB", took >> 20));
        }
    }

    fn more(&self) -> bool {
        let seconds = std::env::var("MISUSE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
        self.begun.elapsed() < Duration::from_secs(seconds) && self.faults.len() < 20
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let _ = std::panic::take_hook();
        let n = self.faults.len();
        self.faults.truncate(20);
        if !std::thread::panicking() {
            assert!(n == 0, "{n} of {} cases:\n{}", self.tried, self.faults.join("\n"));
        }
    }
}

/// What an argument may be given.
fn hostile() -> Vec<Value> {
    let ints = [0, 1, -1, 2, 3, 1 << 16, 1 << 31, 1 << 32, 1 << 40, i64::MAX - 1, i64::MAX, i64::MIN];
    let floats = [
        0.0,
        -0.0,
        0.5,
        1.0,
        -1.0,
        1e300,
        -1e300,
        1e-300,
        5e-324,
        1.0 - 1e-16,
        f64::MAX,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    let lists = [
        vec![],
        vec![Value::Int(0)],
        vec![Value::Int(i64::MAX); 2],
        vec![Value::Int(1 << 31); 3],
        vec![Value::Int(1); 9],
        vec![Value::Float(f64::NAN); 2],
        vec![Value::List(vec![]), Value::None],
    ];
    let texts = ["", "?", "mean", "\u{1b}[2J\n"];
    let inits = |v: f64| {
        let scaled = |fan| [Init::ScaledUniform { fan, gain: v }, Init::ScaledNormal { fan, gain: v }];
        let mut inits = vec![
            Init::Constant(v),
            Init::Uniform { low: -v, high: v },
            Init::Uniform { low: v, high: 0.0 },
            Init::Normal { mean: 0.0, std: v },
            Init::Normal { mean: v, std: 1.0 },
            Init::TruncatedNormal { mean: v, std: v },
            Init::Orthogonal { gain: v },
        ];
        inits.extend([chainrule::core::Fan::In, chainrule::core::Fan::Average].into_iter().flat_map(scaled));
        inits
    };
    let mut all = vec![Value::None, Value::Bool(false), Value::Bool(true), Value::Spec(Spec::new("?"))];
    all.extend(ints.map(Value::Int));
    all.extend(floats.map(Value::Float));
    all.extend(lists.map(Value::List));
    all.extend(texts.map(Value::from));
    all.push(Value::Text("long ".repeat(10_000)));
    all.extend([f64::NAN, f64::INFINITY, 1e300, -1.0].into_iter().flat_map(inits).map(Value::from));
    all
}

/// How many places of a spec can be changed: its attributes, those of specs in them, and those of its children.
fn places(spec: &Spec) -> usize {
    let inside = |value: &Value| match value {
        Value::Spec(spec) => places(spec),
        Value::List(values) => values.len(),
        _ => 0,
    };
    let attributes = spec.attributes().iter().map(|(_, value)| 1 + inside(value)).sum::<usize>();
    attributes + spec.children().iter().map(|(_, child)| places(child)).sum::<usize>()
}

/// The spec with another value at one of its places.
fn changed(spec: &Spec, at: usize, other: &Value) -> Spec {
    /// Counts down to the place.
    fn within(spec: &Spec, at: &mut Option<usize>, other: &Value) -> Spec {
        let here = |value: &Value, at: &mut Option<usize>| {
            let hit = *at == Some(0);
            *at = at.and_then(|n| n.checked_sub(1));
            if hit { other.clone() } else { value.clone() }
        };
        let mut new = Spec::new(spec.kind());
        for (name, value) in spec.attributes() {
            let mut value = here(value, at);
            if at.is_some() {
                value = match value {
                    Value::Spec(inner) => Value::Spec(within(&inner, at, other)),
                    Value::List(values) => Value::List(values.iter().map(|v| here(v, at)).collect()),
                    value => value,
                };
            }
            new = new.with(name.as_str(), value);
        }
        for (name, child) in spec.children() {
            new = new.child(name.as_str(), within(child, at, other));
        }
        new
    }
    within(spec, &mut Some(at), other)
}

fn values<T: Scalar>(example: &Example, rng: &mut Rng) -> Vec<Tensor<T>> {
    let tensor = |shape: &Shape, rng: &mut Rng| match example.ids {
        Some(bound) => Tensor::from_fn(*shape, |_| T::from_f64(rng.below(bound) as f64)),
        None => Tensor::from_fn(*shape, |_| T::from_f64(rng.normal())),
    };
    example.inputs.iter().map(|shape| tensor(shape, rng)).collect()
}

/// Builds a module and tries all that can be done with it, as far as it is small.
fn try_module<T: Scalar>(spec: &Spec, inputs: &[Shape], xs: &[Tensor<T>]) -> Result<()> {
    let module = registry::<T>().build_module(spec)?;
    for inputs in hostile_shapes(inputs) {
        let _ = module.output_shapes(&inputs);
        let _ = module.summary(&inputs[..]);
        module.cost(&inputs);
    }
    let outputs = module.output_shapes(inputs)?;
    let mut size = outputs.iter().map(Shape::volume).fold(0, usize::saturating_add);
    module.visit(&mut |_, p| size = size.saturating_add(p.volume()));
    if size > SMALL {
        return Ok(());
    }
    let module = module.init(1)?;
    run(&module, xs)?;
    // The same with a first element that is no number of an input.
    for wild in [f64::NAN, f64::INFINITY, -1.0, 1e30] {
        let mut xs = xs.to_vec();
        xs.iter_mut().filter_map(|x| x.data_mut().first_mut()).for_each(|v| *v = T::from_f64(wild));
        let _ = run(&module, &xs);
    }
    Ok(())
}

/// Forward and backward.
fn run<T: Scalar>(module: &BoxModule<T>, xs: &[Tensor<T>]) -> Result<()> {
    let xs: Vec<&Tensor<T>> = xs.iter().collect();
    let (mut ys, mut state) = (vec![Tensor::default(); module.outputs()], AnyState::default());
    module.apply(&xs, &mut ys, &mut state, Context::train(1))?;
    let dys: Vec<_> = ys.iter().map(|y| Tensor::full(*y.shape(), T::ONE)).collect();
    let dys: Vec<_> = dys.iter().map(Some).collect();
    let mut dxs = vec![Tensor::default(); xs.len()];
    let mut dxs: Vec<_> =
        dxs.iter_mut().enumerate().map(|(i, dx)| module.differentiable_input(i).then_some(dx)).collect();
    let mut grads = Grads::new(module);
    module.pull(ModuleCall::new(module, &xs, &ys, &dys)?, &mut state, &mut grads, &mut dxs)
}

/// Shapes near those of an example, and far from them.
fn hostile_shapes(inputs: &[Shape]) -> Vec<Vec<Shape>> {
    let mut all = vec![vec![], [inputs, inputs].concat()];
    for size in [0, 1, 1 << 20, 1 << 31, usize::MAX / 8] {
        for (i, shape) in inputs.iter().enumerate() {
            for axis in 0..shape.len() {
                let mut axes = shape.to_vec();
                axes[axis] = size;
                let mut other = inputs.to_vec();
                if let Ok(shape) = Shape::new(&axes) {
                    other[i] = shape;
                    all.push(other);
                }
            }
        }
    }
    for axes in [&[][..], &[1], &[0, 0, 0, 0], &[1; 8]] {
        all.push(vec![Shape::new(axes).unwrap(); inputs.len()]);
    }
    all
}

/// The small examples of a registry's kinds.
fn small(examples: impl Iterator<Item = Vec<Example>>) -> Vec<Example> {
    examples.flatten().filter(|example| !example.bench).collect()
}

/// Tries every value at every place of every example, and then, while there is time, several at once.
fn walk(examples: &[Example], mut attempt: impl FnMut(&mut Table, &Example, Spec)) {
    let (mut table, hostile) = (Table::new(), hostile());
    for example in examples {
        for at in 0..places(&example.spec) {
            for value in &hostile {
                attempt(&mut table, example, changed(&example.spec, at, value));
            }
        }
    }
    let mut rng = Rng::new(1);
    while table.more() {
        let example = &examples[rng.below(examples.len())];
        let mut spec = example.spec.clone();
        for _ in 0..1 + rng.below(3) {
            let n = places(&spec);
            if n > 0 {
                spec = changed(&spec, rng.below(n), &hostile[rng.below(hostile.len())]);
            }
        }
        attempt(&mut table, example, spec);
    }
}

fn short(spec: &Spec) -> String {
    let text = spec.to_string();
    text.chars().take(300).collect::<String>().escape_debug().to_string()
}

#[test]
fn arguments_of_layers() {
    let registry = registry::<f32>();
    let examples = small(registry.modules().map(|entry| (entry.examples)()));
    walk(&examples, |table, example, spec| {
        let xs = values::<f32>(example, &mut Rng::new(1));
        table.case(&|| short(&spec), 0, || try_module::<f32>(&spec, &example.inputs, &xs));
    });
}

#[test]
fn initialisers_give_finite_values_or_an_error() {
    let mut table = Table::new();
    for init in hostile().iter().filter_map(|value| match value {
        Value::Spec(spec) if spec.kind() != "?" => Some(spec.clone()),
        _ => None,
    }) {
        let linear = Spec::new("Linear").with("in_features", 3).with("out_features", 2);
        let spec = linear.with("bias", true).with("weight_init", init);
        let Ok(model) = registry::<f32>().build_module(&spec).and_then(|model| model.init(1)) else {
            continue;
        };
        table.case(&|| short(&spec), 0, || {
            model.try_visit(&mut |path, p| {
                assert!(p.value()?.iter().all(|v| v.is_finite()), "{path} is {:?}", p.value()?);
                Ok(())
            })
        });
    }
}

/// Targets for predictions of these shapes: values, classes in range, out of range, and too few.
fn targets<T: Scalar>(example: &Example) -> Vec<Vec<Targets<T>>> {
    let classes = |f: &dyn Fn(usize) -> usize, shape: &Shape| {
        let axes: Vec<usize> = shape.iter().enumerate().filter(|(i, _)| *i != 1).map(|(_, &n)| n).collect();
        let shape = Shape::new(&axes).unwrap();
        Targets::Classes { indices: (0..shape.volume()).map(f).collect(), shape }
    };
    let all = |f: &dyn Fn(&Shape) -> Targets<T>| example.inputs.iter().map(f).collect::<Vec<_>>();
    let bound = example.ids.unwrap_or(2).max(1);
    let mut out = vec![
        all(&|shape| classes(&|i| i % bound, shape)),
        all(&|shape| classes(&|_| usize::MAX, shape)),
        all(&|shape| classes(&|_| usize::MAX - 1, shape)),
        all(&|_| Targets::Classes { indices: vec![0], shape: Shape::new(&[7]).unwrap() }),
        all(&|_| Targets::Sequences { indices: vec![1; 5], lengths: vec![usize::MAX, 6] }),
        vec![],
    ];
    for v in [0.5, 0.0, -1.0, f64::NAN, f64::INFINITY, 1e30] {
        out.push(all(&|shape| Targets::Values(Tensor::full(*shape, T::from_f64(v)))));
        // Those that the loss takes, with other values and classes.
        let mut own = example.loss_targets::<T>();
        for target in &mut own {
            match target {
                Targets::Values(values) => values.fill(T::from_f64(v)),
                Targets::Classes { indices, .. } | Targets::Sequences { indices, .. } => {
                    indices.iter_mut().for_each(|i| *i = if v.is_nan() { usize::MAX } else { v as usize });
                }
            }
        }
        out.push(own);
    }
    out.push(example.loss_targets());
    out
}

#[test]
fn arguments_of_losses() {
    let registry = registry::<f32>();
    let examples = small(registry.losses().map(|entry| (entry.examples)()));
    walk(&examples, |table, example, spec| {
        let (targets, ys) = (targets::<f32>(example), values::<f32>(example, &mut Rng::new(1)));
        table.case(&|| short(&spec), 0, || {
            let loss = registry.build_loss(&spec)?;
            let mut last = Ok(());
            for wild in [0.0, f32::NAN, f32::INFINITY, f32::MAX] {
                let mut ys = ys.clone();
                ys.iter_mut().for_each(|y| y.data_mut()[0] = wild);
                let ys: Vec<&Tensor> = ys.iter().collect();
                for targets in &targets {
                    let targets: Vec<Target<'_, f32>> = targets.iter().map(Target::from).collect();
                    let mut dys = vec![Tensor::default(); ys.len()];
                    last = loss.value_and_gradients(&ys, &targets, &mut dys).map(drop);
                }
            }
            last
        });
    });
}

#[test]
fn arguments_of_optimizers_and_their_state() {
    let registry = registry::<f32>();
    let examples = small(registry.optimizers().map(|entry| (entry.examples)()));
    walk(&examples, |table, _, spec| {
        table.case(&|| short(&spec), 0, || {
            let mut optimizer = registry.build_optimizer(&spec)?;
            let mut model = Linear::<f32>::new(3, 2).init(1)?;
            let mut grads = Grads::new(&model);
            for (step, g) in [0.1, 0.0, f32::NAN, f32::INFINITY, f32::MAX, 1e-45].into_iter().enumerate() {
                grads.values_mut().fill(g);
                optimizer.step(&mut model, &grads)?;
                optimizer.set_learning_rate([0.1, 0.0, -1.0, f64::NAN, 1e300, 1e-300][step]);
            }
            Ok(())
        });
    });
    let mut table = Table::new();
    let mut rng = Rng::new(2);
    let mut cases = 0;
    while cases < 2000 || table.more() {
        cases += 1;
        let seed = rng.bits();
        let example = &examples[cases % examples.len()];
        table.case(&|| format!("state of {}, seed {seed}", short(&example.spec)), 0, || {
            let mut rng = Rng::new(seed);
            let mut model = Linear::<f32>::new(3, 2).init(1)?;
            let grads = Grads::new(&model);
            let mut optimizer = registry.build_optimizer(&example.spec)?;
            optimizer.step(&mut model, &grads)?;
            let state = OptimizerState::of(&optimizer, &model)?;
            let mut damaged = OptimizerState::new();
            for (path, name, value) in state.iter() {
                let value = match rng.below(8) {
                    0 => continue,
                    1 => StateValue::Count(rng.bits()),
                    2 => StateValue::Count(u64::MAX),
                    3 => StateValue::Values(Tensor::full([rng.below(4)], f32::NAN)),
                    4 => StateValue::Values(Tensor::full([2, 3], [f32::NAN, -1.0, f32::MAX][rng.below(3)])),
                    _ => value.clone(),
                };
                let path = if rng.below(9) == 0 { "\u{1b}[2J".repeat(rng.below(4000)) } else { path.into() };
                damaged.insert(path, name, value);
            }
            optimizer.restore_state(&model, damaged)?;
            optimizer.step(&mut model, &grads)?;
            optimizer.step(&mut model, &grads)
        });
    }
}

#[test]
fn arguments_of_schedules() {
    let registry = registry::<f32>();
    let examples = small(registry.schedules().map(|entry| (entry.examples)()));
    walk(&examples, |table, _, spec| {
        table.case(&|| short(&spec), 0, || {
            let schedule = registry.build_schedule(&spec)?;
            for step in [0, 1, 2, 10, 1 << 31, 1 << 53, u64::MAX - 1, u64::MAX] {
                let factor = schedule.factor(step);
                assert!(!factor.is_nan(), "the factor of step {step} is {factor}");
            }
            Ok(())
        });
    });
}

#[test]
fn backward_with_calls_that_do_not_fit() {
    let mut table = Table::new();
    let registry = registry::<f64>();
    let examples = small(registry.modules().map(|entry| (entry.examples)()));
    let mut rng = Rng::new(3);
    for round in 0.. {
        if round > 0 && !table.more() {
            break;
        }
        for example in &examples {
            let seed = rng.bits();
            let values = example.ids.map_or(Values::Normal, |bound| Values::Indices(0..bound));
            let case = Case::new(seed).inputs(example.inputs.iter().map(|shape| &shape[..])).values(values);
            table.case(&|| format!("{}, seed {seed}", short(&example.spec)), 0, || {
                let build = || registry.build_module(&example.spec).expect("its own example");
                let broken: Vec<_> = call_laws(&case, &build).iter().map(ToString::to_string).collect();
                assert!(broken.is_empty(), "{}", broken.join("; "));
                Ok(())
            });
        }
    }
}

/// A file with one to three damages: bytes flipped or replaced, a length or a number replaced, a part cut, repeated or moved.
fn damaged(file: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..1 + rng.below(3) {
        let n = bytes.len();
        if n == 0 {
            break;
        }
        let (at, length) = (rng.below(n), 1 + rng.below(16));
        let end = (at + length).min(n);
        match rng.below(9) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << rng.below(8),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'[', b'\n', b',', 0x1b][rng.below(11)],
            3 => {
                let part = bytes[at..end].to_vec();
                (0..1 + rng.below(200)).for_each(|_| _ = bytes.splice(at..at, part.iter().copied()));
            }
            4 => _ = bytes.drain(at..end),
            5 => {
                // A length, of either order.
                let v = [0, 1, n as u64, n as u64 + 1, 1 << 24, 1 << 31, 1 << 40, u64::MAX / 8, u64::MAX]
                    [rng.below(9)];
                let v = if rng.below(2) == 0 { v.to_le_bytes() } else { v.to_be_bytes() };
                let (start, width) = (if rng.below(2) == 0 { 0 } else { at }, [4, 8][rng.below(2)]);
                let end = (start + width).min(n);
                bytes[start..end].copy_from_slice(&v[..end - start]);
            }
            6 => {
                // A number in text: the next run of digits.
                if let Some(start) = (at..n).find(|&i| bytes[i].is_ascii_digit()) {
                    let digits = bytes[start..].iter().take_while(|b| b.is_ascii_digit()).count();
                    let other =
                        ["0", "1", "7", "-1", "65536", "4294967296", "9223372036854775807", "1e300", "NaN"];
                    bytes.splice(start..start + digits, other[rng.below(9)].bytes());
                }
            }
            7 => bytes[at..end].reverse(),
            _ => bytes.extend_from_slice(&file[..at.min(file.len())]),
        }
    }
    // The length of a safetensors header follows, half of the time: else most cases end there.
    if rng.below(2) == 0 && bytes.len() > 8 && file.len() > 8 && file[8] == b'{' {
        let values = file.len() - 8 - u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header = bytes.len().saturating_sub(8 + values) as u64;
        bytes[..8].copy_from_slice(&header.to_le_bytes());
    }
    bytes
}

/// A model of several kinds of layers, small.
fn model() -> Sequential {
    Sequential::new()
        .add(Conv2d::new(1, 2, 3).padding(1))
        .add(BatchNorm2d::new(2))
        .add(Relu::new())
        .add(MaxPool2d::new(2))
        .add(Residual::new(Conv2d::new(2, 2, 1)))
        .named("flat", Flatten::new())
        .add(Dropout::new(0.3))
        .named("head", Linear::new(8, 3))
}

/// Every decoder on these bytes.
fn decode(bytes: &[u8]) -> Result<()> {
    let mut outcomes = Vec::new();
    let mut loaded = model();
    outcomes.push(io::from_bytes(&mut loaded, bytes));
    let any = io::Load::new().skip_mismatched().allow_missing(|_| true).allow_unexpected(|_| true);
    outcomes.push(any.strip_prefix("0.").rule("*", "a.*").from_bytes(&mut model(), bytes).map(|report| {
        let text = report.to_string();
        assert!(!text.replace('\n', "").contains(char::is_control), "{text:?}");
    }));
    outcomes.push(io::model_from_bytes(&registry::<f32>(), bytes).map(|model| {
        // What was loaded can be saved, and runs or says why not.
        let saved = io::model_to_bytes(&model).expect("what was loaded can be saved");
        io::model_from_bytes(&registry::<f32>(), &saved).expect("what was saved can be loaded");
        let _ = model.infer(&Tensor::zeros([2, 1, 4, 4]));
    }));
    outcomes.push(Idx::read(bytes).map(|idx| drop(idx.tensor::<f32>())));
    outcomes.push(Cifar::Cifar10.read::<f32>(bytes).map(drop));
    outcomes.push(Cifar::Cifar100.read::<f32>(bytes).map(drop));
    #[cfg(feature = "csv")]
    for header in [true, false] {
        let csv = chainrule::data::Csv::new().header(header);
        outcomes.push(csv.classes::<f32>(bytes, chainrule::data::Column::Last).map(drop));
        outcomes.push(csv.values::<f32>(bytes, 0).map(drop));
        outcomes.push(csv.values::<f32>(bytes, "y").map(drop));
    }
    // All messages are looked at; one of several is the outcome.
    let wrong = outcomes.iter().filter_map(|o| o.as_ref().err()).map(ToString::to_string);
    for text in wrong {
        assert!(
            text.chars().count() <= MESSAGE && !text.contains(char::is_control),
            "{:.300}",
            format!("{text:?}")
        );
    }
    outcomes.pop().unwrap_or(Ok(()))
}

/// CRC-32 as gzip has it (Deutsch, RFC 1952, 1996).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

/// A gzip file of one stored block.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let n = u16::try_from(bytes.len()).unwrap();
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    out.extend(n.to_le_bytes());
    out.extend((!n).to_le_bytes());
    out.extend_from_slice(bytes);
    out.extend(crc32(bytes).to_le_bytes());
    out.extend(u32::from(n).to_le_bytes());
    out
}

/// Small files that are whole.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let whole = model().init(1).unwrap();
    let idx = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4][..], &[7; 24]].concat();
    let csv = "x,y,kind\n1.5,2,a\n\"3\",4e0,\"b,c\"\n5,6,a\n".as_bytes().to_vec();
    let mut all = vec![
        ("weights".to_owned(), io::to_bytes(&whole).unwrap()),
        ("a model".into(), io::model_to_bytes(&whole).unwrap()),
        ("idx, compressed".into(), gzip(&idx)),
        ("idx".into(), idx),
        ("a table".into(), csv),
        ("images of CIFAR-10".into(), [1; 3073].to_vec()),
        ("what torch.save writes".into(), [&b"PK\x03\x04"[..], &[0; 64]].concat()),
    ];
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/checkpoints");
    for folder in ["valid", "hostile"] {
        for entry in std::fs::read_dir(shared.join(folder)).into_iter().flatten().flatten() {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            if !bytes.is_empty() && bytes.len() < 4096 {
                all.push((entry.file_name().to_string_lossy().into_owned(), bytes));
            }
        }
    }
    all
}

#[test]
fn decoders_of_damaged_files() {
    let (mut table, corpus) = (Table::new(), corpus());
    for (name, bytes) in &corpus[..7] {
        assert!(name.starts_with("what") || decodes(bytes), "{name} is not whole");
        for n in (0..bytes.len()).filter(|n| *n < 64 || n % 11 == 0) {
            table.case(&|| format!("{name}, cut at {n}"), n, || decode(&bytes[..n]));
        }
    }
    let mut rng = Rng::new(4);
    let mut cases = 0;
    while cases < 2400 || table.more() {
        // Two of three are made of files that one of the decoders reads.
        let (name, bytes) = &corpus[if cases % 3 == 0 { rng.below(corpus.len()) } else { rng.below(6) }];
        let seed = rng.bits();
        let file = damaged(bytes, &mut Rng::new(seed));
        table.case(&|| format!("{name}, seed {seed}"), file.len(), || decode(&file));
        cases += 1;
    }
}

/// Whether one of the decoders reads this.
fn decodes(bytes: &[u8]) -> bool {
    io::from_bytes(&mut model(), bytes).is_ok()
        || Idx::read(bytes).is_ok()
        || std::str::from_utf8(bytes).is_ok()
        || bytes.starts_with(&[0x1f, 0x8b]) && cfg!(not(feature = "gzip"))
}
