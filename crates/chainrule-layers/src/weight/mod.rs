//! Weights that are functions of other parameters, around any layer.

mod parametrized;
mod rule;
mod slices;

crate::registry::family! {
    lora => Lora;
    pruned => Pruned;
    spectral_norm => SpectralNorm;
    weight_norm => WeightNorm;
}

pub use parametrized::{Parametrized, ParametrizedState};
pub use rule::WeightRule;
