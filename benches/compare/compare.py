#!/usr/bin/env python3
"""Runs the workloads in chainrule, PyTorch, candle and burn in turn, and prints the medians and ratios as Markdown.

  compare.py run   [--threads 1,2] [--filter NAME,NAME] [--peers NAME,NAME] [--rounds 2] [--seconds 0.5] [--out FILE]
  compare.py table [--out FILE]

`run` appends one JSON line a measurement to FILE, so that a long comparison may be made in portions; `table` prints what
the file holds. README.md beside this file tells how to install the peers and where they are looked for."""
import argparse, json, os, pathlib, resource, shutil, statistics, subprocess, sys, time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
OURS = os.environ.get("CHAINRULE_WORKLOADS", str(TARGET / "release" / "workloads"))
PYTHON = os.environ.get("TORCH_PYTHON", sys.executable)
CANDLE = os.environ.get("CANDLE_BENCH", str(HERE / "candle" / "target" / "release" / "candlebench"))
BURN = os.environ.get("BURN_BENCH", str(HERE / "burn" / "target" / "release" / "burnbench"))

TRAINING = ("w1_", "w2_", "w3_", "w4_", "w8_adam", "w9_", "opt_sgd", "opt_adam")
IMAGES = ("w3_", "w4_", "w7_lenet", "w7_cnn", "w7_resnet", "w7_mobilenet", "w7_unet", "w8_conv_", "w8_maxpool2", "w8_batchnorm", "w9_")
# glibc's allocator told never to give memory back: PyTorch without page faults.
KEEP = {"MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_MMAP_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "67108864"}

# Every workload, and how many times PyTorch's speed is aimed at.
WORKLOADS = [line.split() for line in (HERE.parent / "workloads.txt").read_text().splitlines() if line and line[0] != "#"]
TARGETS = {name: float(aim[0]) if aim else 1.0 for name, *aim in WORKLOADS if aim != ["peers"]}


def torch(mode, keep=False):
    return lambda name, n, s: ([PYTHON, str(HERE / "torch_bench.py"), "--threads", str(n), "--mode", mode,
                                "--budget", str(s), name], KEEP if keep else {})


def rust(program, label):
    return lambda name, n, s: ([program, name], {"PEER_LABEL": label, "PEER_THREADS": str(n), "PEER_BUDGET": str(s)})


PEERS = {
    "chainrule": lambda name, n, s: ([OURS, "--one", name, "--threads", str(n), "--seconds", str(s)], {}),
    "torch-eager": torch("eager"),
    "torch-fused": torch("fused"),
    "torch-malloc": torch("fused", keep=True),
    "torch-cl": torch("cl"),
    "candle": rust(CANDLE, "candle"),
    "burn-flex": rust(BURN, "burn-flex"),
}


def runs(peer, name):
    """A mode that differs from another in nothing for this workload is left out."""
    if peer == "torch-fused":
        return name.startswith(TRAINING)
    if peer == "torch-cl":
        return name.startswith(IMAGES)
    if peer in ("candle", "burn-flex"):
        return name.startswith("w")
    return True


def busy():
    """Seconds that the processors have worked since the system started, those of our own children left out."""
    try:
        with open("/proc/stat") as stat:
            user, nice, system, _, _, irq, soft, steal = map(int, stat.readline().split()[1:9])
    except OSError:
        return 0.0
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
    return total - own.ru_utime - own.ru_stime


def measure(peer, name, threads, seconds):
    """One measurement in a process of its own; up to four tries to make it while nobody else works."""
    command, extra = PEERS[peer](name, threads, seconds)
    n = str(threads)
    env = dict(os.environ, OMP_NUM_THREADS=n, MKL_NUM_THREADS=n, RAYON_NUM_THREADS=n, CHAINRULE_NUM_THREADS=n, **extra)
    if threads == 1 and shutil.which("taskset"):
        command = ["taskset", "-c", "0"] + command
    for attempt in range(4):
        start, before = time.monotonic(), busy()
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        others = (busy() - before) / (time.monotonic() - start)
        if done.returncode:
            print(f"{peer} {name}: {done.stderr.strip()[-300:]}", file=sys.stderr)
            return None
        if others < 0.1:
            break
    return dict(json.loads(done.stdout.splitlines()[-1]), peer=peer, others=round(others, 2))

def run(options):
    wanted = options.filter.split(",")
    names = subprocess.run([OURS, "list"], capture_output=True, text=True, check=True).stdout.split()
    names = [n for n in names if any(w == n or (w not in names and w in n) for w in wanted)]
    peers = options.peers.split(",") if options.peers else list(PEERS)
    with open(options.out, "a") as out:
        for name in names:
            for threads in map(int, options.threads.split(",")):
                for round in range(options.rounds):  # A B C, A B C: drift of the machine meets all alike
                    for peer in peers:
                        if runs(peer, name) and (row := measure(peer, name, threads, options.seconds)):
                            out.write(json.dumps(row) + "\n")
                            out.flush()
                print(f"{name}, {threads} threads", file=sys.stderr)


def microseconds(v):
    return "–" if v is None else f"{v:,.0f}" if v >= 100 else f"{v:.1f}" if v >= 10 else f"{v:.2f}"


def ratio(peer, ours, target=0.0):
    if peer is None or ours is None:
        return "–"
    r = peer / ours
    text = f"{r:,.0f}" if r >= 100 else f"{r:.1f}" if r >= 10 else f"{r:.2f}"
    return text if r >= target else f"**{text}**"


def median(samples):
    """Of the undisturbed samples, if there are any."""
    quiet = [v for disturbed, v in samples if not disturbed] or [v for _, v in samples]
    return statistics.median(quiet) if quiet else None


def table(options):
    samples, memory, order = {}, {}, []
    for line in open(options.out):
        row = json.loads(line)
        key = (row["workload"], row["threads"], row["peer"])
        samples.setdefault(key, []).append((row.get("others", 0) >= 0.1, row["median_us"]))
        memory[key] = max(memory.get(key, 0), row["peak_rss_mb"])
        if row["workload"] not in order:
            order.append(row["workload"])
    order = [n for n in TARGETS if n in order] + [n for n in order if n not in TARGETS]
    for threads in sorted({key[1] for key in samples}):
        print(f"\n**{threads} thread{'s' * (threads > 1)}** (medians in µs; × is how many times the peer's speed "
              "ours is; bold falls short)\n")
        print("| workload | chainrule | torch | × | aim | torch-malloc | × | torch-cl | × | candle | × | burn-flex | × |")
        print("|---|" + "--:|" * 12)
        for name in order:
            at = lambda peer: median(samples.get((name, threads, peer), []))
            ours = at("chainrule")
            if ours is None:
                continue
            torch = min((v for v in (at("torch-eager"), at("torch-fused")) if v), default=None)
            aim, rust_aim = TARGETS.get(name, 1.0), 1.5 if name.endswith(("_f", "_infer")) else 2.0
            cells = [name, microseconds(ours), microseconds(torch), ratio(torch, ours, aim), f"{aim:g}"]
            channels_last = 1.2 if name[:2] in ("w3", "w4") else 0.0
            for peer, least in (("torch-malloc", 1.0), ("torch-cl", channels_last), ("candle", rust_aim), ("burn-flex", rust_aim)):
                cells += [microseconds(at(peer)), ratio(at(peer), ours, least)]
            print("| " + " | ".join(cells) + " |")
    peaks = [f"{peer} {mb:.0f} MB ({n} thread{'s' * (n > 1)})"
             for (name, n, peer), mb in memory.items() if name == "w4_cnn32_b32"]
    if peaks:
        print("\nPeak resident memory of `w4_cnn32_b32`: " + ", ".join(peaks))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "table"])
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--filter", default="")
    parser.add_argument("--peers", default="")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--out", default="comparison.jsonl")
    options = parser.parse_args()
    (run if options.command == "run" else table)(options)


if __name__ == "__main__":
    main()
