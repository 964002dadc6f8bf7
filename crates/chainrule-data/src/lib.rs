//! Data sets, loaders and file formats for training.
