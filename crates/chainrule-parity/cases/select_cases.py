"""Selects a small part of a folder of reference cases, so that they can be kept with the sources.

usage: python3 select_cases.py FROM_DIR TO_DIR [MODULE ...]        (the standard library suffices)

Of each module that TO_DIR has already, and of those named, it takes cases one by one, each time the one that shows the
most that no other has shown yet (an argument's value, a number of axes, a mode of running) for its size, up to a number of
bytes and of cases. Values are copied as they are, and `counts.json` says how many cases there are of each. Nothing is drawn:
the same folder gives the same files.
"""

import json, os, struct, sys

OPTIMIZERS = "SGD Adam AdamW NAdam RAdam Adamax RMSprop Adagrad Adadelta Rprop ASGD Adafactor Muon".split()
SCHEDULES = (
    "ConstantLR StepLR MultiStepLR LinearLR ExponentialLR PolynomialLR CosineAnnealingLR CosineAnnealingWarmRestarts "
    "OneCycleLR CyclicLR ReduceLROnPlateau WarmupCosine"
).split()
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


def main(source, target, named):
    os.makedirs(target, exist_ok=True)
    kept = {name.removesuffix(".safetensors") for name in os.listdir(target) if name.endswith(".safetensors")}
    counts = {}
    for module in sorted(kept - {"optimizers"} | set(named)):
        cases, tensors, torch = read(f"{source}/{module}.safetensors")
        size = [sum(len(tensors[k][2]) for k in keys(c)) + len(json.dumps(c)) for c in cases]
        chosen = select(cases, [shows(c, tensors) for c in cases], size)
        write(f"{target}/{module}.safetensors", chosen, {k: tensors[k] for c in chosen for k in keys(c)}, torch)
        counts[module] = len(chosen)
    cases, tensors, torch = read(f"{source}/optimizers.safetensors")
    chosen = []
    for name in OPTIMIZERS:
        own = [c for c in cases if c["optimizer"] == name]
        facts = [set((k, json.dumps(v)) for k, v in c["args"].items()) for c in own]
        size = 10_000 if name in ("SGD", "Adam", "AdamW") else 20_000  # two of the others
        of_name = select(own, facts, [size] * len(own))
        counts[name] = len(of_name)
        chosen += of_name
    used = [k for c in chosen for k in c["params"] + sum(c["grads"] + c["after"], [])]
    write(f"{target}/optimizers.safetensors", chosen, {k: tensors[k] for k in used}, torch)
    schedules = json.load(open(f"{source}/schedules.json"))
    chosen = [[s for s in schedules if s["schedule"] == name][:3] for name in SCHEDULES]
    counts |= {name: len(of_name) for name, of_name in zip(SCHEDULES, chosen)}
    json.dump(sum(chosen, []), open(f"{target}/schedules.json", "w"))
    with open(f"{target}/counts.json", "w") as file:
        file.write(json.dumps(counts, indent=2, sort_keys=True) + "\n")


if len(sys.argv) < 3:
    sys.exit(__doc__)
main(sys.argv[1], sys.argv[2], sys.argv[3:])
