//! The networks and workloads that chainrule is measured on, shared by the criterion benches and the `workloads` binary.

pub mod breakdown;
pub mod layers;
pub mod limits;
pub mod losses;
pub mod networks;
pub mod optimizers;
pub mod timing;
pub mod traffic;
pub mod workloads;

/// The kinds that the benches walk, compiled once for all of them.
pub fn catalogue() -> chainrule::core::Registry<f32> {
    chainrule::registry()
}
