"""DNABERT's tokenizer as a data file, which Hugging Face loads with `AutoTokenizer`, without code from gemsdata.

A word-level model cannot make overlapping tokens, so the normaliser writes the sequence out as k-mers first. It
supports no captures, only replacing matches by a constant, with which bases are copied as follows: before each base,
for j = 1 .. k-1 and each letter x, if the j-th base from there is x, insert x in lower case. So ACG becomes AcgCgG (k =
3). A space before each capital splits this into k-mers, and shorter words are removed.
"""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from gemsdata.genome.vocab import CLS_ID, SEP_ID, SPECIAL_TOKENS, UNK_ID, all_kmers, check_k

_BASES = "ATCGN"  # N stands for every other letter; a k-mer with it is [UNK]


def KmerTokenizer(k: int = 6, *, stride: int = 1, model_max_length: int = 512) -> PreTrainedTokenizerFast:
    """Return a tokenizer with DNABERT's ids for k-mers.

    It takes raw bases in either case (``ACGTACG`` becomes the overlapping k-mers ACGTAC CGTACG; U is T), k-mer text as
    in DNABERT's files (``ACGTAC CGTACG``), and special tokens within; words shorter than k give no token, k-mers with a
    letter other than A, C, G, T give [UNK]. Saved with ``save_pretrained``, it loads with
    ``AutoTokenizer.from_pretrained``.

    Parameters
    ----------
    k
        bases in a token.
    stride
        bases from one token to the next, 1..k; if above 1, a remainder at the end that is shorter than k gives no
        token.
    model_max_length
        number of tokens to which ``truncation=True`` truncates, including [CLS] and [SEP].
    """
    words = [*SPECIAL_TOKENS, *(kmer.decode() for kmer in all_kmers(check_k(k)).tolist())]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIAL_TOKENS[UNK_ID]))
    tokenizer.normalizer = _overlapping(k)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if stride > 1:  # of each group of ``stride`` overlapping k-mers keep the first
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(rf"\S{{{k}}}(?: +\S{{{k}}}){{0,{stride - 1}}}"), "removed", invert=True),
                pre_tokenizers.Split(Regex(rf"^\S{{{k}}}"), "removed", invert=True),
            ]
        )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS_ID), ("[SEP]", SEP_ID)],
    )
    roles = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=model_max_length,
        model_input_names=["input_ids", "attention_mask"],
        **dict(zip(roles, SPECIAL_TOKENS, strict=True)),
    )


def _overlapping(k: int) -> normalizers.Normalizer:
    """Return the normaliser that writes every word of a text as its overlapping k-mers, with spaces between."""
    replace = normalizers.Replace
    capital, any_case = f"[{_BASES}]", f"[{_BASES}{_BASES.lower()}]"
    small = f"[{_BASES.lower()}]"
    rules: list[normalizers.Normalizer] = [normalizers.Lowercase(), replace("u", "t")]
    rules += [replace(base.lower(), base) for base in "ATCG"]
    rules.append(replace(Regex(r"[^ATCG\s]"), "N"))
    for j in range(1, k):
        for base in _BASES:
            ahead = f"(?:{capital}{small}*){{{j - 1}}}{base}"
            rules.append(replace(Regex(f"(?={capital})(?<={any_case})(?={ahead})"), base.lower()))
    if k > 1:
        rules.append(replace(Regex(f"{capital}{small}{{0,{k - 2}}}(?!{small})"), " "))
    rules.append(replace(Regex(f"(?={capital})"), " "))
    rules += [replace(base.lower(), base) for base in _BASES]
    return normalizers.Sequence(rules)
