"""What the source may not do: run what comes from outside. By syntax tree, so a comment or a text is no finding."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("leadre", "workers", "feature_repo", "migrations", "benchmarks", "deploy")
FILES = [ROOT / "setup.py", *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]

FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "pty.spawn"),
    *("torch.save", "pickle.load", "pickle.loads", "pd.read_pickle", "pandas.read_pickle", "np.loadtxt"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "hub.load", "torch.hub.load"),
    *("telnetlib.Telnet", "ftplib.FTP", "tempfile.mktemp", "subprocess.getoutput", "subprocess.getstatusoutput"),
}
FORBIDDEN_METHODS = {"to_pickle", "read_pickle"}
MODELS = {"AutoModel", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "PeftModel", "PreTrainedModel"}


def dotted(node: ast.expr) -> str:
    """`a.b.c` as text; `?` for what is no name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def findings(tree: ast.AST) -> Iterator[str]:
    """Yield what a source does that it may not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in {alias.name.partition(".")[0] for alias in node.names} & FORBIDDEN_MODULES:
                yield f"{node.lineno}: import {name}"
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").partition(".")[0] in FORBIDDEN_MODULES and not node.level:
                yield f"{node.lineno}: from {node.module} import"
        elif isinstance(node, ast.Call):
            yield from (f"{node.lineno}: {what}" for what in called(node))


def called(node: ast.Call) -> Iterator[str]:
    """Yield what a call does that it may not."""
    name = dotted(node.func)
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    constants = {key: value.value if isinstance(value, ast.Constant) else "?" for key, value in given.items()}
    method = name.rpartition(".")[2]
    if name in FORBIDDEN_CALLS or method in FORBIDDEN_METHODS:
        yield name
    if constants.get("shell", False) is not False:
        yield f"{name}(shell=...)"
    if constants.get("trust_remote_code", False) is not False:
        yield f"{name}(trust_remote_code=...)"
    if constants.get("allow_pickle", False) is not False:
        yield f"{name}(allow_pickle=...)"
    if name == "torch.load" and constants.get("weights_only") is not True:
        yield "torch.load without weights_only=True"
    if method == "from_pretrained" and name.split(".")[-2] in MODELS and constants.get("use_safetensors") is not True:
        yield f"{name} without use_safetensors=True"
    if name in ("np.load", "numpy.load") and constants.get("allow_pickle", False) is not False:
        yield f"{name} of objects"


def test_no_source_runs_what_comes_from_outside() -> None:
    assert len(FILES) > 300
    found = {str(path.relative_to(ROOT)): list(findings(ast.parse(path.read_text()))) for path in FILES}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch; torch.load('x')",
        "import torch; torch.load('x', weights_only=False)",
        "import torch; torch.save({}, 'x')",
        "import yaml; yaml.load('x')",
        "eval('1')",
        "exec('1')",
        "subprocess.run('x', shell=True)",
        "subprocess.run('x', shell=flag)",
        "AutoModelForCausalLM.from_pretrained('x')",
        "AutoTokenizer.from_pretrained('x', trust_remote_code=True)",
        "np.load('x', allow_pickle=True)",
        "frame.to_pickle('x')",
        "os.system('x')",
    ],
)
def test_each_of_these_would_be_found(source: str) -> None:
    assert list(findings(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "re.compile('x')",
        "torch.compile(model)",
        "redis.eval(script, 1, key)",
        "yaml.safe_load('x')",
        "AutoModelForCausalLM.from_pretrained('x', use_safetensors=True)",
        "torch.load('x', weights_only=True)",
        "'import pickle'",
        "subprocess.run(['x'], shell=False)",
    ],
)
def test_and_these_are_none(source: str) -> None:
    assert list(findings(ast.parse(source))) == []


def test_no_source_reads_an_s_id_out_of_text() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and dotted(node.func).endswith("SemanticId.parse")
    }
    assert readers == set()  # codes travel as numbers, also to and from our own tables


def test_in_a_model_s_vocabulary_text_is_read_by_the_text_tokenizer_alone() -> None:
    readers = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and dotted(node.func).endswith((".tokenizer", ".tokenizer.encode")):
                readers.add(str(path.relative_to(ROOT)))
    assert readers == set()  # `Learner.tokenizer` knows our tokens by name: it is for padding and for files


LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
PERSONAL = {"title", "name", "profile", "prompt", "text", "body", "behaviors", "source_id", "key", "password", "url"}


def logged(tree: ast.AST) -> Iterator[str]:
    """Yield what a log line could say that it may not: anything but a fixed event, and fields that hold words."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not dotted(node.func).startswith(("logger.", "logging.")):
            continue
        method = dotted(node.func).rpartition(".")[2]
        if method not in LEVELS:
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if method == "exception" or "exc_info" in given:
            yield f"{node.lineno}: a traceback, whose last line may quote a person"
        if len(node.args) != 1 or not isinstance(node.args[0], ast.Constant | ast.Name):
            yield f"{node.lineno}: an event that is not fixed"
        if isinstance(extra := given.get("extra"), ast.Dict):
            names = {key.value for key in extra.keys if isinstance(key, ast.Constant)}
            yield from (f"{node.lineno}: {name}" for name in names & PERSONAL)


def test_a_log_line_is_a_fixed_event_with_numbers() -> None:
    found = {
        str(path.relative_to(ROOT)): list(logged(ast.parse(path.read_text())))
        for folder in ("leadre", "workers")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "logger.info(f'read {title}')",
        "logger.info('read %s', title)",
        "logger.exception('failed')",
        "logger.error('failed', exc_info=True)",
        "logger.info('read', extra={'title': title})",
    ],
)
def test_each_of_these_lines_would_be_found(source: str) -> None:
    assert list(logged(ast.parse(source)))
