//! The teaching mode: its numbers are those of the page that derives them, and every equation that it prints holds.

use chainrule::{prelude::*, teach::Lesson};
use std::{f32::consts::LN_2, fs, path::Path};

/// 2 → 2 → 1 with tanh, and the weights of docs/teaching.md.
fn xor() -> Sequential {
    let model = Sequential::new().add(Linear::new(2, 2)).add(Tanh::new()).add(Linear::new(2, 1));
    let mut model = model.init(1).unwrap();
    let values = [&[LN_2, 0.5, -LN_2, 0.25][..], &[0.0, 0.0], &[1.0, -0.5], &[-0.4]];
    let mut next = values.iter();
    model.visit_mut(&mut |_, p| p.value_mut().unwrap().copy_from_slice(next.next().unwrap()));
    model
}

fn values(model: &Sequential) -> Vec<f32> {
    let mut all = Vec::new();
    model.visit(&mut |_, p| all.extend_from_slice(p.value().unwrap()));
    all
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/teaching.md");
    fs::read_to_string(path).unwrap()
}

/// The page derives by hand: z = (ln 2, −ln 2), h = tanh z = (0.6, −0.6), y = 0.6 + 0.3 − 0.4 = 0.5, E = (0.5 − 1)² = 0.25;
/// ∂E/∂y = −1, ∂E/∂V = (−0.6, 0.6), ∂E/∂c = −1, ∂E/∂h = (−1, 0.5), ∂E/∂z = 0.64 ∂E/∂h = (−0.64, 0.32), and with x = (1, 0)
/// ∂E/∂W = ((−0.64, 0), (0.32, 0)), ∂E/∂b = (−0.64, 0.32). At η = 0.1 each weight moves by a tenth of that.
#[test]
fn the_step_of_xor_has_the_numbers_of_the_page() {
    let (mut model, x, t) = (xor(), Tensor::from([[1.0, 0.0]]), Tensor::from([[1.0]]));
    let lesson = Lesson::new();
    let text = lesson.step(&mut model, &Mse::new(), &mut Sgd::new(0.1), &x, &t, Context::train(1)).unwrap();
    let wanted = [LN_2 + 0.064, 0.5, -LN_2 - 0.032, 0.25, 0.064, -0.032, 1.06, -0.56, -0.3];
    for (got, want) in values(&model).iter().zip(wanted) {
        assert!((got - want).abs() < 1e-6, "{got} {want}");
    }
    let page = page();
    let (_, block) = page.split_once("```text\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    assert!(text == block, "docs/teaching.md shows another text than this:\n{text}");
    for number in ["0.6931", "0.6", "0.25", "−0.64", "0.32", "0.7571", "−0.7251", "1.06", "−0.56", "0.064"]
    {
        assert!(page.contains(number) && text.contains(number), "{number}");
    }
}

#[test]
fn the_step_is_that_of_the_plain_loop() {
    let x = Tensor::from([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]);
    let t = Tensor::from([[0.0], [1.0], [1.0], [0.0]]);
    let ([mut told, mut plain], cx) = ([xor(), xor()], Context::train(3));
    let [mut adam, mut other] = [Adam::new(0.01), Adam::new(0.01)];
    let mut pass = Pass::new(&plain);
    for step in 0..3 {
        Lesson::new().step(&mut told, &Mse::new(), &mut adam, &x, &t, cx.step(step)).unwrap();
        pass.forward(&plain, &x, cx.step(step)).unwrap();
        pass.loss(&Mse::new(), &t).unwrap();
        pass.backward(&plain, &x).unwrap();
        pass.update(&mut plain, &mut other).unwrap();
    }
    assert_eq!(values(&told), values(&plain));
}

/// Where a line says a = b = c, b and c are the same, but for rounding; how many there were.
fn check_equations(text: &str) -> usize {
    let mut checked = 0;
    for line in text.lines() {
        // … = expression = value, or name ← expression = value
        let Some((left, value)) = line.rsplit_once(" = ") else { continue };
        let Some(value) = number(value) else { continue };
        let expression = match left.rsplit_once(" = ").or_else(|| left.rsplit_once(" ← ")) {
            Some((_, expression)) => expression,
            None => continue,
        };
        let Some(got) = Parser::value(expression) else { continue };
        assert!((got - value).abs() <= 1e-5 * (1.0 + value.abs()), "{line}: {got}");
        checked += 1;
    }
    checked
}

fn number(text: &str) -> Option<f64> {
    text.replace('−', "-").parse().ok()
}

/// Sums, products, squares, powers of e, tanh, ln and max.
struct Parser<'a>(&'a str);

impl Parser<'_> {
    fn value(text: &str) -> Option<f64> {
        let text = text.replace("max(0, ", "relu(");
        let mut parser = Parser(&text);
        let value = parser.sum()?;
        parser.0.trim().is_empty().then_some(value)
    }

    fn eat(&mut self, token: &str) -> bool {
        let rest = self.0.trim_start().strip_prefix(token);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn sum(&mut self) -> Option<f64> {
        let mut value = self.product()?;
        loop {
            value += match () {
                () if self.eat("+ ") => self.product()?,
                () if self.eat("− ") => -self.product()?,
                () => return Some(value),
            };
        }
    }

    fn product(&mut self) -> Option<f64> {
        let mut value = self.atom()?;
        loop {
            match () {
                () if self.eat("·") => value *= self.atom()?,
                () if self.eat("/") => value /= self.atom()?,
                () => return Some(value),
            }
        }
    }

    fn atom(&mut self) -> Option<f64> {
        let value = match () {
            () if self.eat("tanh ") => self.atom()?.tanh(),
            () if self.eat("ln ") => self.atom()?.ln(),
            () if self.eat("e^") => self.atom()?.exp(),
            () if self.eat("relu(") => self.rest()?.max(0.0),
            () if self.eat("(") => self.rest()?,
            () if self.eat("−") => -self.atom()?,
            () => {
                self.0 = self.0.trim_start();
                let mut end = self.0.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.0.len());
                if self.0[end..].starts_with('e') && !self.0[end..].starts_with("e^") {
                    let tail = &self.0[end + 1..];
                    let sign = if tail.starts_with('−') { '−'.len_utf8() } else { 0 };
                    let digits =
                        tail[sign..].find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len() - sign);
                    end += 1 + sign + digits;
                }
                let value = number(&self.0[..end])?;
                self.0 = &self.0[end..];
                value
            }
        };
        Some(if self.eat("²") { value * value } else { value })
    }

    fn rest(&mut self) -> Option<f64> {
        let value = self.sum()?;
        self.eat(")").then_some(value)
    }
}

#[test]
fn every_equation_holds() {
    let lesson = Lesson::new().decimals(9).most(100);
    let x = Tensor::from([[0.0, 0.3], [-0.5, 1.0], [1.0, 0.0]]);
    let t = Tensor::from([[0.0, 1.0], [1.0, 0.5], [-1.0, 0.0]]);
    let network = || {
        let inner =
            Sequential::new().add(Linear::new(3, 2)).add(Sigmoid::new()).add(Linear::new(2, 4).bias(false));
        let model = Sequential::new().add(Linear::new(2, 3)).add(Tanh::new()).named("inner", inner);
        model.add(Relu::new()).named("head", Linear::new(4, 2)).init(5).unwrap()
    };
    let cx = Context::train(1);
    let mut sgd = Sgd::new(0.25);
    for loss in [Mse::new(), Mse::new().reduction(Reduction::Sum)] {
        let text = lesson.step(&mut network(), &loss, &mut sgd, &x, &t, cx).unwrap();
        // y, E, ∂E/∂y of the loss, ∂E/∂θ, ∂E/∂x, the update
        let [y, dx] = [9 + 9 + 6 + 6 + 12 + 12 + 6, 9 + 9 + 6 + 6 + 12 + 12];
        let theta = (6 + 3) + (6 + 2) + 8 + (8 + 2);
        assert_eq!(check_equations(&text), y + 1 + 6 + theta + dx + theta, "{text}");
        sgd = Sgd::new(0.25);
    }
    let text =
        lesson.step(&mut network(), &CrossEntropy::new(), &mut Sgd::new(0.1), &x, &[1, 0, 1], cx).unwrap();
    assert!(text.contains("ln 0.") && check_equations(&text) > 120, "{text}");
}

#[test]
fn what_is_not_told_stands_as_a_formula_with_values() {
    let model = Sequential::new()
        .add(Linear::new(3, 4))
        .add(BatchNorm1d::new(4))
        .add(Gelu::new())
        .add(Linear::new(4, 2));
    let mut model = model.init(1).unwrap();
    model.set_frozen(true, &|path| path == "0.bias");
    let (x, t) = (Tensor::from_fn([5, 3], |i| (i as f32 * 0.7).sin()), Tensor::full([5, 2], 0.5));
    let text = Lesson::new()
        .step(&mut model, &Huber::new(), &mut AdamW::new(0.01), &x, &t, Context::train(1))
        .unwrap();
    for part in [
        "1  BatchNorm1d: y = γ (x − μ)/√(σ² + ε) + β",
        "2  Gelu: y = x Φ(x)",
        "   running_mean = (0, 0, 0, 0)",
        "   ∂E/∂weight = (",
        "Huber: E = the mean of ",
        "AdamW: ",
        "running_mean[0] ← ",
        "∂E/∂W[0,0] = ",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let (backward, update) = text.split_once("\nUpdate\n").unwrap();
    let first = backward.rsplit_once("\n0  Linear\n").unwrap().1;
    assert!(!first.contains("∂E/∂b") && !update.contains("0  Linear\n   b"), "frozen: {text}");
}

#[test]
fn a_large_model_gives_a_short_text() {
    let model = Sequential::new()
        .add(Flatten::new())
        .add(Linear::new(64, 100))
        .add(Relu::new())
        .add(Linear::new(100, 10));
    let data = digits();
    let (x, labels) = (data.x().rows(0, 20), &data.labels().unwrap()[..20]);
    let mut sgd = Sgd::new(0.1);
    let text = Lesson::new()
        .step(&mut model.init(1).unwrap(), &CrossEntropy::new(), &mut sgd, &x, labels, Context::train(1))
        .unwrap();
    assert!(text.len() < 40_000 && text.lines().all(|line| line.chars().count() < 400), "{}", text.len());
    assert!(text.contains("… and 6388 more"));
}

#[test]
fn what_cannot_be_told_is_an_error() {
    let (mut model, x, t) = (xor(), Tensor::from([[1.0, 0.0]]), Tensor::from([[1.0]]));
    let mut sgd = Sgd::new(0.1);
    let lesson = Lesson::new();
    let before = values(&model);
    assert!(lesson.step(&mut model, &Mse::new(), &mut sgd, &t, &t, Context::train(1)).is_err());
    assert!(lesson.step(&mut model, &CrossEntropy::new(), &mut sgd, &x, &[3], Context::train(1)).is_err());
    assert!(lesson.step(&mut model, &Mse::new(), &mut sgd, &x, &t, Context::infer()).is_err());
    assert_eq!(values(&model), before);
    let x = Tensor::full([1, 50], 1.0);
    let mut noisy =
        Sequential::new().named("part", Dropout::new(0.5)).add(Linear::new(50, 1)).init(1).unwrap();
    assert!(lesson.step(&mut noisy, &Mse::new(), &mut sgd, &x, &t, Context::train(1)).is_ok());
    noisy.set_mode("part", Mode::Inference).unwrap();
    let text =
        lesson.step(&mut noisy, &Mse::new(), &mut sgd, &x, &t, Context::train(1)).unwrap_err().to_string();
    assert!(text.contains("inference mode"), "{text}");
}
