"""Tasks of lm-eval for a Hugging Face model of Statemix (extra `eval`: lm-eval)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statemix.extras import require
from statemix.packs import Tokenizer

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    from statemix.hf import StatemixForCausalLM


def fast_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """A pack's tokenizer as one of transformers: the same ids, nothing added, its end of a document as `eos_token`.

    >>> from statemix.packs import ByteTokenizer
    >>> fast_tokenizer(ByteTokenizer())("né").input_ids
    [110, 195, 169]
    """
    require("transformers", "tokenizers")
    from tokenizers import Tokenizer as Implementation
    from tokenizers.processors import Sequence as Nothing
    from transformers import PreTrainedTokenizerFast

    made = Implementation.from_str(tokenizer.content.decode())
    made.no_truncation()
    made.no_padding()
    made.post_processor = Nothing([])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=tokenizer.end_token, split_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def harness_model(
    model: StatemixForCausalLM, tokenizer: Tokenizer, *, length: int = 2048, batch_size: int = 8
) -> HFLM:
    """A model as lm-eval takes it: `lm_eval.simple_evaluate(model=harness_model(…), tasks=[…])`.

    A text without context is predicted from the end of a document, as in training. No other token is added.

    Args:
        model: The model; it runs where it lies.
        tokenizer: That of the model.
        length: The most tokens of a request; longer ones lose their beginning.
        batch_size: Requests of a forward.

    Raises:
        ImportError: lm-eval is not installed.
        ValueError: The model has too few ids for the tokenizer, or a size is below 1.

    Example:
        >>> from statemix.packs import ByteTokenizer
        >>> config = StatemixConfig(vocab_size=257, hidden_size=8, num_hidden_layers=1)
        >>> harness_model(StatemixForCausalLM(config), ByteTokenizer()).max_length
        2048

    Source: lm-eval 0.4.13, `lm_eval.models.huggingface.HFLM`.
    """
    require("lm_eval")
    from lm_eval.models.huggingface import HFLM

    for name, value in (("length", length), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
    if model.config.vocab_size < tokenizer.vocab_size:
        raise ValueError(
            f"tokenizer: got one of {tokenizer.vocab_size} ids, expected at most {model.config.vocab_size}: the model's"
        )
    return HFLM(
        pretrained=model.eval(), tokenizer=fast_tokenizer(tokenizer), max_length=length, batch_size=batch_size,
        add_bos_token=False, prefix_token_id=tokenizer.end_of_document,
    )  # fmt: skip


def run_tasks(
    model: HFLM, tasks: Sequence[str], *, include: Path | None = None, limit: int | None = None
) -> Any:
    """What `lm_eval.simple_evaluate` gives for tasks by name. include: a folder of more tasks (YAML).

    limit: the first so many documents of each task. ValueError for a task that there is not.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=None if include is None else str(include))
    unknown = [name for name in tasks if name not in manager.all_tasks]
    if unknown or not tasks:
        raise ValueError(
            f"tasks: got {', '.join(unknown) or 'none'}, expected names that `lm-eval ls tasks` lists"
        )
    return simple_evaluate(model=model, tasks=list(tasks), task_manager=manager, limit=limit)


def table(results: Any) -> str:
    """lm-eval's own table of results."""
    from lm_eval.utils import make_table

    return str(make_table(results))


def numbers(results: Any) -> dict[str, dict[str, float]]:
    """The metrics of each task, as plain data."""
    found = {
        task: {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
        for task, metrics in results["results"].items()
    }
    plain: dict[str, dict[str, float]] = json.loads(json.dumps(found))
    return plain
