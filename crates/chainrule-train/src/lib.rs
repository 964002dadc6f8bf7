//! Trainer, metrics, callbacks, progress and pictures.
