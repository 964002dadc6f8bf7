//! Against the `tokenizers` library: `data/make.py` made the files and the ids. And against files from strangers.

use chainrule_text::{Bpe, BpeTrainer, Bytes, Chars, Tokenizer, Words, WordsTrainer, from_json};
use proptest::prelude::*;
use serde_json::{Value, json};

const BPE: &str = include_str!("data/bpe.json");
const WORDS: &str = include_str!("data/words.json");
const CHARS: &str = include_str!("data/chars.json");

fn expected() -> Value {
    serde_json::from_str(include_str!("data/expected.json")).unwrap()
}

/// Every text of the cases gives the ids and the text of `tokenizers`, also after the file was written and read again.
fn check(name: &str, json: &str) {
    let first = from_json(json).unwrap();
    let again = from_json(&first.to_json().unwrap()).unwrap();
    for tokenizer in [first, again] {
        for case in expected()[name].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids: Vec<u32> =
                case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
            assert_eq!(tokenizer.encode(text).unwrap(), ids, "{name}: {text:?}");
            assert_eq!(
                tokenizer.decode(&ids).unwrap(),
                case["decoded"].as_str().unwrap(),
                "{name}: {text:?}"
            );
        }
    }
}

#[test]
fn byte_pair_encoding_gives_the_ids_of_tokenizers() {
    check("bpe", BPE);
    check("bpe_old", include_str!("data/bpe_old.json"));
    check("bpe_unknown", include_str!("data/bpe_unknown.json"));
    check("bpe_fused", include_str!("data/bpe_fused.json"));
}

#[test]
fn words_and_characters_give_the_ids_of_tokenizers() {
    check("words", WORDS);
    check("chars", CHARS);
}

#[test]
fn training_learns_the_merges_of_tokenizers() {
    let text = expected()["training"].as_str().unwrap().to_owned();
    let trained = BpeTrainer::new(420).special(["<|end|>"]).train([&text]).unwrap();
    let (ours, theirs): (Value, Value) =
        (serde_json::from_str(&trained.to_json().unwrap()).unwrap(), serde_json::from_str(BPE).unwrap());
    assert_eq!(ours, theirs);
    // In two parts it is the same.
    let (a, b) = text.split_at(text.find("\n").unwrap() + 1);
    let parts = BpeTrainer::new(420).special(["<|end|>"]).train([a, b]).unwrap();
    assert_eq!(parts.merges(), trained.merges());
}

#[test]
fn words_are_counted_as_tokenizers_counts_them() {
    let text = expected()["training"].as_str().unwrap().to_owned();
    let trainer = WordsTrainer::new().special(["<|end|>"]).lowercase(true).min_count(2).max_size(60);
    let words = trainer.train([text]).unwrap();
    let theirs = Words::from_json(WORDS).unwrap();
    let sorted = |words: &Words| {
        let mut tokens: Vec<_> =
            (0..words.vocab_size()).map(|id| words.token(id as u32).unwrap().into_owned()).collect();
        tokens.sort();
        tokens
    };
    assert_eq!(sorted(&words), sorted(&theirs));
}

#[test]
fn a_file_gives_the_kind_that_it_holds() {
    let text = "some text, some words";
    let chars = Chars::fit(text).unwrap().unknown("<unk>").unwrap().special(["<s>", "</s>"]).unwrap();
    let bytes = Bytes::new().special(["<s>"]).unwrap();
    let words = WordsTrainer::new().special(["<s>"]).punctuation(false).train([text]).unwrap();
    let bpe = BpeTrainer::new(262).words(false).train([text]).unwrap();
    let all: [&dyn Tokenizer; 4] = [&chars, &bytes, &words, &bpe];
    for tokenizer in all {
        let json = tokenizer.to_json().unwrap();
        let again = from_json(&json).unwrap();
        assert_eq!(again.to_json().unwrap(), json);
        assert_eq!(again.vocab_size(), tokenizer.vocab_size());
        for id in 0..tokenizer.vocab_size() as u32 {
            let token = again.token(id).unwrap().into_owned();
            assert_eq!((Some(&*token), again.id(&token)), (tokenizer.token(id).as_deref(), Some(id)));
            assert_eq!(again.is_special(id), tokenizer.is_special(id));
            let id_of_f32 = id as f32;
            assert_eq!(id_of_f32 as u32, id);
        }
        let beyond = tokenizer.vocab_size() as u32;
        assert!(tokenizer.token(beyond).is_none() && tokenizer.decode(&[beyond]).is_err());
        assert!(tokenizer.decode(&[u32::MAX]).is_err());
        let text = "some <s>text";
        assert_eq!(again.encode(text).unwrap(), tokenizer.encode(text).unwrap());
    }
    let json = all.map(|tokenizer| tokenizer.to_json().unwrap());
    for (i, json) in json.iter().enumerate() {
        let kinds = [
            Chars::from_json(json).is_ok(),
            Bytes::from_json(json).is_ok(),
            Words::from_json(json).is_ok(),
            Bpe::from_json(json).is_ok(),
        ];
        // Bytes are a byte-pair encoding without merges.
        let fits: Vec<bool> = (0..4).map(|kind| kind == i || (kind == 3 && i == 1)).collect();
        assert_eq!(kinds[..], fits, "{json}");
    }
    assert_eq!(bytes.encode("é<s>").unwrap(), [195, 169, 256]);
}

#[test]
fn the_lengths_of_the_tokens_of_a_text_sum_to_its_characters() {
    let text = "we'll — naïve café, 中文 🙂\n the end";
    for tokenizer in [from_json(BPE).unwrap(), Box::new(Bytes::new()), Box::new(Chars::fit(text).unwrap())] {
        let lengths = tokenizer.lengths().unwrap();
        let sum: usize = tokenizer.encode(text).unwrap().iter().map(|&id| lengths[id as usize]).sum();
        assert_eq!((sum, lengths.len()), (text.chars().count(), tokenizer.vocab_size()));
    }
    assert_eq!(from_json(BPE).unwrap().lengths().unwrap()[0], 0);
}

#[test]
fn a_text_of_strangers_has_no_special_tokens() {
    let bpe = Bpe::from_json(BPE).unwrap();
    let text = "the<|end|>";
    assert!(bpe.encode(text).unwrap().contains(&0) && bpe.is_special(0));
    let ids = bpe.encode_ordinary(text).unwrap();
    assert!(!ids.contains(&0));
    assert_eq!(bpe.decode(&ids).unwrap(), text);
}

fn refused(json: &str) -> String {
    let Err(error) = from_json(json) else { panic!("expected an error: {}", &json[..json.len().min(200)]) };
    let text = error.to_string();
    assert!(text.len() < 40_000 && !text.contains(char::is_control), "{text}");
    text
}

/// A file with one thing changed, at a path of keys.
fn with(json: &str, path: &[&str], value: Value) -> String {
    let mut file: Value = serde_json::from_str(json).unwrap();
    let (last, before) = path.split_last().unwrap();
    let mut at = &mut file;
    for key in before {
        at = &mut at[key];
    }
    at[last] = value;
    file.to_string()
}

#[test]
fn what_is_not_supported_is_named() {
    let cases = [
        (&["normalizer"][..], json!({"type": "NFC"}), "normalizer"),
        (&["normalizer"], json!({"type": "Lowercase"}), "normalizer"),
        (&["pre_tokenizer"], json!({"type": "Metaspace"}), "pre_tokenizer"),
        (&["pre_tokenizer", "more"], json!(1), "pre_tokenizer"),
        (&["pre_tokenizer", "use_regex"], json!("yes"), "use_regex"),
        (&["post_processor"], json!({"type": "TemplateProcessing"}), "post_processor"),
        (&["decoder"], json!(null), "decoder"),
        (&["truncation"], json!({"max_length": 3}), "truncation"),
        (&["padding"], json!({}), "padding"),
        (&["model", "type"], json!("Unigram"), "Unigram"),
        (&["model", "type"], json!(3), "model type"),
        (&["model", "dropout"], json!(0.1), "dropout"),
        (&["model", "byte_fallback"], json!(true), "byte_fallback"),
        (&["model", "continuing_subword_prefix"], json!("##"), "continuing_subword_prefix"),
        (&["model", "end_of_word_suffix"], json!("</w>"), "end_of_word_suffix"),
        (&["model", "unk_token"], json!("<unk>"), "the unknown token `<unk>`"),
        (&["model", "unk_token"], json!(4), "unk_token"),
        (&["model", "other"], json!(4), "unexpected `other` of the model"),
        (&["other"], json!(4), "unexpected `other`"),
        (&["model", "vocab"], json!([["a", 0.5]]), "an object of tokens and ids"),
        (&["model", "vocab", "Ġt"], json!(1 << 30), "at most 2097152 tokens"),
        (&["model", "vocab", "Ġt"], json!(-1), "integer"),
        (&["model", "vocab", "Ġt"], json!(3), "expected the ids 0 to 413, each once, got 3"),
        (&["model", "vocab"], json!({}), "the merged token"),
        (&["model", "merges"], json!([["a", "b", "c"]]), "a merge of two tokens"),
        (&["model", "merges"], json!([["a"]]), "a merge of two tokens"),
        (&["model", "merges"], json!(["ab"]), "a merge of two tokens, got `ab`"),
        (&["model", "merges"], json!(["a b c"]), "a merge of two tokens"),
        (&["model", "merges"], json!([3]), "a merge"),
        (&["model", "merges"], json!([["z", "z"]]), "the merged token `zz`"),
        (&["model", "merges"], json!([["Ġ", "n"], "Ġ n"]), "each merge once, got `Ġ` `n` twice"),
        (&["added_tokens"], json!([{"id": 1, "content": "<|end|>"}]), "one id of `<|end|>`, got 0 and 1"),
        (&["added_tokens"], json!([{"id": 413, "content": ""}]), "special tokens of 1 to 256 bytes"),
        (
            &["added_tokens"],
            json!([{"id": 413, "content": "a".repeat(300)}]),
            "special tokens of 1 to 256 bytes",
        ),
        (
            &["added_tokens"],
            json!([{"id": 0, "content": "<|end|>", "lstrip": true}]),
            "`lstrip` of an added token",
        ),
        (
            &["added_tokens"],
            json!([{"id": 0, "content": "<|end|>"}, {"id": 0, "content": "<|end|>"}]),
            "twice",
        ),
        (&["added_tokens"], json!([{"id": -1, "content": "a"}]), "added token"),
        (&["added_tokens"], json!([3]), "added token"),
        (&["added_tokens"], json!({}), "added_tokens"),
        (&["model"], json!(null), "a model"),
    ];
    for (path, value, named) in cases {
        let text = refused(&with(BPE, path, value.clone()));
        assert!(text.contains(named), "{path:?} {value}: {text}");
    }
    assert!(refused("{}").contains("expected a `model`"));
    assert!(
        refused(r#"{"model":{"type":"BPE"}}"#).contains("decoder") && refused("[]").contains("an object")
    );
    assert!(refused(r#"{"version":"1.0","version":"1.0"}"#).contains("got `version` twice"));
    let twice = BPE.replacen(r#""vocab":{"#, r#""vocab":{"<|end|>":0,"#, 1);
    assert!(refused(&twice).contains("ids") || refused(&twice).contains("twice"));
    for (path, value) in [(&["pre_tokenizer"][..], json!(null)), (&["model", "merges"], json!(["a b"]))] {
        refused(&with(WORDS, path, value));
    }
    refused(&with(CHARS, &["model", "vocab", "<unk>"], json!(1)));
    refused(&with(CHARS, &["model", "vocab"], json!({"ab": 0, "<unk>": 1})));
}

#[test]
fn a_file_that_is_cut_deep_or_large_is_an_error() {
    for json in [BPE, WORDS, CHARS] {
        for (n, _) in json.char_indices().step_by(37) {
            refused(&json[..n]);
        }
        refused(&format!("{json}x"));
    }
    refused(&"[".repeat(100_000));
    refused(&r#"{"normalizer":"#.repeat(100_000));
    refused(&with(BPE, &["normalizer"], json!("a".repeat(1 << 20))));
    let many = format!(r#"{{"added_tokens":[{}0]}}"#, "0,".repeat(1 << 19));
    assert!(refused(&many).contains("at most 262144 values"));
    let long = format!(r#"{{"model":{}"#, " ".repeat(64 << 20));
    assert!(refused(&long).contains("expected at most 67108864 bytes"));
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let missing = std::env::temp_dir().join("chainrule-text-not-there.json");
    assert!(chainrule_text::load(&missing).is_err() && Bpe::load(&missing).is_err());
    assert!(chainrule_text::load(std::env::temp_dir()).is_err());
    let path = std::env::temp_dir().join(format!("chainrule-text-latin-{}.json", std::process::id()));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    let Err(error) = chainrule_text::load(&path) else { panic!("expected an error") };
    assert!(error.to_string().contains("expected UTF-8"));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_byte_without_a_token_is_an_error_where_there_is_no_unknown_one() {
    let chars = Chars::fit("ab").unwrap();
    assert!(chars.encode("abZ").unwrap_err().to_string().contains("the character `Z` has no token"));
    let small = json!({"decoder": {"type": "ByteLevel"}, "pre_tokenizer": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}});
    let bpe = from_json(&small.to_string()).unwrap();
    let error = bpe.encode("ab").unwrap_err().to_string();
    assert_eq!(error, "Bpe: the byte 0x20 has no token, and there is no unknown one"); // the space before the text
}

proptest! {
    #[test]
    fn decoding_gives_the_text_back(text in "\\PC{0,40}|[ab \n'<|end>]{0,40}") {
        for tokenizer in [from_json(BPE).unwrap(), Box::new(Bytes::new())] {
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text.as_str());
        }
        if !text.is_empty() {
            let chars = Chars::fit(&text).unwrap();
            prop_assert_eq!(chars.decode(&chars.encode(&text).unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn damage_is_an_error_or_a_tokenizer_that_works(at in 0usize..7000, byte: u8) {
        let mut bytes = BPE.as_bytes().to_vec();
        let n = bytes.len();
        bytes[at % n] = byte;
        if let Ok(json) = String::from_utf8(bytes)
            && let Ok(tokenizer) = from_json(&json)
            && let Ok(ids) = tokenizer.encode("the lowest rivers, naïve")
        {
            tokenizer.decode(&ids).unwrap();
        }
    }
}
