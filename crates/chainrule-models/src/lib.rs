//! Known network architectures for [chainrule](https://docs.rs/chainrule), under PyTorch's parameter names.
//!
//! Each file holds one: a struct of its sizes, and `build`, which puts the layers together. All are generic over the scalar,
//! f32 by default, and untrained until `init` or until weights are loaded.
//!
//! ```
//! use chainrule_core::{Module, Parameters, Tensor};
//! let model = chainrule_models::LeNet::new(1, 10).build()?.init(1)?;
//! assert_eq!(model.infer(&Tensor::<f32>::zeros([2, 1, 28, 28]))?.shape()[..], [2, 10]);
//! # Ok::<(), chainrule_core::Error>(())
//! ```

mod autoencoder;
mod bert;
mod char_lstm;
mod convnext;
mod gpt;
mod gru_classifier;
mod lenet;
mod lstm_classifier;
mod mlp;
mod mobilenet_v2;
mod renamed;
mod resnet;
mod unet;
mod vae;
mod vgg;
mod vit;
mod wavenet;
mod wgan_critic;

pub use autoencoder::AutoEncoder;
pub use bert::Bert;
pub use char_lstm::CharLstm;
pub use convnext::ConvNeXt;
pub use gpt::{Gpt, GptModel};
pub use gru_classifier::GruClassifier;
pub use lenet::LeNet;
pub use lstm_classifier::LstmClassifier;
pub use mlp::Mlp;
pub use mobilenet_v2::MobileNetV2;
pub use resnet::{ResNet, Stem};
pub use unet::UNet;
pub use vae::{Vae, VaeLoss};
pub use vgg::{Stage, Vgg};
pub use vit::VisionTransformer;
pub use wavenet::WaveNet;
pub use wgan_critic::WganCritic;

use chainrule_core::{BoxModule, Registry, Scalar};

/// What the models of this crate need beside the layers to be built from their specs: with it, a model file of any of them is
/// loaded without its code.
///
/// ```
/// use chainrule_core::{Module, Tensor};
/// use chainrule_models::Gpt;
/// let registry = chainrule_layers::registry::<f32>().merge(chainrule_models::registry());
/// let model = Gpt { layers: 2, ..Gpt::new(50, 16, 32, 4) }.build::<f32>();
/// assert_eq!(registry.build_module(&model.to_spec())?.to_spec(), model.to_spec());
/// # Ok::<(), chainrule_core::Error>(())
/// ```
pub fn registry<T: Scalar>() -> Registry<T> {
    Registry::new()
        .module::<GptModel<T>>()
        .module::<renamed::Renamed<BoxModule<T>>>()
        .module::<vit::Tokens<T>>()
        .module::<bert::Hidden<T>>()
}

/// The README's example, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
