//! Weights in and out: safetensors under PyTorch names.
