//! Pictures of a training, as SVG: every browser shows them, and they are text.

mod plot;
mod sheet;
mod svg;

pub use plot::{Plot, learning_curves};
pub use sheet::{Sheet, mistakes};
pub use svg::Svg;
