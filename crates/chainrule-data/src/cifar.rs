//! CIFAR-10 and CIFAR-100: small colour images in files of records (Krizhevsky, "Learning Multiple Layers of Features from Tiny
//! Images", 2009).
//!
//! ```text
//! CIFAR-10     class           3 × 32 × 32 bytes: red, green, blue, each row-major
//! CIFAR-100    coarse  fine    3 × 32 × 32 bytes
//! ```

use crate::{Bytes, Dataset};
use chainrule_tensor::{Error, Result, Scalar};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The bytes of an image.
const PIXELS: usize = 3 * 32 * 32;

const NAMES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// What a record holds, and which of its labels is the class.
///
/// ```
/// use chainrule_data::Cifar;
/// let file = [vec![3], vec![255; 3072], vec![9], vec![0; 3072]].concat(); // a white cat and a black truck
/// let data = Cifar::Cifar10.read::<f32>(&file[..])?;
/// assert_eq!((data.len(), data.sample_shape(), data.labels()), (2, &[3, 32, 32][..], Some(&[3, 9][..])));
/// assert_eq!(data.class_name(9), "truck");
/// # Ok::<(), chainrule_data::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cifar {
    /// CIFAR-10: 10 classes.
    Cifar10,
    /// CIFAR-100 with its 100 fine classes.
    Cifar100,
    /// CIFAR-100 with its 20 coarse classes.
    Cifar100Coarse,
}

impl Cifar {
    /// The number of classes.
    pub fn classes(self) -> usize {
        match self {
            Self::Cifar10 => 10,
            Self::Cifar100 => 100,
            Self::Cifar100Coarse => 20,
        }
    }

    /// The names of the labels of a record and how many classes each has, in their order.
    fn labels(self) -> &'static [(&'static str, u8)] {
        match self {
            Self::Cifar10 => &[("class", 10)],
            Self::Cifar100 | Self::Cifar100Coarse => &[("coarse class", 20), ("fine class", 100)],
        }
    }

    /// The bytes of a record.
    fn record(self) -> usize {
        self.labels().len() + PIXELS
    }

    /// Reads the files of a folder: (training part, test part).
    ///
    /// Of CIFAR-10 `data_batch_*.bin`, as many as there are, and `test_batch.bin`; of CIFAR-100 `train.bin` and `test.bin`.
    ///
    /// # Shapes
    /// `x` (N, 3, 32, 32), byte / 255; they stay bytes, 154 MB for 50,000 images, until they are in a batch
    ///
    /// # Errors
    /// A file is missing (the text says where to get it), or as [`Cifar::open`].
    ///
    /// ```no_run
    /// use chainrule_data::Cifar;
    /// let (train, test) = Cifar::Cifar100.folder::<f32>("data/cifar-100-binary")?;
    /// # Ok::<(), chainrule_data::Error>(())
    /// ```
    pub fn folder<T: Scalar>(self, dir: impl AsRef<Path>) -> Result<(Dataset<T>, Dataset<T>)> {
        let dir = dir.as_ref();
        // All are looked for before the first is read.
        let (train, test) = match self {
            Self::Cifar10 => (batches(dir)?, find(dir, "test_batch.bin")?),
            Self::Cifar100 | Self::Cifar100Coarse => (vec![find(dir, "train.bin")?], find(dir, "test.bin")?),
        };
        Ok((self.open(&train)?, self.open(&[test])?))
    }

    /// Reads one file or several, one after the other.
    ///
    /// # Errors
    /// A file cannot be read, is empty or no whole number of records long, or a label is none of the classes. The text names
    /// the file.
    pub fn open<T: Scalar>(self, paths: &[impl AsRef<Path>]) -> Result<Dataset<T>> {
        let mut records = Records::default();
        for path in paths.iter().map(AsRef::as_ref) {
            let name = path.display().to_string();
            let file = File::open(path).map_err(|e| Error::io(e, format!("open {name}")))?;
            let size = file.metadata().ok().filter(fs::Metadata::is_file).map(|m| m.len());
            // A length that is wrong is refused before anything is read.
            if let Some(size) = size {
                self.check_length(size, &name)?;
                records.reserve((size / self.record() as u64) as usize, &name)?;
            }
            self.append(file, &name, &mut records)?;
        }
        self.dataset(records)
    }

    /// Reads records from anywhere up to the end; memory grows with what comes.
    ///
    /// # Errors
    /// As [`Cifar::open`].
    pub fn read<T: Scalar>(self, source: impl Read) -> Result<Dataset<T>> {
        let mut records = Records::default();
        self.append(source, "cifar", &mut records)?;
        self.dataset(records)
    }

    fn append(self, mut source: impl Read, name: &str, records: &mut Records) -> Result<()> {
        let (labels, begun) = (self.labels(), records.classes.len());
        // Some hundred records at a time, so that the file is never in memory beside its images.
        let mut chunk = Vec::new();
        loop {
            chunk.clear();
            let most = 256 * self.record() as u64;
            let n = source.by_ref().take(most).read_to_end(&mut chunk);
            n.map_err(|e| Error::io(e, format!("read {name}")))?;
            let done = records.classes.len() - begun;
            for (i, record) in chunk.chunks_exact(self.record()).enumerate() {
                let (given, pixels) = record.split_at(labels.len());
                for (&label, &(what, classes)) in given.iter().zip(labels) {
                    if label >= classes {
                        return Err(Error::format(format!(
                            "{name}: cifar label: expected a {what} below {classes}, got {label} in record {}",
                            done + i
                        )));
                    }
                }
                let class = if self == Self::Cifar100Coarse { given[0] } else { given[given.len() - 1] };
                records.classes.push(class.into());
                records.pixels.extend_from_slice(pixels);
            }
            if chunk.len() as u64 != most {
                let whole = (records.classes.len() - begun) * self.record();
                return self.check_length((whole + chunk.len() % self.record()) as u64, name);
            }
        }
    }

    fn check_length(self, bytes: u64, name: &str) -> Result<()> {
        let record = self.record() as u64;
        if bytes > 0 && bytes.is_multiple_of(record) {
            return Ok(());
        }
        Err(Error::format(format!(
            "{name}: cifar length: expected one or more records of {record} bytes, got {bytes} bytes"
        )))
    }

    fn dataset<T: Scalar>(self, Records { classes, pixels }: Records) -> Result<Dataset<T>> {
        let x = Bytes::new([classes.len(), 3, 32, 32], pixels, |v| T::from_f64(f64::from(v) / 255.0))?;
        let data = Dataset::classification(x, classes, self.classes())?;
        if self == Self::Cifar10 { data.with_class_names(NAMES) } else { Ok(data) }
    }
}

/// Reads the files of CIFAR-10 from a folder: (training part, test part), as [`Cifar::folder`].
///
/// # Errors
/// As [`Cifar::folder`].
///
/// ```no_run
/// let (train, test) = chainrule_data::cifar10::<f32>("data/cifar-10-batches-bin")?;
/// # Ok::<(), chainrule_data::Error>(())
/// ```
pub fn cifar10<T: Scalar>(dir: impl AsRef<Path>) -> Result<(Dataset<T>, Dataset<T>)> {
    Cifar::Cifar10.folder(dir)
}

/// What was read.
#[derive(Default)]
struct Records {
    classes: Vec<usize>,
    pixels: Vec<u8>,
}

impl Records {
    /// Memory for that many records more, by the size that a file has.
    fn reserve(&mut self, n: usize, name: &str) -> Result<()> {
        let reserved = self.classes.try_reserve_exact(n);
        reserved.and_then(|()| self.pixels.try_reserve_exact(n.saturating_mul(PIXELS))).map_err(|_| {
            Error::format(format!("{name}: cifar length: expected records that fit in memory, got {n}"))
        })
    }
}

/// `data_batch_1.bin`, `data_batch_2.bin`, …, in the order of their numbers.
fn batches(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(|e| Error::io(e, format!("open {}", dir.display())))?;
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names
        .retain(|name| name.starts_with("data_batch_") && name.ends_with(".bin") && dir.join(name).is_file());
    names.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    match names.is_empty() {
        true => Err(missing(&dir.join("data_batch_1.bin"))),
        false => Ok(names.iter().map(|name| dir.join(name)).collect()),
    }
}

fn find(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    if path.is_file() { Ok(path) } else { Err(missing(&path)) }
}

fn missing(path: &Path) -> Error {
    let text =
        "no such file; the binary versions of CIFAR are at https://www.cs.toronto.edu/~kriz/cifar.html";
    Error::io(io::Error::new(io::ErrorKind::NotFound, text), format!("open {}", path.display()))
}
