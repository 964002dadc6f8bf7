//! The layer contract of the chainrule neural-network library: Layer, Context, Param, Grads, Loss, Optimizer.
