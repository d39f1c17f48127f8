"""The masking strategies as plain Python, a row at a time, written from the definitions: slow, easy to believe."""

from __future__ import annotations

WORD = 1 << 64
MASK_ROWS = 0x3A5C
CENTRES, CORRUPTION, TIES, LENGTHS, TRIM = 1, 2, 3, 4, 5
CLS, SEP, MASK = 2, 3, 4


def mix(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % WORD
    return x ^ (x >> 31)


def fold(key, word):
    return mix((key ^ mix((word + 0x9E3779B97F4A7C15) % WORD)) + 0x9E3779B97F4A7C15 & WORD - 1)


def draw(key, counter):
    return mix((key + (counter + 1) * 0x9E3779B97F4A7C15) % WORD)


def below(bits, n):
    return (bits >> 32) * n >> 32


def row_key(seed, epoch, stage, row_id):
    key = 0
    for word in (seed, MASK_ROWS, epoch, stage, row_id):
        key = fold(key, word)
    return key


def powers(rate):
    """floor of (1 - rate)**g in 64-bit fixed point, g = 1, 2, ..., until it vanishes."""
    stay = WORD - round(rate * WORD)
    out = [stay]
    while out[-1]:
        out.append(out[-1] * stay >> 64)
    return out


def bernoulli(key, num_tokens, rate):
    """Each token with probability rate: P(gap >= g) = (1 - rate)**g, by inversion of one uniform number a gap."""
    tail = powers(rate)
    chosen, at, counter = [], -1, 0
    while True:
        bits = draw(fold(key, CENTRES), counter)
        at += 1 + sum(bits < power for power in tail)
        if at >= num_tokens:
            return chosen
        chosen.append(at)
        counter += 1


def shuffled(key, num_tokens, count):
    """The first ``count`` cards of a Fisher-Yates shuffle."""
    cards = list(range(num_tokens))
    for i in range(count):
        j = i + below(draw(fold(key, CENTRES), i), num_tokens - i)
        cards[i], cards[j] = cards[j], cards[i]
    return cards[:count]


def spans_of(name, key, ids, ranks, k, stage, centres, keep_going):
    """Spans in order of priority: (lo, hi, anchor), unclipped hi exclusive."""
    tokens = range(len(ids))
    narrow = {3: (1, 1), 4: (1, 2), 5: (2, 2), 6: (2, 3), 7: (3, 3), 8: (3, 4)}[k]

    def tie(token_pos):
        return draw(fold(key, TIES), token_pos)

    def rank(token_pos):
        if name.endswith("-released"):  # the position, counted from [CLS], taken for a token id
            position = token_pos + 1
            if position < 5:
                return 0 if name == "genemask-released" else 4**k
            return ranks[position] if position < 4**k + 5 else 4**k
        return ranks[ids[token_pos]]

    def narrow_span(c):
        return c - narrow[0], c + narrow[1] + 1, c

    def wide_span(p):
        return p - (k - 1), p + (k - 1) + 1, p

    if name == "random-token":
        return [(c, c + 1, c) for c in centres]
    if name == "dnabert":
        return [narrow_span(c) for c in centres]
    if name == "random-span":
        return [wide_span(c) for c in centres]
    if name == "randommask":
        longest = k + 2 * min(stage, k)
        lengths = {c: k + below(draw(fold(key, LENGTHS), c), longest - k + 1) for c in centres}
        return [(c - (lengths[c] - 1) // 2, c - (lengths[c] - 1) // 2 + lengths[c], c) for c in centres]
    if name.startswith("genemask"):
        chosen = []
        for c in centres:
            window = [t for t in tokens if c - narrow[0] <= t <= c + narrow[1]]
            best = min(window, key=lambda t: (rank(t), tie(t)))
            chosen.append((rank(best), tie(c), best, c))
        chosen.sort()
        high = -(-len(chosen) // 2)
        if name == "genemask-released" and high < 5:
            high = len(chosen)
        return [wide_span(best) for *_, best, _ in chosen[:high]] + [narrow_span(c) for *_, c in chosen[high:]]
    order = sorted(tokens, key=lambda t: (rank(t), tie(t)))
    if name == "global-nms":
        first = []
        for t in order:
            if all(abs(t - other) > 2 * (k - 1) for other in first):
                first.append(t)
        order = first + ([t for t in order if t not in first] if keep_going else [])
    return [wide_span(t) for t in order[: len(centres)]]


def hidden_bases(masked, num_tokens, k):
    """Bases that no unmasked token shows."""
    shown = {t + i for t in range(num_tokens) if t not in masked for i in range(k)}
    return {b for b in range(num_tokens + k - 1) if b not in shown} if num_tokens else set()


def mask_to_budget(key, spans, num_tokens, k, target, unit):
    """Mask token by token up to the target; returns (masked, reached)."""
    from_right = draw(fold(key, TRIM), 0) & 1
    masked = set()

    def size(mask):
        return len(mask) if unit == "token" else len(hidden_bases(mask, num_tokens, k))

    for lo, hi, _ in spans:
        for t in reversed(range(lo, hi)) if from_right else range(lo, hi):
            if size(masked) == target:
                return masked, True
            if not 0 <= t < num_tokens:
                continue
            if size(masked | {t}) > target:
                break
            masked.add(t)
    return masked, size(masked) == target


def masked_tokens(name, key, ids, ranks, k, stage, rate, budget, unit):
    num_tokens = len(ids)
    if budget is None:
        centres = bernoulli(key, num_tokens, rate)
        spans = spans_of(name, key, ids, ranks, k, stage, centres, False)
        return {t for lo, hi, _ in spans for t in range(lo, hi) if 0 <= t < num_tokens}
    bases = num_tokens + k - 1 if num_tokens else 0
    target = round(budget * (num_tokens if unit == "token" else bases))
    masked = set()
    for count in range(num_tokens + 1):
        spans = spans_of(name, key, ids, ranks, k, stage, shuffled(key, num_tokens, count), True)
        masked, reached = mask_to_budget(key, spans, num_tokens, k, target, unit)
        if reached:
            break
    return masked


def row_batch(name, key, ids, ranks, k, length, stage, rate, budget, unit, corruption):
    """(masked, input_ids, labels, attention_mask), the last three of length + 2."""
    masked = masked_tokens(name, key, ids, ranks, k, stage, rate, budget, unit)
    padding = [0] * (length - len(ids))
    labels = [ids[t] if t in masked else -100 for t in range(len(ids))]
    seen = list(ids)
    for t in masked:
        first = t
        while corruption == "span" and first - 1 in masked:
            first -= 1
        tenth = below(draw(fold(key, CORRUPTION), first), 10)
        low = draw(fold(key, CORRUPTION), t) % (1 << 32)
        if corruption == "mask" or tenth < 8:
            seen[t] = MASK
        elif tenth == 8:
            seen[t] = low * (4**k + 5) >> 32 if name.endswith("-released") else 5 + (low * 4**k >> 32)
    return (
        masked,
        [CLS, *seen, SEP, *padding],
        [-100, *labels, -100, *[-100] * len(padding)],
        [1] * (len(ids) + 2) + padding,
    )
