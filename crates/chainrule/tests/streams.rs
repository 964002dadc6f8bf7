//! A stream that is saved goes on in another process with the same bits.

use chainrule::{
    io::{load_model, restore_stream, save_model, stream_to_bytes},
    models::{CharLstm, Gpt},
    prelude::*,
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const FOLDER: &str = "CHAINRULE_TEST_STREAM_FOLDER";
const VOCABULARY: usize = 11;
const LENGTH: usize = 48;

/// The tokens of two rows from one step to another.
fn text(from: usize, to: usize) -> Tensor {
    let token = |row: usize, t: usize| ((t * t + 3 * row + t) % VOCABULARY) as f32;
    let tokens = (0..2).flat_map(|row| (from..to).map(move |t| token(row, t)));
    Tensor::from_vec([2, to - from], tokens.collect()).unwrap()
}

fn char_lstm() -> Sequential {
    CharLstm { layers: 2, dropout: 0.2, ..CharLstm::new(VOCABULARY, 24) }.build().init(3).unwrap()
}

fn gpt() -> impl Module<T = f32> + Clone {
    Gpt { layers: 2, ..Gpt::new(VOCABULARY, LENGTH, 16, 4) }.build::<f32>().init(4).unwrap()
}

/// The logits from a step on, of a stream that was saved there.
fn go_on(model: &impl Module<T = f32>, bytes: &[u8], from: usize) -> Vec<u8> {
    let mut session = Session::new(model);
    restore_stream(&mut session, bytes).unwrap();
    let mut out = Vec::new();
    for cut in [from..from + 1, from + 1..LENGTH] {
        let y = session.stream(&text(cut.start, cut.end)).unwrap();
        y.data().iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
    }
    out
}

/// The other process: it does nothing unless it is told where.
#[test]
fn the_program_that_goes_on() {
    let Ok(folder) = env::var(FOLDER) else { return };
    let folder = Path::new(&folder);
    let from = fs::read_to_string(folder.join("from")).unwrap().parse().unwrap();
    let bytes = |name: &str| fs::read(folder.join(name)).unwrap();
    fs::write(folder.join("char_lstm.y"), go_on(&char_lstm(), &bytes("char_lstm"), from)).unwrap();
    fs::write(folder.join("gpt.y"), go_on(&gpt(), &bytes("gpt"), from)).unwrap();
    let model = load_model(&chainrule::registry::<f32>(), folder.join("char_lstm.safetensors")).unwrap();
    fs::write(folder.join("loaded.y"), go_on(&model, &bytes("char_lstm"), from)).unwrap();
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_stream_goes_on_in_another_process_with_the_same_bits() {
    let folder = Folder(env::temp_dir().join(format!("chainrule-stream-{}", std::process::id())));
    fs::create_dir_all(&folder.0).unwrap();
    let (lstm, gpt) = (char_lstm(), gpt());
    save_model(&lstm, folder.0.join("char_lstm.safetensors")).unwrap();
    for from in [1, 7, 40] {
        fs::write(folder.0.join("from"), from.to_string()).unwrap();
        fn saved(model: &impl Module<T = f32>, from: usize) -> (Vec<u8>, Vec<u8>) {
            let mut session = Session::new(model);
            session.stream(&text(0, from)).unwrap();
            let bytes = stream_to_bytes(&mut session).unwrap();
            // What the whole sequence gives, in the order in which the other process writes.
            let whole = session.run(&text(0, LENGTH)).unwrap();
            let row = |row: usize, t: usize| &whole.data()[(row * LENGTH + t) * VOCABULARY..][..VOCABULARY];
            let mut want = Vec::new();
            for part in [from..from + 1, from + 1..LENGTH] {
                for r in 0..2 {
                    for t in part.clone() {
                        row(r, t).iter().for_each(|v| want.extend_from_slice(&v.to_le_bytes()));
                    }
                }
            }
            (bytes, want)
        }
        let (of_lstm, want_lstm) = saved(&lstm, from);
        let (of_gpt, want_gpt) = saved(&gpt, from);
        fs::write(folder.0.join("char_lstm"), of_lstm).unwrap();
        fs::write(folder.0.join("gpt"), of_gpt).unwrap();
        let mut program = Command::new(env::current_exe().unwrap());
        let program = program.args(["--exact", "the_program_that_goes_on"]).env(FOLDER, &folder.0);
        assert!(program.output().unwrap().status.success());
        for (name, want) in [("char_lstm", &want_lstm), ("loaded", &want_lstm), ("gpt", &want_gpt)] {
            let got = fs::read(folder.0.join(format!("{name}.y"))).unwrap();
            assert!(got == *want, "{name} from step {from}");
        }
    }
}
