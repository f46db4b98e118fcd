"""The covering list of the correctness section, most important first, as plain data."""

from dataclasses import asdict, dataclass, replace
from typing import Any

__all__ = ["Case", "cases", "sampled"]

PATTERNS = ("element", "column", "token", "block", "cross")
DTYPES = ("bfloat16", "float32", "float16")
DIMS = (12, 16, 32, 33, 64, 72, 80, 96, 128, 256)
LENGTHS = (1, 8, 31, 33, 65, 197, 577, 785, 1025)
DESIGNS = ("stored", "ahead", "inline")
LAYOUTS = ("packed", "contiguous", "sequence_first", "last_axis_strided", "expanded", "fenced")
FORBIDDING = ("-inf", "finite", "-1e4")
BIAS_SHAPES = ("key", "batch_key", "query_key", "full")


@dataclass(frozen=True)
class Case:
    """One call. ``check`` is "accuracy", or what reads a mask: "forward", "query", "key_value", "devices"."""

    check: str = "accuracy"
    dtype: str = "bfloat16"
    pattern: str = "element"
    bias: str = "none"  # or "bool" or "float"
    bias_shape: str = "query_key"
    forbidding: str = "-inf"  # what forbids keys in a float bias; "nothing": no key is forbidden
    no_key_rows: bool = False  # some queries have no allowed key
    causal: bool = False
    batch: int = 2
    heads: int = 2
    kv_heads: int = 2
    queries: int = 197
    keys: int = 197
    dim: int = 64
    value_dim: int = 64
    layout: str = "contiguous"
    ratio: float = 0.3
    design: str = ""  # "" is what a user gets

    def data(self) -> dict[str, Any]:
        """Return the case for JSON, with a label of what differs from the ordinary."""
        plain, own = asdict(Case()), asdict(self)
        differing = [f"{name}={value}" for name, value in own.items() if value != plain[name] or name == "pattern"]
        return {"label": " ".join(differing), **own}


def of_length(queries: int, keys: int | None = None, **options: Any) -> Case:
    return Case(queries=queries, keys=queries if keys is None else keys, **options)


def masks() -> list[Case]:
    """Masks read off the kernels, with what a user gets and with every design, and those of the two devices."""
    small = {"queries": 19, "keys": 51}
    own = [Case(check=c, pattern=p, **small) for c in ("forward", "key_value", "query") for p in PATTERNS]
    float32 = [replace(case, dtype="float32") for case in own if case.pattern in ("element", "column")]
    longer = [replace(case, queries=70, keys=200) for case in own if case.pattern in ("element", "block")]
    devices = [Case(check="devices", pattern=p) for p in PATTERNS]
    designed = [
        replace(case, design=design)
        for design in DESIGNS[:2]
        for case in own
        if case.pattern in ("element", "column", "block")
    ]
    return own + devices + designed + longer + float32


def patterns() -> list[Case]:
    """Every pattern with every bias, causal or not."""
    return [
        Case(pattern=pattern, bias=bias, causal=causal)
        for causal in (False, True)
        for bias in ("none", "float", "bool")
        for pattern in PATTERNS
    ]


def designs() -> list[Case]:
    """What the three designs share and where they differ: packed bits of odd lengths, heads and masks."""
    options: list[dict[str, Any]] = [
        {}, {"pattern": "column"}, {"queries": 1025, "keys": 1025, "batch": 1}, {"queries": 33, "keys": 65},
        {"bias": "float"}, {"causal": True}, {"heads": 6, "kv_heads": 2}, {"dtype": "float32"}, {"dim": 128},
        {"ratio": 0.97}, {"keys": 3, "ratio": 0.9}, {"pattern": "block"}, {"dtype": "float16", "dim": 33},
    ]  # fmt: skip
    return [Case(design=design, **option) for option in options for design in DESIGNS]


def lengths() -> list[Case]:
    """Odd numbers of queries and keys."""
    pairs = [(1, 197), (197, 1), (33, 577), (577, 33), (1025, 65), (65, 128), (128, 128)]
    square = [of_length(n, batch=1 if n > 500 else 2) for n in LENGTHS]
    others = [of_length(n, pattern=pattern) for pattern in ("column", "token") for n in (31, 577)]
    return square + [of_length(q, k) for q, k in pairs] + others + [of_length(33, 65, causal=True)]


def dims() -> list[Case]:
    """Head dimensions in every dtype; values of another dimension now and then."""
    same = [Case(dtype=dtype, dim=dim, value_dim=dim, queries=65, keys=130) for dim in DIMS for dtype in DTYPES]
    pairs = [(12, 33), (33, 12), (64, 16), (40, 8), (64, 128), (128, 64), (16, 256), (256, 16), (80, 72)]
    other = [Case(dim=a, value_dim=b, queries=65, keys=130) for a, b in pairs]
    return same + other + [replace(case, dtype="float32") for case in other[:3]]


def groups() -> list[Case]:
    """Fewer key heads than query heads."""
    return [
        Case(heads=6, kv_heads=kv, pattern=pattern, bias=bias)
        for kv in (1, 2, 3)
        for pattern, bias in (("element", "none"), ("token", "float"), ("block", "none"))
    ]


def layouts() -> list[Case]:
    """Memory layouts: of a projection of all three, with the sequence first, with a strided last axis, expanded."""
    half = [Case(layout=layout, queries=65, keys=65) for layout in LAYOUTS]
    return half + [replace(case, dtype="float32", dim=33, value_dim=33) for case in half]


def biases() -> list[Case]:
    """Shapes of a bias and numbers that forbid; queries without an allowed key."""
    wide = {"queries": 65, "keys": 130}
    floats = [Case(bias="float", bias_shape=s, forbidding=f, **wide) for s in BIAS_SHAPES for f in FORBIDDING]
    bools = [Case(bias="bool", bias_shape=shape, **wide) for shape in BIAS_SHAPES]
    empty = [
        Case(bias=bias, forbidding=f, no_key_rows=True, pattern=pattern, **wide)
        for pattern in ("element", "token")
        for bias, f in (("bool", "-inf"), ("float", "-inf"), ("float", "finite"))
    ]
    lost = [
        Case(bias="float", bias_shape="key", forbidding=f, queries=65, keys=5, ratio=0.9, dtype=dtype)
        for f in FORBIDDING
        for dtype in ("bfloat16", "float32")
    ]
    return empty + lost + bools + floats + [Case(bias="float", forbidding="nothing", dtype="float32", **wide)]


def ratios() -> list[Case]:
    """Ratios at both ends, and queries that lose all their keys."""
    extreme = [Case(ratio=ratio, pattern=pattern) for ratio in (2**-16, 0.97) for pattern in ("element", "column")]
    lost = [
        Case(queries=65, keys=keys, ratio=0.9, dtype=dtype, pattern=pattern)
        for pattern, keys in (("element", 3), ("column", 4), ("token", 4))
        for dtype in DTYPES
    ]
    return lost + extreme


def cases() -> list[dict[str, Any]]:
    """Return all cases, each label once."""
    listed = masks() + patterns() + ratios() + designs() + lengths() + dims() + groups() + biases() + layouts()
    data = {case["label"]: case for case in (one.data() for one in listed)}
    return list(data.values())


def sampled() -> list[dict[str, Any]]:
    """Return a few of each kind at tiny sizes, for a dry run."""
    kinds = [
        masks()[:16:5],
        masks()[15:16],
        patterns()[:12:5],
        ratios()[:1],
        designs()[:2],
        lengths()[:1],
    ]
    kinds += [dims()[1:3], groups()[:1], biases()[:3:2], layouts()[:4:3]]
    small = [shrunk(case) for kind in kinds for case in kind]
    return list({case["label"]: case for case in (one.data() for one in small)}.values())


def shrunk(case: Case) -> Case:
    """Return the case at a size that an interpreter can do."""
    keys = min(case.keys, 21)
    dims = {"dim": min(case.dim, 16), "value_dim": min(case.value_dim, 16)}
    return replace(
        case, batch=min(case.batch, 2), heads=case.kv_heads, queries=min(case.queries, 18), keys=keys, **dims
    )
