//! L-BFGS on functions that both sides evaluate.

use crate::{
    Report, Step, Stop,
    args::Args,
    case::{Array, File, text},
    compare::close,
    each_case,
    optimizers::{Bag, list},
};
use chainrule_core::{Evaluation, Grads, Init, Optimizer, Param, Registry, Result, Scalar, Tensor};
use chainrule_optim::Lbfgs;
use serde_json::Value;
use std::collections::BTreeMap;

/// Runs every path of a file.
pub fn run<T: Scalar>(
    bytes: &[u8],
    registry: &Registry<T>,
    wanted: &dyn Fn(&str) -> bool,
    report: &mut Report,
) -> Result<()> {
    let file = File::parse(bytes)?;
    each_case(&file, "optimizer", wanted, report, &|_, case| path(registry, &file, case))
}

/// A function of a case: f(x), and ∂f/∂x into g.
struct Function {
    name: String,
    tensors: BTreeMap<String, Array>,
    numbers: BTreeMap<String, f64>,
}

impl Function {
    fn read(file: &File<'_>, case: &Value) -> Step<Self> {
        let (mut tensors, mut numbers) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in case["data"].as_object().into_iter().flatten() {
            if let Some(array) = file.pointed(value)? {
                tensors.insert(name.clone(), array);
            } else if let Some(number) = value.as_f64() {
                numbers.insert(name.clone(), number);
            }
        }
        Ok(Self { name: text(case, "function")?.to_owned(), tensors, numbers })
    }

    fn tensor(&self, name: &str) -> &[f64] {
        self.tensors.get(name).map_or(&[], |array| array.values.data())
    }

    fn evaluate(&self, x: &[f64], g: &mut [f64]) -> f64 {
        let n = x.len();
        g.fill(0.0);
        match self.name.as_str() {
            "quadratic" | "quartic" => {
                let (a, b) = (self.tensor("A"), self.tensor("b"));
                let c = self.numbers.get("c").copied().unwrap_or(0.0);
                let mut f = 0.0;
                for i in 0..n {
                    let row: f64 = (0..n).map(|j| a[i * n + j] * x[j]).sum();
                    f += 0.5 * x[i] * row - b[i] * x[i] + 0.25 * c * x[i].powi(4);
                    g[i] += 0.5 * row - b[i] + c * x[i].powi(3);
                    (0..n).for_each(|j| g[j] += 0.5 * a[i * n + j] * x[i]);
                }
                f
            }
            "rosenbrock" => {
                let mut f = 0.0;
                for i in 0..n - 1 {
                    let (d, e) = (x[i + 1] - x[i] * x[i], 1.0 - x[i]);
                    f += 100.0 * d * d + e * e;
                    g[i] += -400.0 * d * x[i] - 2.0 * e;
                    g[i + 1] += 200.0 * d;
                }
                f
            }
            _ => {
                let (rows, y) = (self.tensor("X"), self.tensor("y"));
                let l2 = self.numbers.get("l2").copied().unwrap_or(0.0);
                let count = y.len() as f64;
                let mut f = 0.5 * l2 * x.iter().map(|x| x * x).sum::<f64>();
                (0..n).for_each(|j| g[j] = l2 * x[j]);
                for (row, y) in rows.chunks_exact(n).zip(y) {
                    let z = -y * row.iter().zip(x).map(|(a, x)| a * x).sum::<f64>();
                    f += (z.max(0.0) + (-z.abs()).exp().ln_1p()) / count;
                    let slope = -y / (1.0 + (-z).exp()) / count;
                    (0..n).for_each(|j| g[j] += slope * row[j]);
                }
                f
            }
        }
    }
}

fn path<T: Scalar>(registry: &Registry<T>, file: &File<'_>, case: &Value) -> Step<()> {
    if T::NAME != "F64" {
        return Err(Stop::Skip("a path in f32 parts from one in f64".into()));
    }
    let spec = Args::plain(&case["args"]).spec(registry.optimizers(), "LBFGS")?;
    let spec = spec.ok_or_else(|| Stop::Skip("optimizer".into()))?;
    let mut lbfgs = build::<T>(registry, &spec)?;
    let function = Function::read(file, case)?;
    let key = |value: &Value| -> Step<Array> {
        let key =
            value.as_str().ok_or_else(|| Stop::Fail(format!("expected the key of a tensor, got {value}")))?;
        Ok(file.array(key)?)
    };
    let (start, mut bag, mut at) = (key(&case["start"])?, Bag(Vec::new()), 0);
    for size in list(&case["sizes"])? {
        let size = size.as_u64().unwrap_or(0) as usize;
        let mut p = Param::new("weight", [size], Init::ZEROS);
        p.set(Tensor::from_fn([size], |i| T::from_f64(start.values.data()[at + i])))?;
        bag.0.push(p);
        at += size;
    }
    let mut grads = Grads::new(&bag);
    let evaluate = |bag: &Bag<T>, grads: &mut Grads<T>| -> Result<T> {
        let mut x = Vec::new();
        for p in &bag.0 {
            x.extend(p.value()?.iter().map(|x| x.to_f64()));
        }
        let mut g = vec![0.0; x.len()];
        let f = function.evaluate(&x, &mut g);
        grads.values_mut().iter_mut().zip(g).for_each(|(to, g)| *to = T::from_f64(g));
        Ok(T::from_f64(f))
    };
    for (call, after) in list(&case["after"])?.iter().enumerate() {
        let before = lbfgs.step_with(&mut Evaluation::new(&mut bag, &mut grads, evaluate))?;
        let mut g = grads.clone();
        let loss = evaluate(&bag, &mut g)?;
        let compare = |what: &str, got: f64, want: Option<f64>, tolerance| match want {
            Some(want) if close(got, want, tolerance) => Ok(()),
            want => Err(Stop::Fail(format!("{what} of call {call}: expected {want:?}, got {got:e}"))),
        };
        compare("loss before", before.to_f64(), case["loss_before"][call].as_f64(), 1e-9)?;
        compare("loss after", loss.to_f64(), case["loss_after"][call].as_f64(), 1e-9)?;
        let [iterations, evaluations] = lbfgs.counts().map(|count| count as f64);
        compare("iterations", iterations, case["iterations"][call].as_f64(), 0.0)?;
        compare("evaluations", evaluations, case["evaluations"][call].as_f64(), 0.0)?;
        let want = key(after)?;
        let got = bag.0.iter().filter_map(|p| p.value().ok()).flatten();
        for (i, (got, want)) in got.zip(want.values.data()).enumerate() {
            compare(&format!("x[{i}]"), got.to_f64(), Some(*want), 1e-6)?;
        }
    }
    Ok(())
}

/// The optimizer itself, not behind a `dyn`: its counts are compared.
fn build<T: Scalar>(registry: &Registry<T>, spec: &chainrule_core::Spec) -> Step<Lbfgs<T>> {
    let number = |name: &str| spec.get(name).and_then(<f64 as chainrule_core::FromValue>::from_value);
    let count = |name: &str| spec.get(name).and_then(<u64 as chainrule_core::FromValue>::from_value);
    registry.build_optimizer(spec)?; // every argument is known
    let search = spec.get("line_search_fn") == Some(&chainrule_core::Value::from("strong_wolfe"));
    let mut lbfgs = Lbfgs::new(number("lr").unwrap_or(1.0)).strong_wolfe(search);
    if let Some(n) = count("max_iter") {
        lbfgs = lbfgs.max_iter(n);
    }
    if let Some(n) = count("max_eval") {
        lbfgs = lbfgs.max_eval(n);
    }
    if let Some(n) = count("history_size") {
        lbfgs = lbfgs.history_size(n as usize);
    }
    if let Some(tolerance) = number("tolerance_grad") {
        lbfgs = lbfgs.tolerance_grad(tolerance);
    }
    if let Some(tolerance) = number("tolerance_change") {
        lbfgs = lbfgs.tolerance_change(tolerance);
    }
    Ok(lbfgs)
}
