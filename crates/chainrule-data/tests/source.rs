//! Sources of every kind, through a loader.

use chainrule_data::{
    Batch, Dataset, Error, Loader, Pick, Result, Sample, SampleTarget, Schema, Source, Stream, TargetSchema,
    Targets, samples,
};
use chainrule_tensor::Tensor;

/// x = position, with a class, values and a sequence of i % 3 indices.
fn everything() -> Schema {
    Schema::new([[2]], [TargetSchema::classes(3), TargetSchema::values([1]), TargetSchema::sequences(9)])
}

fn sample(i: usize) -> Sample {
    Sample {
        inputs: vec![Tensor::from([i as f32, 0.5])],
        targets: vec![
            SampleTarget::Class(i % 3),
            SampleTarget::Values(Tensor::from([i as f32])),
            SampleTarget::Classes(vec![i % 9; i % 3]),
        ],
    }
}

fn stream(n: usize) -> impl Source {
    Stream::new(everything(), move |epoch| (0..n).map(move |i| Ok(sample(i + 100 * epoch as usize))))
}

fn batches<S: Source>(loader: &mut Loader<S>) -> Vec<Batch> {
    loader.into_iter().map(Result::unwrap).collect()
}

#[test]
fn a_stream_ends_each_epoch_with_a_short_batch() {
    let mut loader = Loader::new(stream(10), 4).unwrap();
    assert_eq!((loader.batches(), loader.samples(), loader.order().len()), (None, None, 0));
    let first = batches(&mut loader);
    assert_eq!(first.iter().map(Batch::len).collect::<Vec<_>>(), [4, 4, 2]);
    assert_eq!(first[2].x(), &Tensor::from([[8.0, 0.5], [9.0, 0.5]]));
    assert_eq!(first[2].targets[0], Targets::classes([2, 0]));
    assert_eq!(first[2].targets[1], Targets::Values(Tensor::from([[8.0], [9.0]])));
    assert_eq!(
        first[1].targets[2],
        Targets::Sequences { indices: vec![4, 5, 5, 7], lengths: vec![1, 2, 0, 1] }
    );
    let second = batches(&mut loader);
    assert_eq!((second.len(), second[0].x().data()[0]), (3, 100.0));
    let mut loader = loader.drop_last(true);
    loader.start_epoch(0);
    assert_eq!(batches(&mut loader), first[..2]);
    // One that ends with a batch has no empty one after it.
    assert_eq!(batches(&mut Loader::new(stream(8), 4).unwrap()).len(), 2);
    assert_eq!(batches(&mut Loader::new(stream(0), 4).unwrap()).len(), 0);
}

#[test]
fn a_stream_reuses_its_buffers() {
    let mut loader = Loader::new(stream(10), 4).unwrap();
    let place = |b: &Batch| (b.x().data().as_ptr(), b.targets.len());
    let first = place(loader.next_batch().unwrap().unwrap());
    for _ in 0..3 {
        while let Some(batch) = loader.next_batch().unwrap() {
            assert_eq!(place(batch), first);
        }
    }
}

#[test]
fn samples_that_are_not_as_the_schema_says_are_errors() {
    let fails = |change: fn(&mut Sample)| {
        let stream = Stream::new(everything(), move |_| {
            let mut wrong = sample(5);
            change(&mut wrong);
            [Ok(sample(1)), Ok(wrong)].into_iter()
        });
        Loader::new(stream, 4).unwrap().next_batch().unwrap_err().to_string()
    };
    assert_eq!(
        fails(|s| s.inputs[0] = Tensor::zeros([3])),
        "stream: input 0: expected a sample [2], got [3]"
    );
    assert_eq!(
        fails(|s| s.targets[0] = SampleTarget::Class(3)),
        "stream: target 0: expected classes below 3, got 3"
    );
    assert_eq!(
        fails(|s| s.targets[0] = SampleTarget::Classes(vec![1, 1])),
        "stream: target 0: expected 1 classes of a sample, got 2"
    );
    assert_eq!(
        fails(|s| s.targets[1] = SampleTarget::Class(1)),
        "stream: target 1: expected values, got classes"
    );
    assert_eq!(
        fails(|s| s.targets[2] = SampleTarget::Values(Tensor::zeros([1]))),
        "stream: target 2: expected classes, got values"
    );
    assert_eq!(
        fails(|s| s.inputs.clear()),
        "stream: expected a sample of 1 inputs and 3 targets, got 0 and 3"
    );
    let failing =
        Stream::new(everything(), |_| [Err::<Sample, _>(Error::value("the wire was cut"))].into_iter());
    let mut loader = Loader::new(failing, 4).unwrap();
    assert_eq!(loader.next_batch().unwrap_err().to_string(), "the wire was cut");
    loader.start_epoch(0);
    assert!(loader.into_iter().next().unwrap().is_err());
}

#[test]
fn a_pick_of_the_other_kind_is_an_error() {
    let mut batch = Batch::default();
    assert!(stream(3).fill(Pick::At(&[0]), &mut batch).is_err());
    assert!(Source::<f32>::fill(&mut &samples::iris(), Pick::Next(2), &mut batch).is_err());
    assert!(Source::<f32>::fill(&mut samples::iris(), Pick::At(&[150]), &mut batch).is_err());
}

#[test]
fn a_mapped_source_may_change_the_shape_if_it_says_so() {
    let digits = samples::digits::<f32>();
    let flat = |batch: &mut Batch| {
        let n = batch.len();
        batch.inputs[0].reshape([n, 64])
    };
    let text = Loader::new((&digits).map(flat), 4).unwrap().next_batch().unwrap_err().to_string();
    assert_eq!(text, "source: input 0: expected 4 samples of shape [1, 8, 8], got [4, 64]");
    let schema = Schema { inputs: vec![[64].into()], ..Source::<f32>::schema(&digits).clone() };
    let mut loader = Loader::new((&digits).map(flat).with_schema(schema), 4).unwrap();
    let batch = loader.next_batch().unwrap().unwrap();
    assert_eq!(batch.x().data(), &digits.x().data()[..256]);
    assert_eq!(loader.batches(), Some(450));
    let broken = (&digits).map(|_: &mut Batch| Err(Error::value("no")));
    assert_eq!(Loader::new(broken, 4).unwrap().next_batch().unwrap_err().to_string(), "no");
}

#[test]
fn noise_belongs_to_seed_epoch_and_sample() {
    let data =
        Dataset::<f64>::regression(Tensor::zeros([12, 3]), Tensor::from_fn([12], |i| i as f64)).unwrap();
    let seen = |seed, size, epoch, shuffled: bool| {
        let noisy = (&data).augment(seed, |batch, i, rng| {
            batch.sample_mut(0, i).iter_mut().for_each(|v| *v += rng.normal());
            Ok(())
        });
        let mut loader = Loader::new(noisy, size).unwrap();
        if shuffled {
            loader = loader.shuffle(1);
        }
        loader.start_epoch(epoch);
        let mut rows = vec![Vec::new(); 12];
        while let Some(batch) = loader.next_batch().unwrap() {
            let Targets::Values(t) = batch.target() else { unreachable!() };
            for (x, &t) in batch.x().data().chunks(3).zip(t.data()) {
                rows[t as usize] = x.to_vec();
            }
        }
        rows
    };
    let first = seen(1, 4, 0, false);
    assert_eq!(seen(1, 5, 0, true), first);
    assert_ne!(seen(1, 4, 1, false), first);
    assert_ne!(seen(2, 4, 0, false), first);
    assert!(first.windows(2).all(|w| w[0] != w[1]));
}

#[test]
fn the_noise_of_a_stream_counts_its_samples() {
    let seen = |size| {
        let mut noisy = Loader::new(
            stream(10).augment(1, |batch: &mut Batch, i, rng| {
                batch.sample_mut(0, i)[1] = rng.uniform() as f32;
                Ok(())
            }),
            size,
        )
        .unwrap();
        batches(&mut noisy).iter().flat_map(|b| b.x().data().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(seen(3), seen(10));
}

/// The numbers below `self.0`, sorted by their last digit in each pool of two batches.
struct ByLastDigit(usize, Schema);

impl Source for ByLastDigit {
    fn samples(&self) -> Option<usize> {
        Some(self.0)
    }
    fn schema(&self) -> &Schema {
        &self.1
    }
    fn shapes_vary(&self) -> bool {
        true
    }
    fn arrange(&self, order: &mut [usize], batch_size: usize, rng: &mut chainrule_tensor::Rng) {
        rng.bits();
        order.chunks_mut(2 * batch_size).for_each(|pool| pool.sort_by_key(|number| number % 10));
    }
    fn fill(&mut self, pick: Pick<'_>, batch: &mut Batch) -> Result<usize> {
        let positions = pick.positions()?;
        // As wide as the batch.
        self.1 = Schema::new([[positions.len()]], []);
        batch.reset(&self.1, positions.len())?;
        for (i, &position) in positions.iter().enumerate() {
            batch.sample_mut(0, i).fill(position as f32);
        }
        Ok(positions.len())
    }
}

#[test]
fn a_source_arranges_what_was_shuffled_through_any_wrapper() {
    let source = || ByLastDigit(25, Schema::new([[4]], []));
    let plain = Loader::new(source(), 4).unwrap();
    assert_eq!(plain.order(), (0..25).collect::<Vec<_>>());
    let mut loader = plain.shuffle(3);
    let order = loader.order().to_vec();
    assert!(order.chunks(8).all(|pool| pool.is_sorted_by_key(|number| number % 10)));
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..25).collect::<Vec<_>>());
    let seen: Vec<f32> =
        batches(&mut loader).iter().flat_map(|b| b.x().data().chunks(b.len()).map(|x| x[0])).collect();
    assert!(seen.iter().zip(&order).all(|(&x, &position)| x as usize == position));
    loader.start_epoch(1);
    assert_ne!(loader.order(), order);
    loader.start_epoch(0);
    assert_eq!(loader.order(), order);
    let wrapped: Box<dyn Source> = Box::new(source().map(|_| Ok(())).augment(1, |_, _, _| Ok(())));
    assert!(wrapped.shapes_vary());
    assert_eq!(Loader::new(wrapped, 4).unwrap().shuffle(3).order(), order);
}
