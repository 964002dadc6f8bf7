//! Layers that add noise in training.

pub(crate) mod noisy;

crate::registry::family! {
    alpha_dropout => AlphaDropout;
    channel_dropout => Dropout1d, Dropout2d, Dropout3d;
    drop_path => DropPath;
    dropout => Dropout;
    feature_alpha_dropout => FeatureAlphaDropout;
    gaussian_dropout => GaussianDropout;
    gaussian_noise => GaussianNoise;
}

pub use noisy::NoiseCache;
