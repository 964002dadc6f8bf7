"""Selects a small part of a folder of reference cases, so that they can be kept with the sources.

usage: python3 select_cases.py FROM_DIR TO_DIR        (the standard library suffices)

Of each module below it takes cases one by one, each time the one that shows the most that no other has shown yet (an
argument's value, a number of axes, a mode of running) for its size, up to a number of bytes and of cases. Numbers are
copied as they are. Nothing is drawn: the same folder gives the same files.
"""

import json, os, struct, sys

MODULES = """Linear Embedding Conv2d MaxPool2d AvgPool2d AdaptiveAvgPool2d Flatten BatchNorm1d BatchNorm2d LayerNorm ReLU LeakyReLU
ELU GELU SiLU Sigmoid Tanh Softplus Softmax LogSoftmax MSELoss L1Loss HuberLoss CrossEntropyLoss BCEWithLogitsLoss""".split()
OPTIMIZERS = "SGD Adam AdamW".split()
SCHEDULES = "ConstantLR StepLR LinearLR CosineAnnealingLR WarmupCosine".split()
BYTES, CASES = 40_000, 16  # of a module


def read(path):
    data = open(path, "rb").read()
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n])
    meta = header.pop("__metadata__")
    tensors = {k: (v["dtype"], v["shape"], data[8 + n + v["data_offsets"][0] : 8 + n + v["data_offsets"][1]]) for k, v in header.items()}
    return json.loads(meta["cases"]), tensors, meta.get("torch", "")


def write(path, cases, tensors, torch):
    header, at, body = {"__metadata__": {"cases": json.dumps(cases), "torch": torch}}, 0, b""
    # The file format wants the largest alignment first.
    for k, (dtype, shape, bytes_) in sorted(tensors.items(), key=lambda kv: (kv[1][0] == "BOOL", kv[1][0] == "I32", kv[0])):
        header[k] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(bytes_)]}
        at += len(bytes_)
        body += bytes_
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + body)


def keys(v):
    """The keys of all tensors that a case points to."""
    if isinstance(v, dict):
        return [v["tensor"]] if "tensor" in v else [k for x in v.values() for k in keys(x)]
    return [k for x in v for k in keys(x)] if isinstance(v, list) else []


def shows(case, tensors):
    """What a case is an example of."""
    axes = lambda v: [(tensors[k][0], len(tensors[k][1])) for k in keys(v)]
    facts = {("training", case["training"]), ("axes", str(axes([case["inputs"], case.get("named_inputs", {})])))}
    for k, v in case["args"].items():
        facts.add((k, "tensor" if keys(v) else json.dumps(v)))
    reduction = case["args"].get("reduction")
    return facts | {(reduction, fact) for fact in facts} if reduction else facts


def select(cases, facts, size):
    chosen, seen, total, left = [], set(), 0, list(range(len(cases)))
    while left and len(chosen) < CASES:
        best = max(left, key=lambda i: (len(facts[i] - seen) / (2_000 + size[i]), -i))
        left.remove(best)
        if total + size[best] <= BYTES and (facts[best] - seen or len(chosen) < 2):
            chosen, seen, total = chosen + [best], seen | facts[best], total + size[best]
    return [cases[i] for i in sorted(chosen)]


def main(source, target):
    os.makedirs(target, exist_ok=True)
    for module in MODULES:
        cases, tensors, torch = read(f"{source}/{module}.safetensors")
        size = [sum(len(tensors[k][2]) for k in keys(c)) + len(json.dumps(c)) for c in cases]
        chosen = select(cases, [shows(c, tensors) for c in cases], size)
        write(f"{target}/{module}.safetensors", chosen, {k: tensors[k] for c in chosen for k in keys(c)}, torch)
    cases, tensors, torch = read(f"{source}/optimizers.safetensors")
    chosen = []
    for name in OPTIMIZERS:
        own = [c for c in cases if c["optimizer"] == name]
        facts = [set((k, json.dumps(v)) for k, v in c["args"].items()) for c in own]
        chosen += select(own, facts, [10_000] * len(own))
    used = [k for c in chosen for k in c["params"] + sum(c["grads"] + c["after"], [])]
    write(f"{target}/optimizers.safetensors", chosen, {k: tensors[k] for k in used}, torch)
    schedules = json.load(open(f"{source}/schedules.json"))
    chosen = [[s for s in schedules if s["schedule"] == name][:3] for name in SCHEDULES]
    json.dump(sum(chosen, []), open(f"{target}/schedules.json", "w"))


if len(sys.argv) != 3:
    sys.exit(__doc__)
main(sys.argv[1], sys.argv[2])
