//! MNIST and its kin (Fashion-MNIST, KMNIST): images and labels in idx files.

use crate::{
    Bytes, Dataset,
    idx::{Header, Kind},
};
use chainrule_tensor::{Error, Result, Scalar};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Reads the four files of MNIST, plain or with gzip, from a folder: (training part, test part).
///
/// The files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
/// `t10k-labels-idx1-ubyte`, each with or without `.gz`.
///
/// # Shapes
/// `x` (60000, 1, 28, 28) and (10000, 1, 28, 28), 0 for paper to 1 for ink, in steps of 1/255; they stay bytes, 47 MB
/// and 8 MB, until they are in a batch
///
/// # Errors
/// A file is missing (the text says where to get it), or as [`labelled_images`].
///
/// ```no_run
/// let (train, test) = chainrule_data::mnist::<f32>("data/mnist")?;
/// # Ok::<(), chainrule_data::Error>(())
/// ```
pub fn mnist<T: Scalar>(dir: impl AsRef<Path>) -> Result<(Dataset<T>, Dataset<T>)> {
    let dir = dir.as_ref();
    // All four are looked for before the first is read.
    let files = [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ]
    .map(|name| find(dir, name));
    let [train_x, train_y, test_x, test_y] = files;
    let (train_x, train_y, test_x, test_y) = (train_x?, train_y?, test_x?, test_y?);
    Ok((labelled_images(train_x, train_y, 10)?, labelled_images(test_x, test_y, 10)?))
}

/// Reads images and their labels from two idx files of bytes, plain or with gzip.
///
/// # Shapes
/// `x` (N, 1, H, W), byte / 255, held as bytes
///
/// # Errors
/// A file cannot be read or is not such an idx file, the two have different lengths, there is no image, or a label is not
/// below `classes`.
pub fn labelled_images<T: Scalar>(
    images: impl AsRef<Path>,
    labels: impl AsRef<Path>,
    classes: usize,
) -> Result<Dataset<T>> {
    let (images, labels) = (images.as_ref(), labels.as_ref());
    // Both headers come before the data of either.
    let (y, x) = (header(labels, "labels", 1)?, header(images, "images", 3)?);
    let [n, h, w] = x.shape[..] else { unreachable!("there are three axes") };
    if y.shape[0] != n {
        return Err(Error::format(format!(
            "{}: idx header: labels: expected {n}, one for each image of {}, got {}",
            labels.display(),
            images.display(),
            y.shape[0]
        )));
    }
    let (y, x) = (y.finish()?, x.finish()?);
    let (_, _, pixels) = x.into_parts();
    let x = Bytes::new([n, 1, h, w], pixels, |v| T::from_f64(f64::from(v) / 255.0))?;
    let y: Vec<usize> = y.bytes().iter().map(|&c| c.into()).collect();
    Dataset::classification(x, y, classes)
}

/// The header of an idx file of bytes with the given number of axes.
fn header(path: &Path, what: &str, rank: usize) -> Result<Header<'static>> {
    let header = Header::open(path)?;
    let fail = |text| Err(Error::format(format!("{}: idx {text}", path.display())));
    if header.kind != Kind::U8 {
        return fail(format!("type: {what}: expected U8, got {:?}", header.kind));
    }
    if header.shape.len() != rank {
        return fail(format!("rank: {what}: expected {rank} axes, got {}", header.shape));
    }
    Ok(header)
}

fn find(dir: &Path, name: &str) -> Result<PathBuf> {
    let plain = dir.join(name);
    let compressed = dir.join(format!("{name}.gz"));
    if plain.is_file() {
        Ok(plain)
    } else if compressed.is_file() {
        Ok(compressed)
    } else {
        let text = "no such file; the four MNIST files are at https://ossci-datasets.s3.amazonaws.com/mnist/";
        let missing = io::Error::new(io::ErrorKind::NotFound, text);
        Err(Error::io(missing, format!("open {} or {name}.gz", plain.display())))
    }
}
