"""What TensorRT-LLM is given, against the names that its newest release knows."""

from __future__ import annotations

import inspect
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from leadre.decoding.tensorrt import setup as tensorrt_setup
from leadre.decoding.tensorrt.processor import TrieProcessor
from leadre.decoding.tensorrt.setup import (
    check_hardware,
    check_version,
    import_tensorrt_llm,
    llm_arguments,
    quantisation_of,
    quantise_command,
    sampling_arguments,
)
from leadre.errors import ArtifactIncomplete, ConfigError
from leadre.prompts.vocabulary import Vocabulary

# Names looked up on 23 November 2026, when 1.4.0rc1 (21 October 2026) was the newest TensorRT-LLM.
# LLM and TorchLlmArgs: the 1.4.0rc1 documentation's LLM page shows a part of them, the rest is from the project's
# tensorrt_llm/usage/llm_args_golden_manifest.json at commit 92e30752. `sampler_type` is gone since (PR #18232).
LLM_NAMES = {
    "model", "skip_tokenizer_init", "dtype", "max_batch_size", "max_beam_width", "max_input_len", "max_num_tokens",
    "max_seq_len", "enable_chunked_prefill", "disable_overlap_scheduler", "kv_cache_config", "tokenizer",
    "trust_remote_code", "tensor_parallel_size", "cuda_graph_config", "attn_backend",
}  # fmt: skip
# KvCacheConfig: the documentation of 1.3.0rc27.
KV_CACHE_NAMES = {"dtype", "free_gpu_memory_fraction", "enable_block_reuse", "max_tokens", "tokens_per_block"}
# SamplingParams: the current documentation, and tensorrt_llm/sampling_params.py of a version before 1.4.
SAMPLING_NAMES = {
    "end_id", "pad_id", "max_tokens", "logits_processor", "n", "best_of", "use_beam_search", "temperature",
    "length_penalty", "early_stopping", "beam_search_diversity_rate", "ignore_eos", "detokenize", "add_special_tokens",
    "logprobs",
}  # fmt: skip
# LogitsProcessor.__call__: tensorrt_llm/sampling_params.py. The runner counts four or five parameters.
PROCESSOR_NAMES = ["req_id", "logits", "token_ids", "stream_ptr", "client_id"]
# examples/hf_ptq/hf_ptq.py of NVIDIA/Model-Optimizer at commit 678b1b2d (the folder was examples/llm_ptq before);
# --qformat: the README beside it. ModelOpt 0.47.0 is the newest release.
PTQ_OPTIONS = {
    "--pyt_ckpt_path", "--qformat", "--kv_cache_qformat", "--calib_size", "--calib_seq", "--export_path", "--dataset",
}  # fmt: skip
PTQ_FORMATS = {"fp8", "int8_sq", "fp8_pc_pt", "nvfp4"}


def arguments(**changed: Any) -> dict[str, Any]:
    given = {"beam_width": 128, "users": 3, "longest_prompt": 1000, "levels": 5} | changed
    return llm_arguments(Path("model"), **given)


class TestNames:
    def test_the_llm_is_given_names_it_knows(self) -> None:
        given = arguments()
        assert set(given) <= LLM_NAMES
        assert set(given["kv_cache_config"]) <= KV_CACHE_NAMES

    def test_sampling_is_given_names_it_knows(self, vocabulary: Vocabulary) -> None:
        assert set(sampling_arguments(beam_width=2, vocabulary=vocabulary, processor=None)) <= SAMPLING_NAMES

    def test_the_processor_takes_what_it_is_called_with(self) -> None:
        assert list(inspect.signature(TrieProcessor.__call__).parameters)[1:] == PROCESSOR_NAMES

    def test_the_installed_release_knows_the_names_too(self, vocabulary: Vocabulary) -> None:
        real = pytest.importorskip("tensorrt_llm", reason="needs TensorRT-LLM, which needs a GPU machine")
        real.SamplingParams(**sampling_arguments(beam_width=2, vocabulary=vocabulary, processor=None))
        given = arguments()
        real.llmapi.KvCacheConfig(**given["kv_cache_config"])
        assert set(given) <= set(real.llmapi.TorchLlmArgs.model_fields)
        called = inspect.signature(real.sampling_params.LogitsProcessor.__call__)
        assert list(called.parameters)[1:] == PROCESSOR_NAMES


class TestArguments:
    def test_a_prompt_and_an_s_id_fit_in_one_piece(self) -> None:
        given = arguments(longest_prompt=9000)
        assert (given["max_input_len"], given["max_seq_len"]) == (9000, 9005)
        assert given["max_num_tokens"] >= 9000
        assert not given["enable_chunked_prefill"]

    def test_all_beams_of_all_users_fit_in_one_step(self) -> None:
        assert arguments(beam_width=500, users=32)["max_num_tokens"] >= 500 * 32

    @pytest.mark.parametrize("beam_width", [1, 513])
    def test_a_width_that_the_order_of_beams_does_not_carry_is_refused(self, beam_width: int) -> None:
        with pytest.raises(ConfigError, match=f"2 to 512 beams, not {beam_width}"):
            arguments(beam_width=beam_width)

    def test_beam_search_has_the_engines_width_and_no_end_token(self, vocabulary: Vocabulary) -> None:
        given = sampling_arguments(beam_width=9, vocabulary=vocabulary, processor=None)
        assert given["best_of"] == given["n"] == 9
        assert given["max_tokens"] == vocabulary.levels
        assert given["ignore_eos"]
        assert given["end_id"] is not None  # without a tokenizer TensorRT-LLM insists on one
        assert not {"temperature", "length_penalty", "early_stopping"} & set(given)

    def test_the_quantisation_command_has_options_that_the_script_takes(self) -> None:
        command = quantise_command(
            Path("hf_ptq.py"), model_folder=Path("a"), export_folder=Path("b"), quantisation="int8_sq"
        )
        assert command[:2] == ["python", "hf_ptq.py"]
        options = dict(zip(command[2::2], command[3::2], strict=True))
        assert set(options) <= PTQ_OPTIONS
        assert options["--qformat"] in PTQ_FORMATS
        assert (options["--pyt_ckpt_path"], options["--export_path"]) == ("a", "b")


class TestTheMachine:
    @pytest.mark.parametrize("version", ["1.4.0rc1", "1.4.0", "1.4.7.post1"])
    def test_versions_of_the_checked_series_pass(self, version: str) -> None:
        check_version(version)

    @pytest.mark.parametrize("version", ["1.2.1", "1.3.0rc29", "1.40.0", "2.4.0"])
    def test_another_version_is_refused_by_name(self, version: str) -> None:
        with pytest.raises(ConfigError, match=f"{version} is installed.*checked against 1.4"):
            check_version(version)

    def test_a_missing_package_says_where_to_look(self) -> None:
        with pytest.raises(ConfigError, match=r"not installed.*installation guide"):
            check_version(None)

    def test_a_package_that_is_only_a_stub_is_told_from_the_real_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TLLM_WORKER_USE_SINGLE_PROCESS", "0")
        monkeypatch.setattr(metadata, "version", lambda _: "1.4.0rc1")
        monkeypatch.setattr(tensorrt_setup, "import_module", lambda _: object())
        with pytest.raises(ConfigError, match="stub"):
            import_tensorrt_llm()

    def test_a_broken_installation_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(_: str) -> None:
            raise ImportError("libnvinfer.so.10")

        monkeypatch.setenv("TLLM_WORKER_USE_SINGLE_PROCESS", "0")
        monkeypatch.setattr(metadata, "version", lambda _: "1.4.0rc1")
        monkeypatch.setattr(tensorrt_setup, "import_module", fails)
        with pytest.raises(ConfigError, match=r"cannot be imported.*libnvinfer"):
            import_tensorrt_llm()

    def test_no_gpu_an_old_gpu_and_a_format_without_kernels_are_refused(self) -> None:
        check_hardware((8, 0), quantisation=None)
        check_hardware((9, 0), quantisation="FP8")
        with pytest.raises(ConfigError, match="CUDA device"):
            check_hardware(None, quantisation=None)
        with pytest.raises(ConfigError, match=r"compute capability 8\.0, FP8 checkpoints need 8\.9"):
            check_hardware((8, 0), quantisation="FP8")
        with pytest.raises(ConfigError, match=r"W8A8_SQ_PER_CHANNEL.*fp8"):
            check_hardware((9, 0), quantisation="W8A8_SQ_PER_CHANNEL")

    def test_a_checkpoint_says_how_it_is_quantised(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactIncomplete, match=r"config\.json"):
            quantisation_of(tmp_path)
        (tmp_path / "config.json").write_text("{}")
        assert quantisation_of(tmp_path) is None
        (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "FP8"}}))
        assert quantisation_of(tmp_path) == "FP8"
        (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": None}}))
        assert quantisation_of(tmp_path) is None  # the KV cache alone
        (tmp_path / "hf_quant_config.json").write_text("[]")
        with pytest.raises(ArtifactIncomplete, match="quantise the model again"):
            quantisation_of(tmp_path)
