//! What an optimizer is to its author: the state of one tensor, and its update.

use chainrule_core::{Path, Result, Scalar, Shape, Spec, Tensor};
use chainrule_tensor::kernels::layers::optim::Direction;

/// How an optimizer updates one tensor. A [`Driver`](crate::Driver) does the rest: groups, freezing, weight decay,
/// maximisation, step counts, checks, and state by name.
///
/// ```
/// use chainrule_core::{Scalar, Shape};
/// use chainrule_optim::{Driver, Rule, StateTensor, Update};
///
/// /// w ← w − η sign(c), c = β₁ m + (1 − β₁) g; m ← β₂ m + (1 − β₂) g (Chen et al., 2023).
/// struct Lion {
///     betas: (f64, f64),
/// }
///
/// impl<T: Scalar> Rule<T> for Lion {
///     const KIND: &'static str = "Lion";
///     const DECOUPLED: bool = true;
///
///     fn state(&self, shape: &Shape) -> Vec<StateTensor> {
///         vec![StateTensor::new("exp_avg", *shape)]
///     }
///
///     fn update(&self, update: Update<'_, T>) {
///         let (rate, beta1, beta2) = (update.rate, self.betas.0, self.betas.1);
///         let m = update.state[0].data_mut();
///         for ((w, g), m) in update.w.iter_mut().zip(update.g).zip(m) {
///             let (g, old) = (g.to_f64(), m.to_f64());
///             let c = beta1 * old + (1.0 - beta1) * g;
///             *w -= T::from_f64(if c == 0.0 { 0.0 } else { rate * c.signum() });
///             *m = T::from_f64(beta2 * old + (1.0 - beta2) * g);
///         }
///     }
/// }
///
/// let lion = Driver::<_, f32>::from_rule(Lion { betas: (0.9, 0.99) }, 1e-4).weight_decay(0.1);
/// # use chainrule_core::Optimizer;
/// # assert!(lion.check().is_ok());
/// ```
pub trait Rule<T: Scalar>: Send {
    /// The kind of the optimizer: its name in specs and errors.
    const KIND: &'static str;

    /// Whether weight decay is decoupled from the gradient unless a setting says otherwise.
    const DECOUPLED: bool = false;

    /// Whether [`Rule::update`] applies [`Terms`] itself, in its one pass over memory. If not, the driver has applied them
    /// before: `g` is d = s g + λ w, and w has shrunk.
    const FUSED: bool = false;

    /// Whether the rule's own settings make sense together.
    ///
    /// # Errors
    /// A value error that says which is wrong and why.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// A setting that may change between steps, by its name; see [`Optimizer::setting`](chainrule_core::Optimizer::setting). State is kept
    /// for it or not by whether it is 0.
    fn setting(&mut self, _name: &str) -> Option<&mut f64> {
        None
    }

    /// The state that is kept for a tensor of this shape under the present settings; each name once. A rule that keeps none
    /// has no step count to save either.
    fn state(&self, _shape: &Shape) -> Vec<StateTensor> {
        Vec::new()
    }

    /// Updates one tensor and its state.
    fn update(&self, update: Update<'_, T>);

    /// The kind and the settings, named and ordered as PyTorch's arguments.
    fn spec(&self, settings: &Settings) -> Spec {
        settings.spec(Self::KIND)
    }
}

/// One tensor of an optimizer's state: its name, its shape, and the value of each element before the first step. It has
/// the element type of the parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StateTensor {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) start: f64,
}

impl StateTensor {
    /// Zeros of a shape, often that of the parameter.
    pub fn new(name: &'static str, shape: impl Into<Shape>) -> Self {
        Self { name, shape: shape.into(), start: 0.0 }
    }

    /// Another value than 0 before the first step.
    #[must_use]
    pub fn starting_at(self, start: f64) -> Self {
        Self { start, ..self }
    }

    pub(crate) fn build<T: Scalar>(&self) -> Tensor<T> {
        Tensor::full(self.shape, T::from_f64(self.start))
    }
}

/// What a rule updates one tensor with.
#[derive(Debug)]
#[non_exhaustive]
pub struct Update<'a, T> {
    /// The parameter's path in the model.
    pub path: &'a Path<'a>,
    /// The parameter's shape.
    pub shape: &'a Shape,
    /// The values.
    pub w: &'a mut [T],
    /// The gradient: ∂E/∂w for a fused rule, d = s g + λ w for the others.
    pub g: &'a [T],
    /// The state, in the order of [`Rule::state`].
    pub state: &'a mut [Tensor<T>],
    /// How often this parameter was updated, this time included.
    pub t: u64,
    /// The learning rate η, that of the parameter's group.
    pub rate: f64,
    /// What a fused rule has to apply; neutral for the others.
    pub terms: Terms,
}

/// d = s g + λ w, and w ← c w before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// s: −1 to maximise, else 1.
    pub sign: f64,
    /// λ: coupled weight decay.
    pub decay: f64,
    /// c: 1 − η λ with decoupled weight decay, else 1.
    pub shrink: f64,
}

impl Terms {
    /// d = g, and w as it is.
    pub const NEUTRAL: Self = Self { sign: 1.0, decay: 0.0, shrink: 1.0 };

    /// In the parameters' element type, as the kernels take them.
    pub(crate) fn cast<T: Scalar>(self) -> Direction<T> {
        let [sign, decay, shrink] = [self.sign, self.decay, self.shrink].map(T::from_f64);
        Direction { sign, decay, shrink }
    }
}

/// The builder methods of a rule's own settings.
macro_rules! settings {
    ($rule:ty { $($(#[$meta:meta])* $name:ident: $ty:ty,)* }) => {
        impl<T: chainrule_core::Scalar> $crate::Driver<$rule, T> {
            $($(#[$meta])*
            #[must_use]
            pub fn $name(self, $name: $ty) -> Self {
                self.set(|rule| rule.$name = $name)
            })*
        }
    };
}
pub(crate) use settings;

/// The builder method of β₁ and β₂.
macro_rules! betas {
    ($rule:ty) => {
        impl<T: chainrule_core::Scalar> $crate::Driver<$rule, T> {
            /// How much of the first and of the second moment stays at each step.
            #[must_use]
            pub fn betas(self, beta1: f64, beta2: f64) -> Self {
                self.set(|rule| rule.betas = [beta1, beta2])
            }
        }
    };
}
pub(crate) use betas;

/// A β by its name; the first is the momentum too.
pub(crate) fn beta<'a>(betas: &'a mut [f64], name: &str) -> Option<&'a mut f64> {
    let at = match name {
        "momentum" | "beta1" => 0,
        "beta2" => 1,
        "beta3" => 2,
        _ => return None,
    };
    betas.get_mut(at)
}

/// The settings that every optimizer has.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// The learning rate η.
    pub rate: f64,
    /// The factor λ of weight decay.
    pub weight_decay: f64,
    /// Whether the objective is maximised.
    pub maximize: bool,
    /// Whether weight decay shrinks w and stays out of the gradient.
    pub decoupled: bool,
}

impl Settings {
    pub(crate) fn new(rate: f64, decoupled: bool) -> Self {
        Self { rate, weight_decay: 0.0, maximize: false, decoupled }
    }

    /// The spec of a rule without settings of its own.
    pub fn spec(&self, kind: &str) -> Spec {
        Spec::new(kind)
            .with("lr", self.rate)
            .with("weight_decay", self.weight_decay)
            .with("maximize", self.maximize)
    }

    /// What these settings ask for at a rate and a decay.
    #[inline]
    pub(crate) fn terms(&self, rate: f64, weight_decay: f64) -> Terms {
        let (decay, shrink) =
            if self.decoupled { (0.0, 1.0 - rate * weight_decay) } else { (weight_decay, 1.0) };
        Terms { sign: if self.maximize { -1.0 } else { 1.0 }, decay, shrink }
    }
}
