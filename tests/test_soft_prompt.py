"""A model behind a soft prompt answers as if it read the prompt first, with as many logits as tokens."""

from pathlib import Path

import pytest
import torch

from weighin.adapters.lora import lora
from weighin.harness import Checkpoint
from weighin.harness.model import Loading, TransformersModel


@pytest.fixture(scope="module")
def model(pico_dir: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> TransformersModel:
    out = tmp_path_factory.mktemp("prompted")
    lora(Checkpoint(pico_dir, "key"), out, method="prompt", tokens=5, data=str(text_file), samples=8)
    return TransformersModel(Checkpoint(out, "prompted"), {}, Loading("float32"))


def test_scores_are_those_behind_the_vectors(model: TransformersModel, pico_dir: Path) -> None:
    plain = TransformersModel(Checkpoint(pico_dir, "key"), {}, Loading("float32"))
    rows = [model.encode("Where does the heron sleep?"), model.encode("A keeper")]
    found = model.logprobs(rows)
    assert found.shape[:2] == (2, max(map(len, rows))) and model.window == plain.window - 5
    for row, ours in zip(rows, found, strict=True):
        words = plain.module.get_input_embeddings()(torch.tensor([row]))
        with torch.no_grad():
            whole = plain.module(inputs_embeds=torch.cat([model.module.soft_prompt[None], words], 1)).logits[0, 5:]
        assert torch.allclose(ours[: len(row)], whole.log_softmax(-1), atol=1e-4)
        assert not torch.allclose(ours[: len(row)], plain.logprobs([row])[0], atol=1e-2), "the prompt does act"


def test_a_batch_and_a_cache_change_no_answer(model: TransformersModel) -> None:
    prompts = ["Where does the heron", "A", "The old lantern hangs by the"]
    together = model.generate(prompts, max_new_tokens=10)
    assert together == [model.generate([prompt], max_new_tokens=10)[0] for prompt in prompts]
    ids = model.encode(prompts[0])
    for _ in range(3):
        ids.append(int(model.logprobs([ids])[0, -1].argmax()))
    assert model.tokenizer.decode(ids[-3:]) in together[0] or ids[-1] == model.tokenizer.eos_token_id
