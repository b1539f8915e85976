"""A pass asks the device for nothing before its end, so that a CUDA graph can hold it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from transformers import PreTrainedModel

from leadre.decoding.device.forward import DevicePass, PassShape
from leadre.decoding.device.kernels import network_of
from leadre.decoding.device.trie import DeviceTrie, MaskStack, stable_top
from leadre.decoding.engine import Score
from leadre.decoding.scores import level_blocks
from leadre.indexing.ad_index import AdIndex
from leadre.prompts.vocabulary import Vocabulary

SCORES: list[Score] = ["raw", "level", "valid"]


class TestDevicePass:
    @pytest.mark.parametrize("score", SCORES)
    def test_no_shape_and_no_branch_depends_on_data(
        self,
        score: Score,
        vocabulary: Vocabulary,
        make_model: Callable[..., PreTrainedModel],
        make_index: Callable[..., AdIndex],
    ) -> None:
        model, index, device = make_model("qwen3"), make_index(300), torch.device("cpu")

        with FakeTensorMode(allow_non_fake_inputs=True) as shapes_only, torch.inference_mode():
            for module in model.modules():
                for name, weight in module.named_parameters(recurse=False):
                    module._parameters[name] = shapes_only.from_tensor(weight.detach())
            output = DevicePass(
                network_of(model),
                blocks=level_blocks(vocabulary),
                score=score,
                trie=DeviceTrie(index.trie, device=device),
                masks=MaskStack(index.trie.leaves, slots=4, device=device),
                shape=PassShape(users=4, tokens=64, beams=9),
                prefill_tokens=128,
            )._run()

        assert output.shape == (2 * 4 * 9 + 1,)

    def test_what_depends_on_data_would_be_found(self) -> None:
        with FakeTensorMode():
            values = torch.zeros(3)
            with pytest.raises(DynamicOutputShapeException):
                torch.nonzero(values)
            with pytest.raises(DataDependentOutputException):
                values.sum().item()


class TestStableTop:
    def test_equal_scores_keep_their_order_and_the_first_of_them_are_taken(self) -> None:
        low, high = -torch.inf, 2.0
        scores = torch.tensor([[1.0, high, 1.0, 1.0, high, low], [low, low, 0.5, low, low, low]], dtype=torch.float64)

        kept, columns = stable_top(scores, 4)

        assert kept.tolist() == [[2, 2, 1, 1], [0.5, low, low, low]]
        assert columns[0].tolist() == [1, 4, 0, 2]
        assert columns[1, 0] == 2
