//! Weights as products read them.

use super::stack::Weights;
use chainrule_core::{Param, Result, Scalar};
use chainrule_tensor::kernels::gemm::{Mat, PackedB};

/// The weights of one layer in one direction as products read them, and the versions that they were made of.
pub(super) struct Packed<T> {
    versions: [[u64; 2]; 5],
    backward: [[u64; 2]; 2],
    /// Wᵀ, Uᵀ and the transposed projection.
    pub(super) ih: PackedB<T>,
    pub(super) hh: PackedB<T>,
    pub(super) hr: PackedB<T>,
    /// What is added to W x; for GRU, what is added to U h.
    pub(super) bias: Vec<T>,
    pub(super) bias_h: Vec<T>,
    /// U and the projection, for backward.
    pub(super) hh_back: PackedB<T>,
    pub(super) hr_back: PackedB<T>,
}

impl<T: Scalar> Packed<T> {
    pub(super) fn new() -> Self {
        Self {
            versions: [[u64::MAX; 2]; 5],
            backward: [[u64::MAX; 2]; 2],
            ih: PackedB::new(),
            hh: PackedB::new(),
            hr: PackedB::new(),
            bias: Vec::new(),
            bias_h: Vec::new(),
            hh_back: PackedB::new(),
            hr_back: PackedB::new(),
        }
    }

    /// Packs what has changed.
    pub(super) fn update(&mut self, w: &Weights<T>, gru: bool) -> Result<()> {
        let version = |param: Option<&Param<T>>| param.map_or([0; 2], Param::version);
        let [b_ih, b_hh] = [0, 1].map(|k| w.bias.as_ref().map(|bias| &bias[k]));
        let versions = [
            version(Some(&w.ih)),
            version(Some(&w.hh)),
            version(b_ih),
            version(b_hh),
            version(w.hr.as_ref()),
        ];
        if self.versions == versions {
            return Ok(());
        }
        self.versions = [[u64::MAX; 2]; 5];
        pack(&mut self.ih, &w.ih, true)?;
        pack(&mut self.hh, &w.hh, true)?;
        if let Some(hr) = &w.hr {
            pack(&mut self.hr, hr, true)?;
        }
        self.bias.clear();
        self.bias_h.clear();
        if let [Some(b_ih), Some(b_hh)] = [b_ih, b_hh] {
            let (b_ih, b_hh) = (b_ih.value()?, b_hh.value()?);
            if gru {
                self.bias.extend_from_slice(b_ih);
                self.bias_h.extend_from_slice(b_hh);
            } else {
                self.bias.extend(b_ih.iter().zip(b_hh).map(|(&b, &c)| b + c));
            }
        }
        self.versions = versions;
        Ok(())
    }

    /// Packs for backward what has changed.
    pub(super) fn update_backward(&mut self, w: &Weights<T>) -> Result<()> {
        let versions = [w.hh.version(), w.hr.as_ref().map_or([0; 2], Param::version)];
        if self.backward == versions {
            return Ok(());
        }
        self.backward = [[u64::MAX; 2]; 2];
        pack(&mut self.hh_back, &w.hh, false)?;
        if let Some(hr) = &w.hr {
            pack(&mut self.hr_back, hr, false)?;
        }
        self.backward = versions;
        Ok(())
    }
}

/// Packs a weight as the right operand, transposed or not.
fn pack<T: Scalar>(to: &mut PackedB<T>, weight: &Param<T>, transposed: bool) -> Result<()> {
    let (rows, cols) = (weight.shape()[0], weight.shape()[1]);
    let w = Mat::new(weight.value()?, rows, cols);
    to.pack(if transposed { w.t() } else { w });
    Ok(())
}
