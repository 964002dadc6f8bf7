//! Files of architecture and weights.

use chainrule_core::{
    Args, BoxModule, Call, Context, Facts, FromSpec, Grads, Init, Kind, Layer, Module, Param, Parameters,
    Params, ParamsMut, Registry, Result, Scalar, Shape, Spec, Tensor,
};
use chainrule_io::{from_bytes, load_model, model_from_bytes, model_to_bytes, save_model};
use proptest::prelude::*;
use std::fs;

/// y = s x + shift, of a width.
#[derive(Clone)]
struct Gain<T> {
    weight: Param<T>,
    shift: f64,
}

impl<T: Scalar> Gain<T> {
    fn new(width: usize, shift: f64) -> Self {
        Self { weight: Param::new("weight", [width], Init::Normal { mean: 0.0, std: 1.0 }), shift }
    }
}

impl<T: Scalar> Layer for Gain<T> {
    type T = T;
    type Cache = ();
    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }
    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        let shift = T::from_f64(self.shift);
        let s = self.weight.value()?;
        let ys = y.reset(*x.shape()).iter_mut();
        ys.zip(x.data()).zip(s.iter().cycle()).for_each(|((y, &x), &s)| *y = s * x + shift);
        Ok(())
    }
    fn backward(
        &self,
        _: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        _: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        Ok(())
    }
    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        out.add(&self.weight);
    }
    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        out.add(&mut self.weight);
    }
    fn spec(&self) -> Spec {
        Spec::new("Gain").with("width", self.weight.volume()).with("shift", self.shift)
    }
}

impl<T: Scalar> FromSpec<T> for Gain<T> {
    const FACTS: Facts = Facts::new("Gain");
    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        let width = Shape::new(&[args.get("width")?])?[0];
        Ok(Self::new(width, args.or("shift", 0.0)?))
    }
}

/// One after another.
#[derive(Clone)]
struct Chain<T: Scalar>(Vec<(String, BoxModule<T>)>);

impl<T: Scalar> Layer for Chain<T> {
    type T = T;
    type Cache = ();
    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }
    fn forward(&self, x: &Tensor<T>, y: &mut Tensor<T>, _: &mut (), _: Context) -> Result<()> {
        y.copy_from(x);
        for (_, child) in &self.0 {
            let next = child.infer(&*y)?;
            y.copy_from(&next);
        }
        Ok(())
    }
    fn backward(
        &self,
        _: Call<'_, T>,
        _: &mut (),
        _: &mut Grads<T>,
        _: Option<&mut Tensor<T>>,
    ) -> Result<()> {
        Ok(())
    }
    fn params<'a>(&'a self, out: &mut Params<'_, 'a, T>) {
        self.0.iter().for_each(|(name, child)| child.list(&mut out.child(name)));
    }
    fn params_mut<'a>(&'a mut self, out: &mut ParamsMut<'_, 'a, T>) {
        self.0.iter_mut().for_each(|(name, child)| child.list_mut(&mut out.child(name)));
    }
    fn spec(&self) -> Spec {
        self.0.iter().fold(Spec::new("Chain"), |spec, (name, child)| spec.child(name, child.to_spec()))
    }
}

impl<T: Scalar> FromSpec<T> for Chain<T> {
    const FACTS: Facts = Facts::new("Chain");
    fn from_spec(args: &Args<'_, T>) -> Result<Self> {
        Ok(Self(args.children()?))
    }
}

/// A layer that says nothing of itself.
#[derive(Clone)]
struct Silent;

impl Layer for Silent {
    type T = f64;
    type Cache = ();
    fn output_shape(&self, input: &[usize]) -> Result<Shape> {
        Shape::new(input)
    }
    fn forward(&self, x: &Tensor<f64>, y: &mut Tensor<f64>, _: &mut (), _: Context) -> Result<()> {
        y.copy_from(x);
        Ok(())
    }
    fn backward(
        &self,
        _: Call<'_, f64>,
        _: &mut (),
        _: &mut Grads<f64>,
        _: Option<&mut Tensor<f64>>,
    ) -> Result<()> {
        Ok(())
    }
}

fn registry<T: Scalar>() -> Registry<T> {
    Registry::new().module::<Gain<T>>().module::<Chain<T>>()
}

fn model<T: Scalar>() -> Chain<T> {
    let inner = Chain(vec![("scale".into(), BoxModule::new(Gain::new(3, 0.1 + 0.2)))]);
    let layers = [BoxModule::new(Gain::new(3, 0.5)), BoxModule::new(inner)];
    Chain(layers.into_iter().enumerate().map(|(i, layer)| (i.to_string(), layer)).collect()).init(3).unwrap()
}

/// A file of a model whose architecture is replaced.
fn with_architecture(text: &str) -> Vec<u8> {
    let bytes = 1.5f64.to_le_bytes();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F64, vec![1], &bytes).unwrap();
    let metadata = [("chainrule.model".to_owned(), text.to_owned())].into_iter().collect();
    safetensors::serialize([("weight", view)], Some(metadata)).unwrap()
}

fn refused(bytes: &[u8]) -> chainrule_core::Error {
    model_from_bytes::<f64>(&registry(), bytes).unwrap_err()
}

#[test]
fn a_model_comes_back_from_its_file_alone() {
    fn there_and_back<T: Scalar>(name: &str) {
        let path = std::env::temp_dir().join(format!("chainrule-io-model-{}-{name}", std::process::id()));
        let model = model::<T>();
        save_model(&model, &path).unwrap();
        let again = load_model::<T>(&registry(), &path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(again.to_spec(), model.to_spec());
        let x = Tensor::from_fn([2, 3], |i| T::from_usize(i));
        assert_eq!(again.infer(&x).unwrap(), model.infer(&x).unwrap());
    }
    there_and_back::<f32>("f32");
    there_and_back::<f64>("f64");
}

#[test]
fn the_file_holds_the_weights_as_every_other() {
    let model = model::<f64>();
    let bytes = model_to_bytes(&model).unwrap();
    let mut other = model.clone();
    other.visit_mut(&mut |_, p| p.value_mut().unwrap().fill(0.0));
    from_bytes(&mut other, &bytes).unwrap();
    let x = Tensor::full([1, 3], 2.0);
    assert_eq!(other.infer(&x).unwrap(), model.infer(&x).unwrap());
    // An erased model is saved as itself, and read in the other scalar type too.
    assert_eq!(model_to_bytes(&BoxModule::new(model.clone())).unwrap(), bytes);
    let single = model_from_bytes::<f32>(&registry(), &bytes).unwrap();
    assert_eq!(single.to_spec(), model.to_spec());
}

#[test]
fn a_layer_that_does_not_say_what_it_is_is_not_saved() {
    let model = Chain(vec![("0".into(), BoxModule::new(Silent))]);
    let error = model_to_bytes(&model).unwrap_err().to_string();
    assert_eq!(
        error,
        "`Silent` does not say what it is: implement `spec` for it, and `FromSpec` to load it again"
    );
}

#[test]
fn a_file_without_architecture_says_what_reads_it() {
    let error = refused(&chainrule_io::to_bytes(&model::<f64>()).unwrap()).to_string();
    assert!(error.contains("`chainrule.model`") && error.contains("`load`"), "{error}");
}

#[test]
fn a_hostile_architecture_is_an_error() {
    let gain = |attributes: &str| {
        format!(r#"{{"version":1,"model":{{"kind":"Gain","attributes":{{{attributes}}},"children":{{}}}}}}"#)
    };
    assert!(model_from_bytes::<f64>(&registry(), &with_architecture(&gain(r#""width":1"#))).is_ok());
    let cases = [
        (gain(r#""width":2"#), "expected `weight` [2], got [1]"),
        (gain(r#""width":4611686018427387904"#), "expected a volume that fits in memory"),
        (gain(r#""width":9223372036854775807"#), "expected a volume that fits in memory"),
        (gain(r#""width":-1"#), "attribute `width`: expected a size, got -1"),
        (gain(r#""width":1e30"#), "attribute `width`: expected a size, got 1e30"),
        (gain(r#""width":1,"depth":2"#), "unknown attribute `depth`"),
        (gain(""), "attribute `width`: expected a value, got none"),
        (gain(r#""width":1"#).replace("Gain", "Warp"), "expected a registered kind of module, got `Warp`"),
        (gain(r#""width":1"#).replace(r#""version":1"#, r#""version":7"#), "expected version 1, got 7"),
        (gain(r#""width":"#), "architecture: "),
        (String::new(), "architecture: "),
        ("[".repeat(1_000_000), "architecture: "),
        (
            format!(
                r#"{{"version":1,"model":{}"#,
                r#"{"kind":"Chain","attributes":{},"children":{"0":"#.repeat(1_000_000 / 50)
            ),
            "nested at most 48",
        ),
    ];
    for (text, expected) in cases {
        let error = refused(&with_architecture(&text));
        assert!(matches!(error.kind(), Kind::Format(_) | Kind::State(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}, not {expected}");
    }
    let spoof = gain("").replace("Gain", &format!("\\u001b[2J{}", "k".repeat(100_000)));
    let error = refused(&with_architecture(&spoof)).to_string();
    assert!(
        error.contains(r"\u{1b}[2J") && !error.contains('\u{1b}') && error.chars().count() < 8100,
        "{error}"
    );
}

proptest! {
    #[test]
    fn a_damaged_file_never_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = model_to_bytes(&model::<f32>()).unwrap();
        // Of a file of a few hundred bytes most are its header: the length before it is left alone.
        for (at, value) in damage {
            let at = 8 + at.index(bytes.len() - 8);
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(model) = model_from_bytes::<f32>(&registry(), &bytes) {
            model.visit(&mut |_, p| assert!(p.value().unwrap().iter().all(|v| v.is_finite())));
        }
    }
}
