//! The kernels of each instruction set and scalar type, behind function pointers.

use super::{
    super::lanes::{self, Lanes},
    dot::{self, Dots},
    finish,
    pack::{self, Pack, Scratch},
    tile::{self, Block, Tile},
};
use crate::kernels::Isa;
use std::cell::Cell;

/// What an instruction set does for a scalar type.
pub(in crate::kernels) struct Kernels<T> {
    /// Numbers in a vector.
    pub lanes: usize,
    /// Most rows of a tile of 1, 2, 4 and 8 vectors.
    pub rows: [usize; 4],
    pub block: unsafe fn(&Block<T>),
    pub dots: unsafe fn(&Dots<T>),
    pub pack: unsafe fn(&Pack<T>),
}

/// The kernels of a scalar type, and memory for packing of which each thread has its own.
pub(in crate::kernels) trait Engine: Sized + 'static {
    fn kernels(isa: Isa) -> &'static Kernels<Self>;
    fn scratch() -> &'static std::thread::LocalKey<Cell<Scratch<Self>>>;
}

macro_rules! kernels {
    ($name:ident, $lanes:ty, $t:ty, $(#[$features:meta])?,
     [$($one:literal)*] $r1:literal, [$($two:literal)*] $r2:literal, [$($four:literal)*] $r4:literal, [$($eight:literal)*] $r8:literal) => {
        pub(super) mod $name {
            use super::*;

            $(#[$features])?
            unsafe fn one<const R: usize, const V: usize>(t: &Tile<$t>) {
                // Packed rows adjoin, which is worth a loop of their own where the vectors are wide.
                let adjoin = <$lanes>::N >= 8 && t.a_row == 1;
                // SAFETY: the caller vouches for the tile, and for the instruction set, here and below.
                unsafe {
                    if adjoin { tile::tile::<$lanes, R, V, true>(t) } else { tile::tile::<$lanes, R, V, false>(t) }
                }
            }
            $(#[$features])?
            unsafe fn write(from: *const $t, rows: usize, stride: usize, t: &Tile<$t>) {
                // SAFETY: as above.
                unsafe { finish::write::<$lanes>(from, rows, stride, t) }
            }
            $(#[$features])?
            unsafe fn block(b: &Block<$t>) {
                // SAFETY: as above.
                unsafe {
                    tile::block::<$lanes>(b, write, |t, rows, vectors| match (vectors, rows) {
                        $((1, $one) => one::<$one, 1>(t),)*
                        $((2, $two) => one::<$two, 2>(t),)*
                        $((4, $four) => one::<$four, 4>(t),)*
                        $((8, $eight) => one::<$eight, 8>(t),)*
                        _ => unreachable!("a tile of {rows} rows and {vectors} vectors"),
                    });
                }
            }
            $(#[$features])?
            unsafe fn dots(d: &Dots<$t>) {
                // SAFETY: as above.
                unsafe { dot::dots::<$lanes>(d) }
            }
            $(#[$features])?
            unsafe fn pack(p: &Pack<$t>) {
                // SAFETY: as above.
                unsafe { pack::pack::<$lanes>(p) }
            }
            pub(in crate::kernels::gemm) static KERNELS: Kernels<$t> =
                Kernels { lanes: <$lanes>::N, rows: [$r1, $r2, $r4, $r8], block, dots, pack };
        }
    };
}

kernels!(portable32, lanes::Portable32, f32, , [1 2 3 4 5 6] 6, [1 2 3 4 5 6] 6, [1 2 3] 3, [1] 1);
kernels!(portable64, lanes::Portable64, f64, , [1 2 3 4 5 6] 6, [1 2 3 4 5 6] 6, [1 2 3] 3, [1] 1);

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    use super::*;
    kernels!(avx2_f32, lanes::Avx2F32, f32, #[target_feature(enable = "avx2,fma")],
        [1 2 3 4 5 6 7 8] 8, [1 2 3 4 5] 5, [1 2] 2, [1] 1);
    kernels!(avx2_f64, lanes::Avx2F64, f64, #[target_feature(enable = "avx2,fma")],
        [1 2 3 4 5 6 7 8] 8, [1 2 3 4 5] 5, [1 2] 2, [1] 1);
    kernels!(avx512_f32, lanes::Avx512F32, f32, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")],
        [1 2 3 4 5 6 7 8 9 10 11 12 13 14] 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14] 14, [1 2 3 4 5 6] 6, [1 2 3] 3);
}

macro_rules! engine {
    ($t:ty, $portable:ident, $avx2:ident, $avx512:ident) => {
        impl Engine for $t {
            #[inline]
            fn kernels(isa: Isa) -> &'static Kernels<$t> {
                match isa {
                    #[cfg(all(target_arch = "x86_64", not(miri)))]
                    Isa::Avx512 => &x86::$avx512::KERNELS,
                    #[cfg(all(target_arch = "x86_64", not(miri)))]
                    Isa::Avx2 => &x86::$avx2::KERNELS,
                    _ => &$portable::KERNELS,
                }
            }

            fn scratch() -> &'static std::thread::LocalKey<Cell<Scratch<$t>>> {
                thread_local!(static SCRATCH: Cell<Scratch<$t>> = const { Cell::new(Scratch::new()) });
                &SCRATCH
            }
        }
    };
}

engine!(f32, portable32, avx2_f32, avx512_f32);
// For AVX-512 too: see `Vectors`.
engine!(f64, portable64, avx2_f64, avx2_f64);
