//! What this machine can do, for the figures to be read against.

use chainrule::tensor::{kernels::layers::limits, par};

/// Prints the peak of f32 multiply-adds in a thread, and the speed of copies of several sizes with all threads.
pub fn print() {
    let flops = (0..2000).map(|_| limits::flops()).fold(0.0, f64::max);
    println!(
        "{{\"peer\":\"machine\",\"limit\":\"multiply_add\",\"threads\":1,\"gflops\":{:.1}}}",
        flops / 1e9
    );
    for kilobytes in [16, 256, 1024, 4096, 16_384, 131_072] {
        // Half is read, half is written.
        let (from, mut to) = (vec![1.0f32; kilobytes * 128], vec![0.0f32; kilobytes * 128]);
        let runs = (1 << 20) / kilobytes;
        let mut speeds: Vec<f64> = (0..runs.max(20)).map(|_| limits::copy_speed(&from, &mut to)).collect();
        speeds.sort_by(f64::total_cmp);
        println!(
            "{{\"peer\":\"machine\",\"limit\":\"copy_{kilobytes}_kb\",\"threads\":{},\"gigabytes_per_second\":{:.2}}}",
            par::threads(),
            speeds[speeds.len() / 2] / 1e9
        );
    }
}
