"""Keep masks bit by bit, with Python integers: Philox4x32-7 written from its definition, one key at a time."""

import numpy as np

STREAMS = {"element": 0, "column": 1, "token": 2, "block": 3, "cross": 4}


def philox(counter: tuple[int, int, int, int], seed: int) -> list[int]:
    seed %= 2**64
    x, key = list(counter), [seed % 2**32, seed // 2**32]
    for _ in range(7):
        product0, product1 = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [
            product1 // 2**32 ^ x[1] ^ key[0],
            product1 % 2**32,
            product0 // 2**32 ^ x[3] ^ key[1],
            product0 % 2**32,
        ]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return x


def bits16(seed: int, stream: int, head: int, query: int, key: int) -> int:
    word = philox((key // 8, query, head, stream), seed)[key // 2 % 4]
    return word % 2**16 if key % 2 == 0 else word // 2**16


def bits32(seed: int, stream: int, head: int, query: int, key: int) -> int:
    return philox((key // 4, query, head, stream), seed)[key % 4]


def keep_mask(shape, ratio, pattern, seed, grid=None, prefix=0, window=3, seed_probability=None):
    """A bool array (B, H, Nq, Nk). Block and cross take the seed probability as given: its value is tested apart."""
    keep = np.ones(shape, dtype=bool)
    batch, heads, queries, keys = shape
    limit = round(ratio * 65536)
    for b in range(batch):
        for h in range(heads):
            head = b * heads + h
            for q in range(queries):
                if pattern == "element":
                    keep[b, h, q] = [bits16(seed, 0, head, q, k) >= limit for k in range(keys)]
                elif pattern == "column":
                    keep[b, h, q] = [bits16(seed, 1, head, 0, k) >= limit for k in range(keys)]
                elif pattern == "token":
                    ranks = [bits32(seed, 2, b * heads, 0, k) for k in range(keys)]
                    order = sorted(range(keys), key=lambda k: (-ranks[k], k))
                    kept = set(order[: max(1, round((1 - ratio) * keys))])
                    keep[b, h, q] = [k in kept for k in range(keys)]
                else:
                    keep[b, h, q, :prefix] = [bits16(seed, 0, head, q, k) >= limit for k in range(prefix)]
                    dropped = _windows(seed, STREAMS[pattern], head, q, grid, window, seed_probability)
                    keep[b, h, q, prefix:] = ~dropped.reshape(-1)
    return keep


def _windows(seed, stream, head, query, grid, window, probability):
    rows, cols = grid
    dropped = np.zeros(grid, dtype=bool)
    reach = window // 2
    for row in range(rows):
        for col in range(cols):
            if bits32(seed, stream, head, query, row * cols + col) < round(probability * 2**32):
                above, below = max(0, row - reach), row + reach + 1
                left, right = max(0, col - reach), col + reach + 1
                if stream == STREAMS["block"]:
                    dropped[above:below, left:right] = True
                else:
                    dropped[above:below, col] = True
                    dropped[row, left:right] = True
    return dropped


def all_bits16(seed: int, stream: int, num_heads: int, num_queries: int, num_keys: int) -> np.ndarray:
    """The same for many keys at once: uint32 array (num_heads, num_queries, num_keys); num_keys a multiple of 8."""
    shape = (num_heads, num_queries, num_keys // 8)
    x = [np.broadcast_to(axis, shape).astype(np.uint64) for axis in np.ogrid[: shape[0], : shape[1], : shape[2]][::-1]]
    x.append(np.full(shape, stream, dtype=np.uint64))
    key, low = [seed % 2**32, seed // 2**32], np.uint64(2**32 - 1)
    for _ in range(7):
        products = np.uint64(0xD2511F53) * x[0], np.uint64(0xCD9E8D57) * x[2]
        (high0, low0), (high1, low1) = ((product >> np.uint64(32), product & low) for product in products)
        x = [high1 ^ x[1] ^ np.uint64(key[0]), low1, high0 ^ x[3] ^ np.uint64(key[1]), low0]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    words = np.stack(x, axis=-1).astype(np.uint32)
    return np.stack([words & 0xFFFF, words >> 16], axis=-1).reshape(num_heads, num_queries, num_keys)
