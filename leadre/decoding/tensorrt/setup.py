"""What TensorRT-LLM is given: arguments, the quantisation command, and checks of version and hardware.

LEADRE §4.4.2. Plain functions; tests/decoding/test_tensorrt_setup.py holds the names that TensorRT-LLM 1.4 knows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

from leadre.decoding.tensorrt.processor import MAX_BEAM_WIDTH, TrieProcessor
from leadre.errors import ArtifactIncomplete, ConfigError
from leadre.prompts.vocabulary import Vocabulary

CHECKED_VERSION = (1, 4)
_INSTALL = "install tensorrt-llm>=1.4.0rc0,<1.5 on a GPU machine, as NVIDIA's installation guide says"
_SINGLE_PROCESS = "TLLM_WORKER_USE_SINGLE_PROCESS"
# Compute capability that TensorRT-LLM needs for a checkpoint's quantisation; what is absent has no kernels there.
_CAPABILITIES: Mapping[str | None, tuple[int, int]] = {None: (8, 0), "FP8": (8, 9)}


def llm_arguments(
    model_folder: Path,
    *,
    beam_width: int,
    users: int,
    longest_prompt: int,
    levels: int,
    dtype: Literal["auto", "bfloat16", "float16"] = "auto",
    kv_cache_dtype: Literal["auto", "fp8"] = "auto",
    memory_fraction: float = 0.9,
) -> dict[str, Any]:
    """Return the keyword arguments of `tensorrt_llm.LLM`.

    A quantised checkpoint says so itself (hf_quant_config.json), there is no argument for it.

    Args:
        model_folder: a Hugging Face checkpoint.
        beam_width: beams of every request, 2 to 512; fewer can be asked for later, more cannot.
        users: requests decoded at once.
        longest_prompt: tokens of a prompt.
        levels: codes of an S-ID.
        dtype: of weights and activations that are not quantised.
        kv_cache_dtype: of the KV cache.
        memory_fraction: of the GPU memory free after loading, for the KV cache.

    Raises:
        ConfigError: `beam_width` out of range.
    """
    if not 2 <= beam_width <= MAX_BEAM_WIDTH:
        raise ConfigError(f"TensorRT-LLM's beam search is used with 2 to {MAX_BEAM_WIDTH} beams, not {beam_width}")
    return {
        "model": str(model_folder),
        "skip_tokenizer_init": True,
        "dtype": dtype,
        "max_beam_width": beam_width,
        "max_batch_size": users,
        "max_input_len": longest_prompt,
        "max_seq_len": longest_prompt + levels,
        "max_num_tokens": max(8192, longest_prompt, users * beam_width),
        "enable_chunked_prefill": False,
        # The processor decides a step from the step before; the overlap scheduler runs one ahead.
        "disable_overlap_scheduler": True,
        "kv_cache_config": {
            "dtype": kv_cache_dtype,
            "free_gpu_memory_fraction": memory_fraction,
            "enable_block_reuse": False,
        },
    }


def sampling_arguments(*, beam_width: int, vocabulary: Vocabulary, processor: TrieProcessor | None) -> dict[str, Any]:
    """Return the keyword arguments of `tensorrt_llm.SamplingParams`.

    An S-ID has a fixed length and no end token: generation stops at `max_tokens` and no token ends a beam earlier.

    Args:
        beam_width: as in `llm_arguments`; TensorRT-LLM takes no other.
        vocabulary: the release's.
        processor: the request's own.
    """
    return {
        "use_beam_search": True,
        "best_of": beam_width,
        "n": beam_width,
        "max_tokens": vocabulary.levels,
        "end_id": vocabulary.eos_id,
        "pad_id": vocabulary.pad_id,
        "ignore_eos": True,
        "detokenize": False,
        "add_special_tokens": False,
        "logits_processor": processor,
    }


def quantise_command(
    script: Path,
    *,
    model_folder: Path,
    export_folder: Path,
    quantisation: Literal["fp8", "int8_sq"] = "fp8",
    kv_cache: Literal["none", "fp8_cast", "fp8"] = "none",
    examples: int = 512,
    example_tokens: int = 1024,
) -> list[str]:
    """Return the command that quantises a checkpoint with ModelOpt: FP8 or SmoothQuant, the paper's two (§4.4.2).

    Args:
        script: `examples/hf_ptq/hf_ptq.py` of NVIDIA's Model-Optimizer repository, of the installed version.
        model_folder: a Hugging Face checkpoint with its tokenizer.
        export_folder: where the quantised one goes.
        quantisation: "fp8" runs in TensorRT-LLM's PyTorch backend; "int8_sq" (SmoothQuant) has no kernels there.
        kv_cache: of the KV cache; "fp8_cast" needs no calibration.
        examples: calibration texts, from ModelOpt's default data sets.
        example_tokens: length they are cut to.
    """
    options = {
        "--pyt_ckpt_path": model_folder,
        "--qformat": quantisation,
        "--kv_cache_qformat": kv_cache,
        "--calib_size": examples,
        "--calib_seq": example_tokens,
        "--export_path": export_folder,
    }
    return ["python", str(script), *(str(part) for option in options.items() for part in option)]


def quantisation_of(model_folder: Path) -> str | None:
    """Return what ModelOpt calls a checkpoint's quantisation; None where it has none.

    Raises:
        ArtifactIncomplete: no checkpoint there, or an unreadable hf_quant_config.json.
    """
    if not (model_folder / "config.json").is_file():
        raise ArtifactIncomplete(f"{model_folder} holds no config.json; give the folder of a Hugging Face checkpoint")
    file = model_folder / "hf_quant_config.json"
    if not file.is_file():
        return None
    try:
        algorithm = json.loads(file.read_text())["quantization"]["quant_algo"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactIncomplete(f"{file} is not what ModelOpt writes ({error!r}); quantise the model again") from None
    return None if algorithm is None else str(algorithm)


def check_version(version: str | None) -> None:
    """Refuse a TensorRT-LLM that this adapter was not checked against.

    Raises:
        ConfigError: not installed (`version` None), or another one.
    """
    checked = ".".join(map(str, CHECKED_VERSION))
    if version is None:
        raise ConfigError(f"TensorRT-LLM is not installed; {_INSTALL}")
    if version.split(".")[:2] != checked.split("."):
        raise ConfigError(
            f"TensorRT-LLM {version} is installed, this adapter was checked against {checked}; {_INSTALL}"
        )


def check_hardware(capability: tuple[int, int] | None, *, quantisation: str | None) -> None:
    """Refuse a machine that cannot run the checkpoint.

    Args:
        capability: the GPU's compute capability; None without a GPU.
        quantisation: as `quantisation_of` returns it.

    Raises:
        ConfigError: as it says.
    """
    if quantisation not in _CAPABILITIES:
        raise ConfigError(
            f"the checkpoint is quantised as {quantisation}, for which TensorRT-LLM's PyTorch backend is not known to "
            "have kernels; export it as fp8"
        )
    if capability is None:
        raise ConfigError("TensorRT-LLM needs a CUDA device, there is none; use engine 'shared_prefix'")
    needed = _CAPABILITIES[quantisation]
    if capability < needed:
        raise ConfigError(
            f"compute capability {capability[0]}.{capability[1]}, {quantisation or 'unquantised'} checkpoints need "
            f"{needed[0]}.{needed[1]}; use an unquantised checkpoint or a newer GPU"
        )


def import_tensorrt_llm() -> Any:
    """Import TensorRT-LLM such that it runs processors in this process.

    Raises:
        ConfigError: it is missing, a stub, or of another version.
    """
    try:
        version = metadata.version("tensorrt-llm")
    except metadata.PackageNotFoundError:
        version = None
    check_version(version)
    os.environ[_SINGLE_PROCESS] = "1"  # the beams are read from the processors
    try:
        module = import_module("tensorrt_llm")
    except ImportError as error:
        raise ConfigError(f"TensorRT-LLM {version} is installed but cannot be imported ({error}); {_INSTALL}") from None
    if not hasattr(module, "LLM"):
        raise ConfigError(f"the installed tensorrt-llm {version} is a stub without LLM; {_INSTALL}")
    return module
