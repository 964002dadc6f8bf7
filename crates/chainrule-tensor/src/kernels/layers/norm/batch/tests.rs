use super::*;

fn values(n: usize, seed: usize) -> Vec<f64> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729 + 13) % 31) as f64 * 0.25 - 3.0).collect()
}

fn close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() < 1e-12 * b.abs().max(1.0), "{a} {b}"));
}

/// The plain loops that the kernels are compared with.
#[test]
fn all_sizes_agree_with_the_naive_loop() {
    for (n, c, l) in [(1, 1, 2), (4, 300, 1), (300, 3, 1), (3, 5, 7), (2, 3, 16), (5, 2, 49), (9, 7, 1030)] {
        let sizes = Channels { n, c, l };
        let (x, dy) = (values(n * c * l, 1), values(n * c * l, 2));
        let (w, b) = (values(c, 3), values(c, 4));
        let affine = Affine { weight: Some(&w), bias: Some(&b) };
        let zeros = vec![0.0; c];
        let mut mean = vec![[0.0; 2]; c];
        let [mut var, mut rstd, mut dw, mut db] = std::array::from_fn(|_| zeros.clone());
        let [mut y, mut dx, mut y_again, mut dx_fixed] = std::array::from_fn(|_| vec![f64::NAN; x.len()]);
        batch_norm(&x, &mut y, sizes, 1e-5, affine, &mut mean, [&mut var, &mut rstd]);
        let given = (&mean[..], &rstd[..]);
        normalize_channels(&x, &mut y_again, sizes, given, affine);
        assert_eq!(y, y_again);
        for (through, dx) in [(false, &mut dx_fixed), (true, &mut dx)] {
            batch_norm_gradient((&x, &dy), sizes, given, Some(&w), through, [&mut dw, &mut db], Some(dx));
        }
        for ch in 0..c {
            let at: Vec<usize> = (0..n * l).map(|i| (i / l * c + ch) * l + i % l).collect();
            let count = at.len() as f64;
            let mu = at.iter().map(|&i| x[i]).sum::<f64>() / count;
            let sigma2 = at.iter().map(|&i| (x[i] - mu).powi(2)).sum::<f64>() / count;
            let rho = 1.0 / (sigma2 + 1e-5).sqrt();
            close(&[mean[ch][0], var[ch], rstd[ch]], &[mu, sigma2, rho]);
            let x_hat = |i: usize| (x[i] - mu) * rho;
            let (sum, dot) = at.iter().fold((0.0, 0.0), |(s, d), &i| (s + dy[i], d + dy[i] * x_hat(i)));
            close(&[dw[ch], db[ch]], &[dot, sum]);
            for &i in &at {
                close(&[y[i]], &[x_hat(i) * w[ch] + b[ch]]);
                close(&[dx_fixed[i]], &[w[ch] * rho * dy[i]]);
                close(&[dx[i]], &[w[ch] * rho * (dy[i] - sum / count - x_hat(i) * dot / count)]);
            }
        }
    }
}

#[test]
fn the_variance_of_large_values_keeps_its_digits() {
    let sizes = Channels { n: 256, c: 2, l: 64 };
    // 10,000 and 10,001 alternate: the variance is 1/4.
    let x: Vec<f32> = (0..sizes.volume()).map(|i| 1e4 + (i % 2) as f32).collect();
    let (mut y, mut mean, [mut var, mut rstd]) = (vec![0.0; x.len()], [[0.0; 2]; 2], [[0.0; 2]; 2]);
    let none = Affine { weight: None, bias: None };
    batch_norm(&x, &mut y, sizes, 1e-5, none, &mut mean, [&mut var, &mut rstd]);
    assert!(var.iter().all(|v| (v - 0.25).abs() < 1e-4), "{mean:?} {var:?}");
}

#[test]
fn a_first_image_far_from_the_others_costs_no_bits() {
    for l in [1, 64] {
        let sizes = Channels { n: 4000, c: 3, l };
        let x: Vec<f32> = (0..sizes.volume())
            .map(|i| (i * 37 % 101) as f32 * 0.01 + if i < 3 * l { 300.0 } else { 250.0 })
            .collect();
        let (mut mean, [mut var, mut rstd]) = ([[0.0f32; 2]; 3], [[0.0f32; 3]; 2]);
        let mut y = vec![0.0; x.len()];
        let affine = Affine { weight: None, bias: None };
        batch_norm(&x, &mut y, sizes, 1e-5, affine, &mut mean, [&mut var, &mut rstd]);
        for c in 0..3 {
            let of_channel =
                || x.iter().enumerate().filter(move |(i, _)| i / l % 3 == c).map(|(_, &v)| f64::from(v));
            let mu = of_channel().sum::<f64>() / sizes.count() as f64;
            let want = of_channel().map(|v| (v - mu) * (v - mu)).sum::<f64>() / sizes.count() as f64;
            assert!((f64::from(mean[c][0]) - mu).abs() < 1e-4, "{} for {mu}", mean[c][0]);
            assert!((f64::from(var[c]) - want).abs() < 1e-5 * want, "{} for {want}", var[c]);
        }
    }
}
