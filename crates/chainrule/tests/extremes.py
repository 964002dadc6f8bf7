#!/usr/bin/env python3
"""What PyTorch's losses give at extreme values, in f32: `extremes.py > extremes.txt`, which extremes.rs compares with ours.

A line is a case: kind | attributes | prediction | ... | t target or c classes | e loss without reduction | g gradient of the sum | ...
A tensor is its shape, a colon, and its values."""
import itertools, torch
import torch.nn.functional as F

INF = float("inf")
GRID = [0.0, 1.0, 1e4, -1e4, 1e30, -1e30, INF, -INF]
print(f"# PyTorch {torch.__version__}, extremes.py")


def text(t):
    return "x".join(map(str, t.shape)) + ":" + " ".join(f"{v:.8g}" for v in t.flatten().tolist())


def case(kind, loss, predictions, target=None, **attributes):
    """`loss` takes the predictions, the target if there is one, and the reduction."""
    ys = [y.detach().clone().float().requires_grad_() for y in predictions]
    given = [] if target is None else [target]
    each = loss(*ys, *given, reduction="none")
    gs = torch.autograd.grad(loss(*ys, *given, reduction="sum"), ys) if each.numel() else [torch.zeros_like(y) for y in ys]
    parts = [kind, " ".join(f"{k}={v}" for k, v in attributes.items())] + [text(y) for y in ys]
    if target is not None: parts.append(("t " if target.is_floating_point() else "c ") + text(target))
    print(" | ".join(parts + ["e " + text(each)] + ["g " + text(g) for g in gs]))


def pairs(a, b):
    """All pairs, as two tensors."""
    rows = list(itertools.product(a, b))
    return torch.tensor([x for x, _ in rows]), torch.tensor([y for _, y in rows])


def elementwise(kind, loss, a, b, **attributes):
    y, t = pairs(a, b)
    case(kind, lambda y, t, reduction: loss(y, t, reduction=reduction, **attributes), [y], t, **attributes)


targets = [0.0, 1.0, 1e4, -1e30, INF]
elementwise("MSELoss", F.mse_loss, GRID, targets)
elementwise("L1Loss", F.l1_loss, GRID, targets)
elementwise("HuberLoss", F.huber_loss, GRID, targets)
elementwise("HuberLoss", F.huber_loss, GRID, targets, delta=0.3)
elementwise("SmoothL1Loss", F.smooth_l1_loss, GRID, targets)
elementwise("SmoothL1Loss", F.smooth_l1_loss, GRID, targets, beta=0.0)
elementwise("BCELoss", F.binary_cross_entropy, [0.0, 1.0, 1e-30, 0.5, 1 - 2**-24], [0.0, 1.0, 0.5])
elementwise("BCEWithLogitsLoss", F.binary_cross_entropy_with_logits, GRID, [0.0, 1.0, 0.5])
elementwise("KLDivLoss", F.kl_div, [0.0, -1e4, -1e30, -INF], [0.0, 1e-30, 0.5, 1.0])
elementwise("KLDivLoss", F.kl_div, [0.0, -1e4, -1e30, -INF], [0.0, -1e4, -1e30, -INF], log_target=True)
elementwise("PoissonNLLLoss", F.poisson_nll_loss, GRID, [0.0, 1.0, 1e4])
elementwise("PoissonNLLLoss", F.poisson_nll_loss, [0.0, 1.0, 1e4, 1e30, INF], [0.0, 1.0, 1e4], log_input=False, full=True)
elementwise("SoftMarginLoss", F.soft_margin_loss, GRID, [1.0, -1.0])
elementwise("HingeEmbeddingLoss", F.hinge_embedding_loss, GRID, [1.0, -1.0])
for var in ([1.0, 1e30], [0.0, 1e-30]):
    rows = list(itertools.product(GRID, var, [0.0, 1e30]))
    y, v, t = (torch.tensor([row[i] for row in rows]) for i in range(3))
    case("GaussianNLLLoss", lambda y, v, t, reduction: F.gaussian_nll_loss(y, t, v, reduction=reduction), [y, v], t)
a, b = pairs(GRID, GRID)
for sign in (1.0, -1.0):
    case("MarginRankingLoss", F.margin_ranking_loss, [a, b], torch.full_like(a, sign))

rows = torch.tensor(list(itertools.product([0.0, 1e4, -1e30, INF, -INF], repeat=3)))
classes = torch.arange(len(rows)) % 3
one = torch.tensor([[v] for v in GRID])
first = torch.zeros(len(GRID), dtype=torch.long)


def classified(kind, loss, rows=rows, classes=classes, **attributes):
    given = {k: torch.tensor(v) if k == "weight" else v for k, v in attributes.items()}
    shown = {k: "/".join(map(str, v)) if k == "weight" else v for k, v in attributes.items()}
    case(kind, lambda y, t, reduction: loss(y, t, reduction=reduction, **given), [rows], classes, **shown)


none = torch.full_like(classes, 1)
for kind, loss in (("CrossEntropyLoss", F.cross_entropy), ("NLLLoss", F.nll_loss)):
    classified(kind, loss)
    classified(kind, loss, weight=[0.5, 0.0, 2.0])
    classified(kind, loss, ignore_index=1)
    classified(kind, loss, classes=none, ignore_index=1)
    classified(kind, loss, one, first)
    classified(kind, loss, rows[:0], classes[:0])
classified("CrossEntropyLoss", F.cross_entropy, label_smoothing=0.1)
classified("CrossEntropyLoss", F.cross_entropy, one, first, label_smoothing=0.1)
shares = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.2, 0.3, 0.5]])[classes]
classified("CrossEntropyLoss", F.cross_entropy, classes=shares)
for p in (1, 2):
    classified("MultiMarginLoss", F.multi_margin_loss, p=p)
    classified("MultiMarginLoss", F.multi_margin_loss, one, first, p=p)
many = torch.tensor([[0, -1, -1], [2, 0, -1], [-1, -1, -1]])[classes]
classified("MultiLabelMarginLoss", F.multilabel_margin_loss, classes=many)
classified("MultiLabelMarginLoss", F.multilabel_margin_loss, one, first[:, None])
classified("MultiLabelMarginLoss", F.multilabel_margin_loss, one, first[:, None] - 1)
bits = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])[classes]
classified("MultiLabelSoftMarginLoss", F.multilabel_soft_margin_loss, classes=bits)
classified("MultiLabelSoftMarginLoss", F.multilabel_soft_margin_loss, one, torch.ones_like(one))

# Products of their squares are in the range of f32, which PyTorch's cosine needs.
few = [0.0, 1e4, 3e4, -1.0]
vectors = torch.tensor(list(itertools.product(few, repeat=2)))
left, right = vectors.repeat_interleave(len(vectors), 0), vectors.repeat(len(vectors), 1)
for sign in (1.0, -1.0):
    # A margin that no cosine is equal to.
    loss = lambda a, b, t, reduction: F.cosine_embedding_loss(a, b, t, margin=0.3, reduction=reduction)
    case("CosineEmbeddingLoss", loss, [left, right], torch.full((len(left),), sign), margin=0.3)
case("TripletMarginLoss", F.triplet_margin_loss, [left, right, left.flip(0)])
case("TripletMarginLoss", lambda *ys, reduction: F.triplet_margin_loss(*ys, swap=True, reduction=reduction), [left, right, left.flip(0)], swap=True)
