#!/usr/bin/env python3
"""PyTorch peer. usage: torch_bench.py --threads N --mode eager|compile|cl|fused WORKLOAD...
Prints one JSON line per workload; the protocol is in README.md.
modes: eager = defaults; fused = Adam/AdamW/SGD(fused=True); compile = torch.compile of the
forward+loss; cl = channels_last memory format (conv nets only) + fused optimizer."""
import argparse, json, math, time, sys

ap = argparse.ArgumentParser()
ap.add_argument("--threads", type=int, default=1)
ap.add_argument("--mode", default="eager")
ap.add_argument("--budget", type=float, default=1.0)
ap.add_argument("workloads", nargs="*")
A = ap.parse_args()

import torch, torch.nn as nn, torch.nn.functional as F
torch.set_num_threads(A.threads)
torch.set_num_interop_threads(1)
torch.manual_seed(0)
MODE = A.mode
FUSED = dict(fused=True) if MODE in ("fused", "cl") else {}


def bench(f, budget):
    t0 = time.perf_counter(); n = 0
    while time.perf_counter() - t0 < 0.3 or n < 3:
        f(); n += 1
    t0 = time.perf_counter(); f(); per = time.perf_counter() - t0
    k = max(1, math.ceil(20e-6 / per)); s = []
    start = time.perf_counter()
    while len(s) < 10 or (time.perf_counter() - start < budget and len(s) < 20000):
        t = time.perf_counter()
        for _ in range(k): f()
        s.append((time.perf_counter() - t) * 1e6 / k)
    s.sort()
    return s[len(s) // 2], s[0], s[len(s) * 9 // 10], len(s) * k


def peak_rss_mb():
    for l in open("/proc/self/status"):
        if l.startswith("VmHWM"): return float(l.split()[1]) / 1024


# ---------------------------------------------------------------- models
def mlp(sizes, act=nn.ReLU):
    L = []
    for i in range(len(sizes) - 1):
        L.append(nn.Linear(sizes[i], sizes[i + 1]))
        if i + 2 < len(sizes): L.append(act())
    return nn.Sequential(*L)


def lenet():
    return nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))


def cnn32():
    L = []; c = 3
    for i, ch in enumerate((32, 64, 128)):
        for _ in range(2):
            L += [nn.Conv2d(c, ch, 3, padding=1, bias=False), nn.BatchNorm2d(ch), nn.ReLU()]; c = ch
        if i < 2: L.append(nn.MaxPool2d(2))
    return nn.Sequential(*L, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


class LSTMNet(nn.Module):
    def __init__(s):
        super().__init__(); s.l = nn.LSTM(64, 256, batch_first=True); s.o = nn.Linear(256, 64)
    def forward(s, x): return s.o(s.l(x)[0]).reshape(-1, 64)


class Block(nn.Module):
    def __init__(s, d=256, h=8):
        super().__init__(); s.h = h
        s.n1 = nn.LayerNorm(d); s.n2 = nn.LayerNorm(d); s.qkv = nn.Linear(d, 3 * d); s.p = nn.Linear(d, d)
        s.f1 = nn.Linear(d, 4 * d); s.f2 = nn.Linear(4 * d, d); s.out = nn.Linear(d, 96)
    def forward(s, x):
        B, T, D = x.shape
        q, k, v = s.qkv(s.n1(x)).view(B, T, 3, s.h, D // s.h).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + s.p(a.transpose(1, 2).reshape(B, T, D))
        x = x + s.f2(F.gelu(s.f1(s.n2(x))))
        return s.out(x).reshape(-1, 96)


class GRUNet(nn.Module):
    def __init__(s):
        super().__init__(); s.l = nn.GRU(64, 256, batch_first=True); s.o = nn.Linear(256, 64)
    def forward(s, x): return s.o(s.l(x)[0]).reshape(-1, 64)


class Encoder(nn.Module):
    def __init__(s):
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 8, 1024, 0.0, "gelu", batch_first=True, norm_first=True)
        s.e = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False); s.o = nn.Linear(256, 96)
    def forward(s, x): return s.o(s.e(x)).reshape(-1, 96)


class GPT(nn.Module):
    """Six layers of 384, token by token: keys and values of all positions so far stand in a cache."""
    def __init__(s, v=256, t=512, d=384, h=6, n=6):
        super().__init__(); s.h = h
        s.wte = nn.Embedding(v, d); s.wpe = nn.Embedding(t, d); s.ln = nn.LayerNorm(d)
        s.b = nn.ModuleList(nn.ModuleDict(dict(n1=nn.LayerNorm(d), qkv=nn.Linear(d, 3 * d), p=nn.Linear(d, d), n2=nn.LayerNorm(d),
                                               f1=nn.Linear(d, 4 * d), f2=nn.Linear(4 * d, d))) for _ in range(n))
        s.cache = [torch.zeros(2, 1, h, t, d // h) for _ in range(n)]
    def forward(s, ids, at):
        T = ids.shape[1]
        x = s.wte(ids) + s.wpe(torch.arange(at, at + T))
        for b, kv in zip(s.b, s.cache):
            q, k, v = b["qkv"](b["n1"](x)).view(1, T, 3, s.h, -1).permute(2, 0, 3, 1, 4)
            kv[0][:, :, at:at + T] = k; kv[1][:, :, at:at + T] = v
            a = F.scaled_dot_product_attention(q, kv[0][:, :, :at + T], kv[1][:, :, :at + T], is_causal=T > 1)
            x = x + b["p"](a.transpose(1, 2).reshape(1, T, -1))
            x = x + b["f2"](F.gelu(b["f1"](b["n2"](x))))
        return s.ln(x) @ s.wte.weight.T


def token(at):
    def go():
        m = GPT().eval()
        with torch.inference_mode(): m(torch.randint(0, 256, (1, at)), 0)
        ids = torch.randint(0, 256, (1, 1))
        def run():
            with torch.inference_mode(): return m(ids, at)
        return run
    return go


def attention(n, t):
    def go():
        q, k, v = (torch.randn(n, 8, t, 32, requires_grad=True) for _ in range(3)); g = torch.ones(n, 8, t, 32)
        def run():
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return torch.autograd.grad(y, (q, k, v), g)
        return run
    return go


def conv_bn(i, o, k=3, s=1, groups=1, act=None):
    L = [nn.Conv2d(i, o, k, s, k // 2, groups=groups, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*L, *([act(inplace=True)] if act else []))


class Basic(nn.Module):
    def __init__(s, i, o, stride):
        super().__init__(); s.a = conv_bn(i, o, 3, stride, act=nn.ReLU); s.b = conv_bn(o, o)
        s.short = nn.Identity() if stride == 1 and i == o else conv_bn(i, o, 1, stride)
    def forward(s, x): return F.relu(s.b(s.a(x)) + s.short(x), inplace=True)


def resnet18():
    L = [conv_bn(3, 64, act=nn.ReLU)]; i = 64
    for n, o in enumerate((64, 128, 256, 512)):
        for j in range(2): L.append(Basic(i, o, 2 if n and not j else 1)); i = o
    return nn.Sequential(*L, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


class Inverted(nn.Module):
    def __init__(s, i, o, stride, t):
        super().__init__(); h = i * t
        L = [conv_bn(i, h, 1, act=nn.ReLU6)] if t > 1 else []
        s.f = nn.Sequential(*L, conv_bn(h, h, 3, stride, h, nn.ReLU6), conv_bn(h, o, 1)); s.add = stride == 1 and i == o
    def forward(s, x): return x + s.f(x) if s.add else s.f(x)


def mobilenet():
    L = [conv_bn(3, 32, 3, 2, act=nn.ReLU6)]; i = 32
    for t, o, n, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for j in range(n): L.append(Inverted(i, o, 1 if j else stride, t)); i = o
    return nn.Sequential(*L, conv_bn(320, 1280, 1, act=nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, 10))


class UNet(nn.Module):
    def __init__(s, w=(32, 64, 128, 256)):
        super().__init__(); two = lambda i, o: nn.Sequential(conv_bn(i, o, act=nn.ReLU), conv_bn(o, o, act=nn.ReLU))
        s.inc = two(3, w[0]); s.pool = nn.MaxPool2d(2); s.out = nn.Conv2d(w[0], 3, 1)
        s.down = nn.ModuleList(two(a, b) for a, b in zip(w, w[1:]))
        s.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in reversed(list(zip(w, w[1:]))))
        s.dec = nn.ModuleList(two(2 * a, a) for a in reversed(w[:-1]))
    def forward(s, x):
        skips = [s.inc(x)]
        for d in s.down: skips.append(d(s.pool(skips[-1])))
        y = skips.pop()
        for up, dec in zip(s.up, s.dec): y = dec(torch.cat([skips.pop(), up(y)], 1))
        return s.out(y)


# ---------------------------------------------------------------- workloads
def train(model, x, loss_fn, opt):
    if MODE == "cl":
        model = model.to(memory_format=torch.channels_last); x = x.contiguous(memory_format=torch.channels_last)
    fwd = lambda inp: loss_fn(model(inp))
    if MODE == "compile": fwd = torch.compile(fwd)
    def step():
        opt.zero_grad()
        fwd(x).backward()
        opt.step()
    return step


def ce(n, c):
    y = torch.randint(0, c, (n,))
    return lambda o: F.cross_entropy(o, y)


def infer(model, x):
    model.eval()
    if MODE == "cl":
        model = model.to(memory_format=torch.channels_last); x = x.contiguous(memory_format=torch.channels_last)
    if MODE == "compile": model = torch.compile(model)
    def step():
        with torch.inference_mode(): model(x)
    return step


def layer(fn, params, x, suffix):
    """suffix f: forward only (no grad); fb: forward + backward wrt input and params, seed = ones."""
    if MODE == "compile": fn = torch.compile(fn)
    if suffix == "f":
        def step():
            with torch.inference_mode(): fn(x)
        return step
    if x.is_floating_point(): x.requires_grad_()
    g = torch.ones_like(fn(x)).detach()
    def step():
        x.grad = None
        for p in params: p.grad = None
        fn(x).backward(g)
    return step


def conv(n, c, h, k, ks, p, s=1, groups=1):
    def make(sfx):
        m = nn.Conv2d(c, k, ks, padding=p, stride=s, groups=groups); x = torch.randn(n, c, h, h)
        if MODE == "cl":
            m = m.to(memory_format=torch.channels_last); x = x.contiguous(memory_format=torch.channels_last)
        return layer(m, list(m.parameters()), x, sfx)
    return make


def gemm(n):
    def make(sfx):
        a = torch.randn(n, n); w = torch.randn(n, n, requires_grad=True)
        return layer(lambda x: x @ w, [w], a, sfx)
    return make


def simple(mk, *shape):
    def make(sfx):
        m = mk(); x = torch.randn(*shape)
        if MODE == "cl" and len(shape) == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return layer(m, list(m.parameters()) if isinstance(m, nn.Module) else [], x, sfx)
    return make


def embedding(sfx):
    m = nn.Embedding(10000, 256); ids = torch.randint(0, 10000, (4096,))
    return layer(m, list(m.parameters()), ids, sfx)


def adam_1m():
    p = nn.Parameter(torch.randn(1 << 20)); p.grad = torch.randn(1 << 20)
    o = torch.optim.Adam([p], lr=1e-3, **FUSED); return o.step


def opt(kind, m, **kw): return getattr(torch.optim, kind)(m.parameters(), **kw, **FUSED)


def w_train(mk, x, loss, kind, **kw):
    def go():
        m = mk(); return train(m, x(), loss(), opt(kind, m, **kw))
    return go


def xor(b):
    X = torch.tensor([[0., 0.], [0., 1.], [1., 0.], [1., 1.]]); Y = torch.tensor([[0.], [1.], [1.], [0.]])
    if b == 4: return w_train(lambda: mlp([2, 3, 1], nn.Tanh).append(nn.Tanh()), lambda: X, lambda: (lambda o: F.mse_loss(o, Y)), "SGD", lr=0.1)
    return w_train(lambda: mlp([2, 3, 1], nn.Tanh).append(nn.Tanh()), lambda: X[1:2], lambda: (lambda o: F.mse_loss(o, Y[1:2])), "SGD", lr=0.1)


class Gate(nn.Module):
    """x's halves a, b: a · g(b)."""
    def __init__(s, g): super().__init__(); s.g = g
    def forward(s, x):
        a, b = x.chunk(2, -1)
        return a * s.g(b)


def bags(rows, width, n, k):
    def make(sfx):
        m = nn.EmbeddingBag(rows, width, mode="mean"); ids = torch.randint(0, rows, (n, k))
        return layer(m, list(m.parameters()), ids, sfx)
    return make


def dense(n, c, h):
    y = torch.randint(0, c, (n, h, h))
    return lambda o: F.cross_entropy(o, y)


R = torch.randn
W = {
    "w1_xor_b1": xor(1), "w1_xor_b4": xor(4),
    "w2_mlp_b32": w_train(lambda: mlp([784, 128, 64, 10]), lambda: R(32, 784), lambda: ce(32, 10), "Adam", lr=1e-3),
    "w2_mlp_b128": w_train(lambda: mlp([784, 128, 64, 10]), lambda: R(128, 784), lambda: ce(128, 10), "Adam", lr=1e-3),
    "w2_mlp512_b128": w_train(lambda: mlp([784, 512, 512, 10]), lambda: R(128, 784), lambda: ce(128, 10), "Adam", lr=1e-3),
    "w3_lenet_b64": w_train(lenet, lambda: R(64, 1, 28, 28), lambda: ce(64, 10), "SGD", lr=0.01, momentum=0.9),
    "w4_cnn32_b32": w_train(cnn32, lambda: R(32, 3, 32, 32), lambda: ce(32, 10), "AdamW", lr=1e-3),
    "w5_lstm_b32": w_train(LSTMNet, lambda: R(32, 64, 64), lambda: ce(32 * 64, 64), "Adam", lr=1e-3),
    "w6_transformer_b8": w_train(Block, lambda: R(8, 128, 256), lambda: ce(8 * 128, 96), "AdamW", lr=1e-3),
    "w5_gru_b32": w_train(GRUNet, lambda: R(32, 64, 64), lambda: ce(32 * 64, 64), "Adam", lr=1e-3),
    "w6_encoder_t512": w_train(Encoder, lambda: R(2, 512, 256), lambda: ce(2 * 512, 96), "AdamW", lr=1e-3),
    "w6_attention_t128_fb": attention(8, 128), "w6_attention_t512_fb": attention(4, 512), "w6_attention_t2048_fb": attention(1, 2048),
    "w6_gpt_token_16": token(16), "w6_gpt_token_500": token(500),
    "w7_mlp_infer": lambda: infer(mlp([784, 128, 64, 10]), R(1, 784)),
    "w7_lenet_infer": lambda: infer(lenet(), R(1, 1, 28, 28)),
    "w7_cnn32_infer": lambda: infer(cnn32(), R(1, 3, 32, 32)),
    "w7_resnet18_infer": lambda: infer(resnet18(), R(1, 3, 32, 32)),
    "w7_mobilenet_infer": lambda: infer(mobilenet(), R(1, 3, 32, 32)),
    "w7_unet_infer": lambda: infer(UNet(), R(1, 3, 64, 64)),
    "w9_resnet18_b16": w_train(resnet18, lambda: R(16, 3, 32, 32), lambda: ce(16, 10), "SGD", lr=0.01, momentum=0.9),
    "w9_mobilenet_b16": w_train(mobilenet, lambda: R(16, 3, 32, 32), lambda: ce(16, 10), "SGD", lr=0.01, momentum=0.9),
    "w9_unet_b4": w_train(UNet, lambda: R(4, 3, 64, 64), lambda: dense(4, 3, 64), "AdamW", lr=1e-3),
    "w7_mlp6_infer": lambda: infer(mlp([6, 64, 8, 4]), R(1, 6)),
    "w8_adam_1m": adam_1m,
}
for name, mk in {
    "gemm1024": gemm(1024), "gemm256": gemm(256),
    "conv_64x32_k3": conv(16, 64, 32, 64, 3, 1), "conv_128x16_k3": conv(16, 128, 16, 128, 3, 1),
    "conv_256x8_k3": conv(16, 256, 8, 256, 3, 1), "conv_64x32_k1": conv(16, 64, 32, 128, 1, 0),
    "conv_3x64_k5s2": conv(16, 3, 64, 32, 5, 2, 2), "conv_dw64x32_k3": conv(16, 64, 32, 64, 3, 1, 1, 64),
    "maxpool2": simple(lambda: nn.MaxPool2d(2), 16, 64, 32, 32), "batchnorm": simple(lambda: nn.BatchNorm2d(64), 16, 64, 32, 32),
    "layernorm": simple(lambda: nn.LayerNorm(256), 4096, 256), "softmax": simple(lambda: (lambda x: F.softmax(x, -1)), 4096, 1024),
    "embedding": embedding,
}.items():
    W[f"w8_{name}_f"] = (lambda mk: lambda: mk("f"))(mk)
    W[f"w8_{name}_fb"] = (lambda mk: lambda: mk("fb"))(mk)

IMAGES = ((8, 32, 14, 14), (16, 64, 32, 32), (16, 128, 56, 56))
VOLUMES = ((2, 16, 8, 16, 16), (4, 32, 16, 32, 32), (4, 32, 16, 56, 56))
SMALL = ((8, 32, 8, 8), (16, 64, 16, 16), (8, 64, 64, 64))
ROWS = ((256, 128), (4096, 256), (4096, 1024))
GATED = ((256, 256), (4096, 512), (4096, 2048))


def sizes(kind, *of):
    """`kind`_s, _m and _l of (module, shape of x), forward with all gradients."""
    for size, (mk, x) in zip("sml", of): W[f"w8_{kind}_{size}_fb"] = (lambda make: lambda: make("fb"))(mk if x is None else simple(mk, *x))


def same(kind, mk, shapes): sizes(kind, *((lambda s=s, i=i: mk(i, s), s) for i, s in enumerate(shapes)))


sizes("conv1d", (lambda: nn.Conv1d(32, 32, 3, padding=1), (8, 32, 128)), (lambda: nn.Conv1d(64, 128, 5, padding=2), (16, 64, 512)),
      (lambda: nn.Conv1d(128, 128, 3, padding=1), (16, 128, 2048)))
sizes("conv3d", (lambda: nn.Conv3d(8, 16, 3, padding=1), (2, 8, 8, 16, 16)), (lambda: nn.Conv3d(16, 32, 3, padding=1), (4, 16, 16, 16, 16)),
      (lambda: nn.Conv3d(32, 32, 3, padding=1), (4, 32, 16, 32, 32)))
sizes("convt2d", (lambda: nn.ConvTranspose2d(16, 8, 2, 2), (8, 16, 8, 8)), (lambda: nn.ConvTranspose2d(64, 32, 4, 2, 1), (16, 64, 16, 16)),
      (lambda: nn.ConvTranspose2d(128, 64, 3, 2, 1, 1), (16, 128, 32, 32)))
sizes("dw7", *((lambda c=c: nn.Conv2d(c, c, 7, padding=3, groups=c), (n, c, h, h)) for n, c, h in ((4, 32, 14), (8, 96, 28), (16, 64, 56))))
same("adaptiveavg", lambda i, s: nn.AdaptiveAvgPool2d((7, 5, 7)[i]), IMAGES)
same("adaptivemax", lambda i, s: nn.AdaptiveMaxPool2d((7, 5, 7)[i]), IMAGES)
same("maxpool3d", lambda i, s: nn.MaxPool3d(3, 2, 1) if i == 2 else nn.MaxPool3d(2), VOLUMES)
same("avgpool3d", lambda i, s: nn.AvgPool3d(3, 2, 1) if i == 2 else nn.AvgPool3d(2), VOLUMES)
same("groupnorm", lambda i, s: nn.GroupNorm((8, 32, 32)[i], s[1]), IMAGES)
same("instancenorm", lambda i, s: nn.InstanceNorm2d(s[1], affine=True), IMAGES)
same("rmsnorm", lambda i, s: nn.RMSNorm(s[1]), ROWS)
same("layernorm", lambda i, s: nn.LayerNorm(s[1]), ROWS)
same("nearest", lambda i, s: nn.Upsample(scale_factor=2), SMALL)
same("bilinear", lambda i, s: nn.Upsample(scale_factor=2, mode="bilinear"), SMALL)
sizes("embeddingbag", *((bags(*b), None) for b in ((1000, 32, 128, 8), (10000, 64, 1024, 16), (50000, 128, 4096, 32))))
same("glu", lambda i, s: nn.GLU(), GATED)
same("swiglu", lambda i, s: Gate(F.silu), GATED)
same("geglu", lambda i, s: Gate(F.gelu), GATED)


# ---------------------------------------------------------------- optimizers and losses
class Lion(torch.optim.Optimizer):
    """PyTorch has none: theta -= lr sign(b1 m + (1 - b1) g), m = b2 m + (1 - b2) g, over all tensors at once."""
    def __init__(s, params, lr=1e-4, betas=(0.9, 0.99)): super().__init__(params, dict(lr=lr, betas=betas))
    @torch.no_grad()
    def step(s):
        for group in s.param_groups:
            ps = [p for p in group["params"] if p.grad is not None]; gs = [p.grad for p in ps]
            ms = [s.state[p].setdefault("m", torch.zeros_like(p)) for p in ps]; b1, b2 = group["betas"]
            signs = torch._foreach_lerp(gs, ms, b1); torch._foreach_sign_(signs)
            torch._foreach_add_(ps, signs, alpha=-group["lr"]); torch._foreach_lerp_(ms, gs, 1 - b2)


def opt_step(mk, tensors):
    def go():
        ps = [nn.Parameter(torch.randn(-(-(1 << 20) // tensors))) for _ in range(tensors)]
        for p in ps: p.grad = torch.randn_like(p)
        return mk(ps).step
    return go


for kind, mk in {
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.01, momentum=0.9, **FUSED), "adam": lambda ps: torch.optim.Adam(ps, lr=1e-3, **FUSED),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=1e-3, **FUSED), "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=1e-2), "lion": Lion,
}.items():
    W[f"opt_{kind}_1m"], W[f"opt_{kind}_200"] = opt_step(mk, 1), opt_step(mk, 200)


def objective(fn, make):
    """fn(predictions..., targets...) of shapes (n, c), and the gradients of all predictions."""
    def of(shape):
        def go():
            ys, ts = make(*shape)
            f = torch.compile(fn) if MODE == "compile" else fn
            for y in ys: y.requires_grad_()
            def run(): return torch.autograd.grad(f(*ys, *ts), ys)
            return run
        return go
    return of


def either(low, high, *shape): return torch.where(torch.rand(shape) < 0.5, float(low), float(high))
def uniform(low, high): return lambda n, c: low + (high - low) * torch.rand(n, c)
def pair(y, t): return lambda n, c: ([y(n, c)], [t(n, c)])
def classes(n, c): return torch.randint(0, c, (n,))
def several(count, t=None): return lambda n, c: ([R(n, c) for _ in range(count)], [] if t is None else [t(n, c)])


def many_classes(n, c):
    """Three classes of each row, then -1."""
    t = torch.full((n, c), -1, dtype=torch.long); t[:, :3] = torch.rand(n, c).topk(3).indices
    return t


def focal(y, t):
    e = F.cross_entropy(y, t, reduction="none")
    return ((1 - torch.exp(-e)) ** 2 * e).mean()


def binary_focal(y, t):
    e = F.binary_cross_entropy_with_logits(y, t, reduction="none")
    return ((1 - torch.exp(-e)) ** 2 * e).mean()


def dice(y, t): return (1 - (2 * (y * t).sum(1) + 1) / (y.sum(1) + t.sum(1) + 1)).mean()


def tversky(y, t):
    a = (y * t).sum(1)
    return (1 - (a + 1) / (a + 0.5 * (y * (1 - t)).sum(1) + 0.5 * ((1 - y) * t).sum(1) + 1)).mean()


def contrastive(a, b, t):
    d = (a - b).norm(dim=1)
    return (0.5 * (t * d ** 2 + (1 - t) * F.relu(1 - d) ** 2)).mean()


def info_nce(a, b): return F.cross_entropy(F.normalize(a) @ F.normalize(b).T / 0.1, torch.arange(len(a)))


def log_cosh(y, t):
    d = y - t
    return (d + F.softplus(-2 * d) - math.log(2)).mean()


def ctc_data(n, c): return [R(64, n // 64, c)], [torch.randint(1, c, (n // 64, 20))]


def ctc(y, t):
    n = len(t)
    return F.ctc_loss(y.log_softmax(2), t, torch.full((n,), 64), torch.full((n,), 20))


signs, rows = lambda n, c: either(-1, 1, n, c), lambda low, high: lambda n, c: either(low, high, n)
bits, share, logs = lambda n, c: either(0, 1, n, c), uniform(0, 1), uniform(-9, -0.1)
for kind, (fn, make) in {
    "mse": (F.mse_loss, pair(R, R)), "mae": (F.l1_loss, pair(R, R)), "huber": (F.huber_loss, pair(R, R)), "smooth_l1": (F.smooth_l1_loss, pair(R, R)),
    "log_cosh": (log_cosh, pair(R, R)), "quantile": (lambda y, t: torch.maximum(0.5 * (t - y), -0.5 * (t - y)).mean(), pair(R, R)),
    "msle": (lambda y, t: F.mse_loss(torch.log1p(y), torch.log1p(t)), pair(uniform(0, 10), uniform(0, 10))),
    "mape": (lambda y, t: ((y - t).abs() / t.abs().clamp_min(1e-6)).mean(), pair(R, R)),
    "bce": (F.binary_cross_entropy, pair(uniform(0.01, 0.99), share)), "bce_with_logits": (F.binary_cross_entropy_with_logits, pair(R, share)),
    "binary_focal": (binary_focal, pair(R, bits)), "poisson_nll": (F.poisson_nll_loss, pair(R, uniform(0, 5))),
    "gaussian_nll": (lambda y, v, t: F.gaussian_nll_loss(y, t, v), lambda n, c: ([R(n, c), uniform(0.1, 2)(n, c)], [R(n, c)])),
    "soft_margin": (F.soft_margin_loss, pair(R, signs)), "hinge": (lambda y, t: F.relu(1 - t * y).mean(), pair(R, signs)),
    "squared_hinge": (lambda y, t: F.relu(1 - t * y).square().mean(), pair(R, signs)), "hinge_embedding": (F.hinge_embedding_loss, pair(R, signs)),
    "margin_ranking": (F.margin_ranking_loss, several(2, signs)), "activity_penalty": (lambda y: y.abs().mean() + y.square().mean(), several(1)),
    "kl_div": (F.kl_div, pair(logs, share)), "dice": (dice, pair(share, share)), "tversky": (tversky, pair(share, share)),
    "ce": (F.cross_entropy, pair(R, classes)), "ce_smoothed": (lambda y, t: F.cross_entropy(y, t, label_smoothing=0.1), pair(R, classes)),
    "ce_probabilities": (F.cross_entropy, pair(R, share)), "nll": (F.nll_loss, pair(logs, classes)), "focal": (focal, pair(R, classes)),
    "multi_margin": (F.multi_margin_loss, pair(R, classes)), "multi_label_margin": (F.multilabel_margin_loss, pair(R, many_classes)),
    "multi_label_soft_margin": (F.multilabel_soft_margin_loss, pair(R, bits)), "cosine_embedding": (F.cosine_embedding_loss, several(2, rows(-1, 1))),
    "triplet_margin": (F.triplet_margin_loss, several(3)), "contrastive": (contrastive, several(2, rows(0, 1))), "info_nce": (info_nce, several(2)),
    "ctc": (ctc, ctc_data),
}.items():
    W[f"loss_{kind}_1m"], W[f"loss_{kind}_4096x1000"] = (objective(fn, make)(shape) for shape in ((1024, 1024), (4096, 1000)))

SHAPES = [(s, s, s) for s in (32, 64, 128, 256, 512, 1024, 2048)] + [(64, 784, 128), (128, 784, 512), (32, 256, 1024), (1024, 576, 64)]


def raw():
    for m, k, n in SHAPES:
        a, b, c = R(m, k), R(k, n), torch.empty(m, n)
        with torch.inference_mode():
            md, mn, p90, it = bench(lambda: torch.mm(a, b, out=c), 0.6)
        f = 2 * m * k * n / 1e3
        print(json.dumps(dict(peer="torch-mm", workload=f"rawgemm_{m}x{k}x{n}", threads=A.threads, median_us=round(md, 3), min_us=round(mn, 3),
              p90_us=round(p90, 3), gflops_median=round(f / md, 2), gflops_max=round(f / mn, 2), iterations=it, peak_rss_mb=round(peak_rss_mb(), 1))), flush=True)


if __name__ == "__main__":
    if A.workloads == ["list"]: print("\n".join(W)); sys.exit()
    for w in A.workloads:
        if w == "rawgemm": raw(); continue
        t0 = time.perf_counter(); f = W[w]()
        f(); first = time.perf_counter() - t0
        md, mn, p90, it = bench(f, A.budget)
        print(json.dumps(dict(peer=f"torch-{MODE}", workload=w, threads=A.threads, median_us=round(md, 2), min_us=round(mn, 2),
              p90_us=round(p90, 2), iterations=it, peak_rss_mb=round(peak_rss_mb(), 1), first_call_s=round(first, 3))), flush=True)
