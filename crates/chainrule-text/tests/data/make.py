"""Makes the files beside it with the `tokenizers` library 0.23: a vocabulary that it trained, and ids that it gives.

pip install tokenizers==0.23.3; python3 make.py
"""

import json
import random

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

# A text of our own: words that repeat, in several scripts, with white space of all kinds.
random.seed(1)
STEMS = "the low new wide old river mountain light night we they it house under over naïve café жук река 中文 日本 éa".split()
ENDS = ["", "", "er", "est", "ly", "'s", "'ll", "n't", ",", ".", "!", " 12", " 345", "-", "…", "ⅷ", "\u093f", "\n", "  ", "\t"]
TEXT = " ".join(random.choice(STEMS) + random.choice(ENDS) for _ in range(900))

CASES = [
    "",
    " ",
    "the lowest of the rivers",
    "  two  spaces   and\n\nlines \n at the end \n",
    "we'll they've IT'S don't 'quoted' ''' 's",
    "naïve café — жуки реки, 中文日本 ⅷ ²³½ \u093f\u0301 🄰 ⓐ 🙂🙂",
    "tab\there\u00a0no-break\u2003em\u3000wide \u2028line",
    "<|end|>the<|end|><|end|> end<|en|>",
    "x" * 50 + " " * 20 + "1" * 30,
    "\u0000\u007f\u0080\u00ad\ufeff control",
    TEXT[:400],
]


def cases(tokenizer):
    out = []
    for text in CASES:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        out.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)})
    return out


def byte_level(**settings):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**settings)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        min_frequency=2,
        special_tokens=[AddedToken("<|end|>", special=True, normalized=False)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


bpe = byte_level(add_prefix_space=False)
bpe.save("bpe.json", pretty=False)

# The merges as older files have them, and a space before each text.
old = json.loads(bpe.to_str())
old["model"]["merges"] = [" ".join(pair) for pair in old["model"]["merges"]]
del old["model"]["type"]
old["pre_tokenizer"]["add_prefix_space"] = True
open("bpe_old.json", "w").write(json.dumps(old, ensure_ascii=False))

# Without the bytes of other scripts, which are then unknown.
small = json.loads(bpe.to_str())
model = small["model"]
kept = {token for token in model["vocab"] if all(ord(c) < 127 or c == "Ġ" for c in token)} | {"<|end|>"}
order = ["<|end|>", "<unk>"] + [token for token in model["vocab"] if token in kept and token != "<|end|>"]
model["vocab"] = {token: i for i, token in enumerate(order)}
model["merges"] = [pair for pair in model["merges"] if "".join(pair) in kept]
model["unk_token"] = "<unk>"
model["ignore_merges"] = True
open("bpe_unknown.json", "w").write(json.dumps(small, ensure_ascii=False))
small["model"]["fuse_unk"] = True
open("bpe_fused.json", "w").write(json.dumps(small, ensure_ascii=False))

words = Tokenizer(models.WordLevel(unk_token="<unk>"))
words.normalizer = normalizers.Lowercase()
split = pre_tokenizers.Split(__import__("tokenizers").Regex(r"[!-/:-@\[-`{-~]"), "isolated")
words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), split])
trainer = trainers.WordLevelTrainer(
    vocab_size=60, min_frequency=2, show_progress=False,
    special_tokens=[AddedToken("<|end|>", special=True, normalized=False), "<unk>"],
)
words.train_from_iterator([TEXT], trainer)
file = json.loads(words.to_str())
file["added_tokens"] = [token for token in file["added_tokens"] if token["content"] != "<unk>"]
open("words.json", "w").write(json.dumps(file, ensure_ascii=False))

chars = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(["<unk>"] + sorted(set(TEXT)))}, merges=[], unk_token="<unk>"))
chars.decoder = decoders.Fuse()
chars.save("chars.json", pretty=False)

expected = {"training": TEXT}
for name in ["bpe", "bpe_old", "bpe_unknown", "bpe_fused", "words", "chars"]:
    expected[name] = cases(Tokenizer.from_file(name + ".json"))
open("expected.json", "w").write(json.dumps(expected, ensure_ascii=False))
