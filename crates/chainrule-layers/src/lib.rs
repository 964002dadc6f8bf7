//! Neural-network layers with hand-derived backward passes.
