//! What a first program reaches for: it compiles, without a type annotation too many, and does what it says.

use chainrule::{io, prelude::*};
use chainrule_parity::registry;
use std::{ops::ControlFlow, path::PathBuf, sync::Arc, thread};

#[test]
fn numbers_are_single_precision_unless_said_otherwise() {
    let model = Sequential::new().add(Linear::new(2, 3)).add(Relu::new()).init(1).unwrap();
    let _: f32 = model.infer(&Tensor::from([[1.0, 2.0]])).unwrap().sum();
    let mut graph = Graph::new();
    let x = graph.input("x");
    let y = graph.add("y", Linear::new(2, 3), x);
    graph.output("y", y);
    let _: Tensor<f32> = graph.init(1).unwrap().infer(&Tensor::zeros([1, 2])).unwrap();
}

/// A session in a struct, that goes to threads.
struct Server {
    session: Session<Arc<Sequential>>,
}

#[test]
fn a_session_shares_or_owns_its_model() {
    let model = Arc::new(Sequential::new().add(Linear::new(2, 1)).init(1).unwrap());
    let x = Tensor::from([[1.0, 2.0]]);
    let want = model.infer(&x).unwrap();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (mut server, x) = (Server { session: Session::new(Arc::clone(&model)) }, x.clone());
            thread::spawn(move || server.session.run(&x).unwrap().clone())
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == want));
    let mut own: Session<Box<Sequential>> = Session::new(Box::new(Arc::into_inner(model).unwrap()));
    assert_eq!(*own.run(&x).unwrap(), want);
}

/// y = sin x · cosh x, of a function and its derivative.
#[test]
fn an_activation_of_ones_own_has_the_functions_it_needs() {
    let layer =
        Activation::new(|x: f64| x.sin() * x.cosh(), |x: f64| x.cos() * x.cosh() + x.sin() * x.sinh());
    chainrule::gradcheck::check(&layer, &Tensor::from([[0.3, -1.2]])).unwrap();
    fn all<T: Scalar>(x: T) -> [T; 9] {
        [x.sin(), x.cos(), x.tan(), x.atan(), x.sinh(), x.cosh(), x.powi(3), x.floor(), x.signum()]
    }
    let quarter = std::f32::consts::FRAC_PI_4; // of π
    let want = [0.84147, 0.54030, 1.55741, quarter, 1.17520, 1.54308, 1.0, 1.0, 1.0];
    assert!(all(1f32).iter().zip(want).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-5));
    assert!(all(1f64).iter().zip(all(1f32)).all(|(a, b)| (a - f64::from(b)).abs() < 1e-6));
}

#[test]
fn a_batch_is_a_target() {
    let data = iris();
    let mut model = Linear::new(4, 3).init(1).unwrap();
    let (loss, mut adam, mut pass) = (CrossEntropy::new(), Adam::new(0.01), Pass::new(&model));
    let mut loader = Loader::new(&data, 50).unwrap();
    let mut trainer = Trainer::new(model.clone(), CrossEntropy::new(), Adam::new(0.01));
    while let Some(batch) = loader.next_batch().unwrap() {
        let y = pass.forward(&model, &batch.inputs, Context::train(1)).unwrap();
        let alone: f32 = loss.gradient(y, &batch.targets[0], &mut Tensor::default()).unwrap();
        assert_eq!(pass.loss(&loss, &batch.targets).unwrap(), alone);
        pass.backward(&model, &batch.inputs).unwrap();
        pass.update(&mut model, &mut adam).unwrap();
        trainer.step(&batch.inputs, &batch.targets).unwrap();
    }
}

/// `?` on the operating system's errors, and lengths that are read.
fn lengths(path: PathBuf) -> Result<Tensor> {
    std::fs::write(&path, "2 3")?;
    let text = std::fs::read_to_string(&path)?;
    std::fs::remove_file(&path)?;
    let axes: Vec<usize> = text.split(' ').filter_map(|n| n.parse().ok()).collect();
    let model = Sequential::new().add(Linear::new(3, 1)).build(&axes)?;
    assert_eq!(model.summary(&axes)?.parameters(), 4);
    let x = Tensor::from_vec(&axes, vec![1.0; 6])?;
    assert_eq!(model.summary(x.shape())?.rows().len(), 1);
    Ok(x)
}

#[test]
fn shapes_and_errors_convert() {
    let name = format!("chainrule-newcomer-{}", std::process::id());
    assert_eq!(lengths(std::env::temp_dir().join(&name)).unwrap().sum(), 6.0);
    assert!(lengths(std::env::temp_dir().join(name).join("missing")).is_err());
}

#[test]
fn closures_may_fail() {
    let mut model = Sequential::new().add(Linear::new(2, 3)).add(Linear::new(3, 1)).init(1).unwrap();
    let mut sum = 0.0;
    let read = model.try_visit(&mut |path, p| {
        sum += p.value()?.iter().sum::<f32>();
        if path.to_string() == "1.weight" { Err(Error::value("enough")) } else { Ok(()) }
    });
    assert_eq!(read.unwrap_err().to_string(), "enough");
    model
        .try_visit_mut(&mut |_, p| {
            p.value_mut()?.fill(sum);
            Ok(())
        })
        .unwrap();

    let model = Sequential::new().add(Linear::new(4, 3)).init(1).unwrap();
    let mut trainer = Trainer::new(model, CrossEntropy::new(), Sgd::new(0.1))
        .epochs(2)
        .progress(Progress::Silent)
        .on_epoch(|_, _| {
            std::fs::read("there is no such file")?;
            Ok(ControlFlow::Continue(()))
        });
    assert!(trainer.fit(&iris()).is_err());
    assert_eq!((trainer.history().epochs.len(), trainer.history().ended), (1, Ended::Error));
}

sequence! {
    /// A classifier of flowers.
    #[derive(Clone)]
    struct Flowers {
        body: Sequential,
        norm: BatchNorm1d,
        head: Linear,
    }
}

impl Flowers {
    fn new() -> Self {
        let body = Sequential::new().add(Linear::new(4, 8)).add(Tanh::new());
        Self { body, norm: BatchNorm1d::new(8), head: Linear::new(8, 3) }
    }
}

#[test]
fn a_struct_of_layers_trains_prints_saves_and_is_frozen_by_path() {
    let data = iris();
    let mut model = Flowers::new().init(1).unwrap();
    assert_eq!(model.set_frozen(true, &|path| path.starts_with("body.")), 2);
    let before = model.body.infer(data.x()).unwrap();
    let mut trainer =
        Trainer::new(model, CrossEntropy::new(), Adam::new(0.05)).epochs(20).progress(Progress::Silent);
    trainer.fit(&data).unwrap();
    assert!(trainer.evaluate(&data).unwrap().accuracy() > Some(0.9));
    assert_eq!(trainer.model().body.infer(data.x()).unwrap(), before);

    let y = trainer.model().infer(data.x()).unwrap();
    let mut again = Flowers::new();
    io::from_bytes(&mut again, &io::to_bytes(trainer.model()).unwrap()).unwrap();
    assert_eq!(again.infer(data.x()).unwrap(), y);
    let whole =
        io::model_from_bytes(&registry::<f32>(), &io::model_to_bytes(trainer.model()).unwrap()).unwrap();
    assert_eq!(whole.infer(data.x()).unwrap(), y);

    let text = again.to_string();
    assert!(text.starts_with("Flowers(\n  (body): Sequential(\n    (0): Linear("), "{text}");
    let summary = again.summary([1, 4]).unwrap();
    assert_eq!((summary.parameters(), &summary.rows()[3].path[..]), (4 * 8 + 8 + 16 + 8 * 3 + 3, "head"));
}

#[test]
fn a_layer_that_forgets_params_mut_is_told_so() {
    #[derive(Clone)]
    struct Scale(Param<f32>);
    impl Layer for Scale {
        type T = f32;
        type Cache = ();
        fn output_shape(&self, input: &[usize]) -> Result<Shape> {
            Shape::new(input)
        }
        fn forward(&self, x: &Tensor, y: &mut Tensor, _: &mut (), _: Context) -> Result<()> {
            let s = self.0.value()?[0];
            y.copy_from(&x.map(|x| s * x));
            Ok(())
        }
        fn backward(
            &self,
            _: Call<'_, f32>,
            _: &mut (),
            _: &mut Grads<f32>,
            _: Option<&mut Tensor>,
        ) -> Result<()> {
            Ok(())
        }
        fn params<'a>(&'a self, out: &mut Params<'_, 'a, f32>) {
            out.add(&self.0);
        }
    }
    let model =
        Sequential::new().add(Linear::new(2, 2)).named("scale", Scale(Param::new("s", [1], Init::ONES)));
    let text = model.init(1).err().unwrap().to_string();
    assert_eq!(text, "expected params_mut to list what params lists, got none of `scale.s`");
}
