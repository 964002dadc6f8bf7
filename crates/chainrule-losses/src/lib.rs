//! Loss functions with hand-derived gradients.
