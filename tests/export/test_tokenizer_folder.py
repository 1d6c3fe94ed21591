"""A saved RFSQ tokenizer: the same to the last bit wherever it is loaded; what is said of one that is not whole."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import ACTION_DIM, decoding_conditionings, used_model
from safetensors.torch import load, save
from tokenizer_models import chunks_for, make_tokenizer, random_sequences, refusal

import rfsq_tokenizer
from rfsq_robust import Checkpoint, Conditioning
from rfsq_tokenizer import RFSQTokenizer

FILES = ["model.safetensors", "processor_config.json", "rfsq_robust.py", "rfsq_tokenizer.py"]
# Nothing of this repository is on the path of such a process: -S leaves out the files of site-packages that add it.
ALONE = [sys.executable, "-I", "-S", "-c"]
PRELUDE = f"""
import importlib, json, sys
sys.path.append({sysconfig.get_path("purelib")!r})
for name in ("rfsq_robust", "rfsq_tokenizer", "workbook"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{{name}} can be imported")
import numpy as np
folder, again, chunks, out = sys.argv[1:]
chunks = np.load(chunks)
"""
LOADED_BY_TRANSFORMERS = """
import pathlib
from transformers import AutoProcessor
tokenizer = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
cache = pathlib.Path(folder).with_name("cache")
fetched = AutoProcessor.from_pretrained("someone/tokens", cache_dir=cache, trust_remote_code=True)
assert fetched(chunks) == tokenizer(chunks)
assert type(fetched).__module__ != type(tokenizer).__module__
"""
LOADED_AS_A_PACKAGE = """
import pathlib
sys.path.append(str(pathlib.Path(folder).parent))
RFSQTokenizer = importlib.import_module(pathlib.Path(folder).name + ".rfsq_tokenizer").RFSQTokenizer
tokenizer = RFSQTokenizer.from_pretrained(folder)
assert not {"transformers", "workbook", "huggingface_hub", "rfsq_robust"} & set(sys.modules)
"""
USED = """
tokens = tokenizer(chunks)
np.savez(out, tokens=tokens, whole=tokenizer.decode(tokens), part=tokenizer.decode([ids[:31] for ids in tokens]))
tokenizer.save_pretrained(again)
try:
    tokenizer.fit(chunks)
except ImportError as error:
    assert "install its repository" in str(error)
else:
    sys.exit("something was fitted without the workbook")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer"
    make_tokenizer(layers=2, offset=50, limit=[1, 1, 0.5, math.inf, 1, 1, 1]).save_pretrained(path)
    return path


def assert_same(one: RFSQTokenizer, other: RFSQTokenizer) -> None:
    for name in ("layers", "chunk_len", "offset", "action_dim", "vocab_size", "tokens_per_chunk"):
        assert getattr(one, name) == getattr(other, name)
    np.testing.assert_array_equal(one.limit, other.limit)
    chunks = chunks_for(one)
    tokens = one(chunks)
    assert other(chunks) == tokens
    sequences = tokens + random_sequences(np.random.default_rng(0), one, 20)
    np.testing.assert_array_equal(other.decode(sequences), one.decode(sequences))


# Saved and loaded


@decoding_conditionings
def test_loaded_again_it_is_the_same(conditioning: Conditioning, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(conditioning, layers=2, chunk_len=5, offset=9, limit=[0.1, 1 / 3, 1, 1, 1, 1, math.inf])
    tokenizer.save_pretrained(tmp_path / "a" / "b")
    assert_same(tokenizer, RFSQTokenizer.from_pretrained(str(tmp_path / "a" / "b")))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_normaliser_is_the_same_to_the_last_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    high = torch.tensor([0.1, 1 / 3, math.pi, 5e-324, 1e300, 0.1 + 0.2, 1.0], dtype=dtype).clamp(max=1e38)
    bounds = {"min": -high / 3, "max": high}
    RFSQTokenizer(Checkpoint(used_model("scale"), normalization=bounds), limit=math.inf).save_pretrained(tmp_path)
    loaded = RFSQTokenizer.from_pretrained(tmp_path).checkpoint.normalization
    assert loaded is not None
    assert all(torch.equal(loaded[name], bounds[name].double()) for name in bounds)


def test_a_folder_holds_four_files_and_nothing_half_written(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES
    content = json.loads((folder / "processor_config.json").read_text(encoding="utf8"))
    assert content["processor_class"] == "RFSQTokenizer"
    assert content["auto_map"] == {"AutoProcessor": "rfsq_tokenizer.RFSQTokenizer"}
    assert content["limit"] == [1, 1, 0.5, None, 1, 1, 1]


def test_the_code_in_a_folder_is_this_code(folder: Path) -> None:
    own = Path(rfsq_tokenizer.__file__)
    saved = (folder / "rfsq_tokenizer.py").read_text(encoding="utf8")
    assert saved != own.read_text(encoding="utf8")
    assert saved.replace("\nfrom .rfsq_robust import", "\nfrom rfsq_robust import") == own.read_text(encoding="utf8")
    assert (folder / "rfsq_robust.py").read_bytes() == own.with_name("rfsq_robust.py").read_bytes()


def test_what_transformers_passes_is_ignored(folder: Path) -> None:
    settings = {"trust_remote_code": True, "_from_auto": True, "revision": None, "use_fast": True}
    assert_same(RFSQTokenizer.from_pretrained(folder), RFSQTokenizer.from_pretrained(folder, **settings))


def test_saving_over_another_replaces_all_of_it(folder: Path) -> None:
    other = make_tokenizer("none", num_layers=2, num_levels=3)
    other.save_pretrained(folder)
    assert_same(other, RFSQTokenizer.from_pretrained(folder))
    assert sorted(path.name for path in folder.iterdir()) == FILES


@pytest.mark.parametrize("file", FILES)
def test_an_interrupted_save_leaves_no_folder_that_loads(
    file: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.name == file:
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        make_tokenizer(offset=3).save_pretrained(folder)
    assert [path.name for path in folder.iterdir() if path.name not in FILES] == []
    message = refusal(lambda: RFSQTokenizer.from_pretrained(folder))
    assert message.startswith(f"{folder / 'processor_config.json'}: cannot be read (No such file or directory)")


def test_the_folder_of_the_code_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(rfsq_tokenizer.__file__).parent
    monkeypatch.chdir(here)
    before = (here / "rfsq_tokenizer.py").read_bytes()
    for name in (str(here), "."):
        assert "holds the code that runs" in refusal(lambda name=name: make_tokenizer().save_pretrained(name))
    assert (here / "rfsq_tokenizer.py").read_bytes() == before
    assert not (here / "model.safetensors").exists()


# In a process of its own


def run_alone(code: str, tmp_path: Path, folder: Path) -> tuple[dict[str, Any], Path]:
    """Tokens and actions of a process in which nothing of this repository can be imported, and what it saved."""
    chunks, out, again, elsewhere = (tmp_path / name for name in ("chunks.npy", "out.npz", "again", "elsewhere"))
    elsewhere.mkdir()
    np.save(chunks, chunks_for(RFSQTokenizer.from_pretrained(folder)))
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(elsewhere), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(
        [*ALONE, PRELUDE + code + USED, str(folder), str(again), str(chunks), str(out)],
        cwd=elsewhere,
        env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(out)), again


def assert_says_the_same(tokenizer: RFSQTokenizer, found: dict[str, Any]) -> None:
    tokens = tokenizer(chunks_for(tokenizer))
    assert found["tokens"].tolist() == tokens
    np.testing.assert_array_equal(found["whole"], tokenizer.decode(tokens))
    np.testing.assert_array_equal(found["part"], tokenizer.decode([ids[:31] for ids in tokens]))


def test_transformers_loads_a_folder_as_a_processor(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("transformers")
    put_into_cache(folder, folder.with_name("cache"))
    found, again = run_alone(LOADED_BY_TRANSFORMERS, tmp_path, folder)
    tokenizer = RFSQTokenizer.from_pretrained(folder)
    assert_says_the_same(tokenizer, found)
    assert_same(tokenizer, RFSQTokenizer.from_pretrained(again))
    for name in FILES:
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_folder_is_a_package_that_needs_nothing_else(tmp_path: Path, folder: Path) -> None:
    found, again = run_alone(LOADED_AS_A_PACKAGE, tmp_path, folder)
    tokenizer = RFSQTokenizer.from_pretrained(folder)
    assert_says_the_same(tokenizer, found)
    assert (again / "rfsq_tokenizer.py").read_bytes() == (folder / "rfsq_tokenizer.py").read_bytes()


# From the Hub


def put_into_cache(folder: Path, cache: Path) -> None:
    """As huggingface_hub leaves a repository that it has fetched."""
    repository = cache / "models--someone--tokens"
    shutil.copytree(folder, repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)


def test_the_name_of_a_repository(tmp_path: Path, folder: Path) -> None:
    put_into_cache(folder, tmp_path / "cache")
    settings = {"cache_dir": tmp_path / "cache", "local_files_only": True, "revision": "main", "use_fast": True}
    assert_same(RFSQTokenizer.from_pretrained(folder), RFSQTokenizer.from_pretrained("someone/tokens", **settings))


@pytest.mark.parametrize("name", ["someone/nothing", "./no/such/folder", "no such name"])
def test_what_is_neither_a_folder_nor_a_repository(name: str, tmp_path: Path) -> None:
    message = refusal(lambda: RFSQTokenizer.from_pretrained(name, cache_dir=tmp_path, local_files_only=True))
    assert message.startswith(f"{name}: is no folder here, and no repository that could be fetched (")


@pytest.mark.parametrize(("name", "shown"), [("", "''"), (None, "None"), (7, "7")])
def test_what_names_no_folder(name: Any, shown: str) -> None:
    message = f"the folder is {shown}; name one, or a repository of the Hub"
    assert refusal(lambda: RFSQTokenizer.from_pretrained(name)) == message


# Folders that are not whole


Config = dict[str, Any]


def changing(change: Callable[[Config], Any]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        content = json.loads(path.read_text(encoding="utf8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf8")

    return spoil


def setting(key: str, value: Any, *under: str) -> Callable[[Path], None]:
    def change(content: Config) -> None:
        for name in under:
            content = content[name]
        content[key] = value

    return changing(change)


def writing(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "cannot be read (No such file or directory); save the tokenizer again"),
        (writing(b""), "not JSON, or cut short"),
        (writing(b'{"processor_class": "RFSQ'), "not JSON, or cut short"),
        (writing(b"\xff\xfe"), "not JSON, or cut short"),
        (writing(b"[1]"), "is not of an RFSQTokenizer"),
        (setting("processor_class", "UniversalActionProcessor"), "is not of an RFSQTokenizer"),
        (setting("beam_width", 3), "holds the unknown beam_width; "),
        (setting("use_bias", 1, "config"), "holds the unknown use_bias in 'config'; "),
        (setting("mean", [0] * 7, "normalization"), "holds the unknown mean in 'normalization'; "),
        (changing(lambda content: content.pop("layers")), "lacks layers; "),
        (changing(lambda content: content["config"].pop("num_levels")), "lacks num_levels in 'config'; "),
        (changing(lambda content: content["normalization"].pop("min")), "lacks min in 'normalization'; "),
        (setting("config", None), "lacks action_dim, conditioning, hidden_dim"),
        (setting("min", None, "normalization"), "'normalization' or 'limit' are not numbers"),
        (setting("min", ["a"] * 7, "normalization"), "'normalization' or 'limit' are not numbers"),
        (setting("limit", 1.0), "'normalization' or 'limit' are not numbers"),
        (setting("limit", ["wide"] * 7), "'normalization' or 'limit' are not numbers"),
        (setting("limit", [1.0] * 6), "limit is [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]; give one positive number, or 7"),
        (setting("min", [0.0] * 6, "normalization"), "'normalization' does not hold 7 values"),
        (setting("min", [9.0] * 7, "normalization"), "'normalization' holds a 'min' above its 'max'"),
        (setting("max", [math.nan] * 7, "normalization"), "'normalization' holds a 'min' above its 'max', or values"),
        (setting("layers", 4), "layers is 4; give an integer from 1 to 3"),
        (setting("chunk_len", 2.5), "chunk_len is 2.5; give an integer"),
        (setting("offset", "0"), "offset is '0'; give an integer"),
        (setting("layers", None), "layers is None; give an integer from 1 to 3"),
        (setting("chunk_len", None), "chunk_len is None; give an integer from 1"),
        (setting("offset", None), "offset is None; give an integer from 0"),
        (setting("limit", None), "'normalization' or 'limit' are not numbers"),
        (setting("use_layernorm", True, "config"), "use_layernorm in 'config' is True, where the rest says False"),
        (setting("use_layernorm", None, "config"), "use_layernorm in 'config' is None, where the rest says False"),
        (setting("conditioning", None, "config"), "conditioning in 'config' is None, where the rest says 'none'"),
        (changing(lambda content: content["config"].update(use_layernorm=True, conditioning="layernorm")), "condition"),
    ],
)
def test_a_config_that_is_not_whole(spoil: Callable[[Path], None], message: str, folder: Path) -> None:
    path = folder / "processor_config.json"
    spoil(path)
    assert refusal(lambda: RFSQTokenizer.from_pretrained(folder)).startswith(f"{path}: {message}")


def other_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        state = load(path.read_bytes())
        change(state)
        path.write_bytes(save(state))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "cannot be read (No such file or directory); save the tokenizer again"),
        (writing(b""), "not safetensors, or cut short"),
        (writing(b"{}"), "not safetensors, or cut short"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "not safetensors, or cut short"),
        (lambda path: torch.save(load(path.read_bytes()), path), "not safetensors, or cut short"),
        (other_weights(dict.clear), "holds no action autoencoder"),
        (other_weights(lambda state: state["decoder.2.bias"].fill_(math.nan)), "holds weights that are NaN"),
        (other_weights(lambda state: state.pop("decoder.2.bias")), "weights do not fit conditioning 'scale'"),
        (other_weights(lambda state: state.update(more=torch.ones(2))), "weights do not fit conditioning 'scale'"),
        (other_weights(lambda state: state.pop("rfsq.layers.2.boundaries")), "config says num_layers 3, but the"),
        (other_weights(lambda state: state["rfsq.layers.1.boundaries"].mul_(2)), "rfsq.layers.1.boundaries is not"),
    ],
)
def test_weights_that_are_not_whole(spoil: Callable[[Path], None], message: str, folder: Path) -> None:
    path = folder / "model.safetensors"
    spoil(path)
    assert refusal(lambda: RFSQTokenizer.from_pretrained(folder)).startswith(f"{path}: {message}")


def test_the_config_of_another_model_does_not_fit(folder: Path, tmp_path: Path) -> None:
    make_tokenizer(num_levels=7).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "processor_config.json", folder)
    message = refusal(lambda: RFSQTokenizer.from_pretrained(folder))
    assert re.search(r"model.safetensors: config says num_levels 7, but the weights have 5$", message)


def test_a_folder_without_its_code_loads_beside_the_module(folder: Path) -> None:
    """The code in it is for those who have none."""
    tokenizer = RFSQTokenizer.from_pretrained(folder)
    (folder / "rfsq_tokenizer.py").unlink()
    (folder / "rfsq_robust.py").unlink()
    assert_same(tokenizer, RFSQTokenizer.from_pretrained(folder))
    assert tokenizer.action_dim == ACTION_DIM
