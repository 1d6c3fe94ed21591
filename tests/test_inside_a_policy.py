"""The codec as part of a policy that is made on the meta device, cast, compiled, wrapped, sharded or put on a GPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, strategies as st
from models import ACTION_DIM, all_conditionings, few_examples, seeds, uniform, used_model
from tokenizer_models import checkpoint_of, chunks_for, make_tokenizer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.nn.functional import mse_loss

from rfsq_robust import ActionRFSQAE, Conditioning, RobustRFSQBlock, RobustSTEQuantizer
from rfsq_tokenizer import RFSQTokenizer

X = uniform(40, ACTION_DIM, seed=3)
SIZES = (ACTION_DIM, 6, 3, 5)  # of used_model
dtypes = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


def gpu(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")(test))


def results(model: ActionRFSQAE, x: Tensor = X) -> tuple[Tensor, ...]:
    """Codes, actions decoded from them, and both from forward."""
    codes, stats = model.encode(x, return_stats=True)
    with torch.no_grad():
        return codes, model.decode_from_indices(codes, stats), *model(x)


def assert_equal(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """Bit for bit, dtypes included."""
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one.cpu(), other.cpu())


def on_meta(conditioning: Conditioning) -> ActionRFSQAE:
    with torch.device("meta"):
        return ActionRFSQAE(*SIZES, conditioning=conditioning)


def fill(module: nn.Module, value: float) -> None:
    """Put into every parameter and buffer what memory may hold that nobody wrote to."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(value if tensor.is_floating_point() else 7)


# Made on the meta device


def emptied(good: ActionRFSQAE) -> ActionRFSQAE:
    model = on_meta(good.conditioning).to_empty(device="cpu")
    fill(model, torch.nan)
    model.load_state_dict(good.state_dict(), strict=True)
    return model


def assigned(good: ActionRFSQAE) -> ActionRFSQAE:
    model = on_meta(good.conditioning)
    model.load_state_dict(copy.deepcopy(good.state_dict()), strict=True, assign=True)
    return model


def emptied_within_a_policy(good: ActionRFSQAE) -> ActionRFSQAE:
    with torch.device("meta"):
        policy = nn.ModuleDict({"head": nn.Linear(3, 4), "codec": ActionRFSQAE(*SIZES, conditioning=good.conditioning)})
    policy = policy.to_empty(device="cpu")
    fill(policy, 3.7)
    codec = policy["codec"]
    assert isinstance(codec, ActionRFSQAE)
    policy.load_state_dict({f"codec.{name}": value for name, value in good.state_dict().items()}, strict=False)
    return codec


@all_conditionings
@pytest.mark.parametrize("build", [emptied, assigned, emptied_within_a_policy])
def test_a_model_made_on_the_meta_device_is_that_which_was_saved(
    conditioning: Conditioning, build: Callable[[ActionRFSQAE], ActionRFSQAE]
) -> None:
    good = used_model(conditioning)
    model = build(good)
    assert_equal(results(model.eval()), results(good))
    assert_equal(model.train()(X), good.train()(X))


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DeviceMesh]:
    """One process, of which the shards are."""
    dist.init_process_group("gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


# FSDP itself refuses scalar parameters, of which `learned_scale` has one a layer.
@pytest.mark.parametrize("conditioning", ["none", "layernorm", "frozen_layernorm", "scale"])
def test_a_sharded_model_made_on_the_meta_device_is_that_which_was_saved(
    conditioning: Conditioning, mesh: DeviceMesh
) -> None:
    good, model = used_model(conditioning), on_meta(conditioning)
    fully_shard(model, mesh=mesh)
    for method in ("encode", "decode_from_indices"):
        register_fsdp_forward_method(model, method)
    model.to_empty(device="cpu")
    set_model_state_dict(model, good.state_dict(), options=StateDictOptions(full_state_dict=True))
    assert_equal(results(model.eval()), results(good))


@all_conditionings
def test_whatever_a_module_holds_is_in_its_state_dict(conditioning: Conditioning) -> None:
    model = used_model(conditioning)
    assert {name for name, _ in model.named_buffers()} <= model.state_dict().keys()


@all_conditionings
def test_what_the_boundaries_hold_decides_nothing(conditioning: Conditioning) -> None:
    model = used_model(conditioning)
    before = results(model)
    for layer in model.rfsq.quantizers:
        layer.boundaries.fill_(torch.nan)
    assert_equal(results(model), before)


def test_tensors_that_hold_nothing_have_the_shapes_of_real_ones() -> None:
    with FakeTensorMode():
        reconstruction, codes = ActionRFSQAE(*SIZES[:3], 41, conditioning="scale").train()(torch.rand(4, ACTION_DIM))
    assert (reconstruction.shape, codes.shape) == ((4, ACTION_DIM), (4, 6, 3))
    # 41 levels are used here alone: nothing that was made up there may stay for the real ones.
    quantized, indices = RobustSTEQuantizer(41, conditioning="none")(torch.tensor([-1.0, 0.05, 2.0]))
    assert (quantized.tolist(), indices.tolist()) == ([-1.0, pytest.approx(0.05), 1.0], [0, 21, 40])


def test_constants_made_in_inference_mode_serve_training() -> None:
    block = RobustRFSQBlock(2, 43, conditioning="learned_scale")  # 43 levels are used here alone
    with torch.inference_mode():
        block(uniform(5, 6))
    z = uniform(5, 6).requires_grad_()
    block(z)[0].sum().backward()
    assert z.grad is not None
    assert torch.equal(z.grad, torch.ones(5, 6))
    values = block.quantizers[0].to_values(torch.arange(43), *block.quantizers[0].constants())
    probabilities = torch.full((43,), 1 / 43, requires_grad=True)
    (probabilities @ values).backward()
    assert probabilities.grad is not None
    assert torch.equal(probabilities.grad, values)


# float32 always


@all_conditionings
@dtypes
def test_autocast_changes_no_bit(conditioning: Conditioning, dtype: torch.dtype) -> None:
    model = used_model(conditioning)
    expected = results(model)
    with torch.autocast("cpu", dtype):
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == dtype  # autocast is on
        assert_equal(results(model), expected)
        assert_equal((model.residual_std(X),), (model.residual_std(X.double()),))


@few_examples
@given(seed=seeds, hidden_dim=st.integers(2, 20), num_layers=st.integers(1, 9), num_levels=st.integers(2, 9))
def test_autocast_changes_no_bit_whatever_the_sizes(
    seed: int, hidden_dim: int, num_layers: int, num_levels: int
) -> None:
    model = used_model("scale", seed, hidden_dim, num_layers, num_levels)
    expected = results(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert_equal(results(model), expected)


@all_conditionings
def test_autocast_changes_no_bit_of_training(conditioning: Conditioning) -> None:
    plain = used_model(conditioning).train()
    under_autocast = copy.deepcopy(plain)
    mse_loss(plain(X)[0], X).backward()
    with torch.autocast("cpu", torch.bfloat16):
        reconstruction = under_autocast(X)[0]
    mse_loss(reconstruction, X).backward()
    for one, other in zip(under_autocast.parameters(), plain.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)
    assert_equal(tuple(under_autocast.buffers()), tuple(plain.buffers()))


@all_conditionings
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_cast_model_is_one_of_its_rounded_weights_in_float32(conditioning: Conditioning, dtype: torch.dtype) -> None:
    cast = used_model(conditioning).to(dtype)
    rounded = copy.deepcopy(cast).float()
    expected = results(rounded)
    assert expected[1].dtype == torch.float32
    assert_equal(results(cast), expected)
    assert_equal(results(cast, X.to(dtype)), results(rounded, X.to(dtype).float()))
    with torch.autocast("cpu", torch.bfloat16):
        assert_equal(results(cast), expected)


@all_conditionings
@dtypes
def test_a_cast_model_trains_and_keeps_its_dtype(conditioning: Conditioning, dtype: torch.dtype) -> None:
    model = used_model(conditioning).to(dtype).train()
    mse_loss(model(X.to(dtype))[0], X).backward()
    assert all(parameter.grad is not None and parameter.grad.dtype == dtype for parameter in model.parameters())
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)
    assert {buffer.dtype for buffer in model.buffers() if buffer.is_floating_point()} == {dtype}


def test_casting_down_and_up_leaves_grid_and_scales() -> None:
    block = RobustRFSQBlock(4, 7, conditioning="scale")
    expected = block(uniform(20, 6))
    assert_equal(block.to(torch.bfloat16).float()(uniform(20, 6)), expected)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@all_conditionings
def test_the_default_dtype_says_nothing(conditioning: Conditioning) -> None:
    good = used_model(conditioning).to(torch.bfloat16)
    expected = results(good)
    with default_dtype(torch.bfloat16):
        model = ActionRFSQAE(*SIZES, conditioning=conditioning).eval()
        model.load_state_dict(good.state_dict())
        assert_equal(results(model), expected)


def test_the_tokenizer_gives_the_same_within_autocast_and_of_a_cast_model() -> None:
    tokenizer = make_tokenizer()
    chunks = chunks_for(tokenizer)
    tokens, actions = tokenizer(chunks), tokenizer.decode(tokenizer(chunks))
    with torch.autocast("cpu", torch.bfloat16):
        assert tokenizer(chunks) == tokens
        assert (tokenizer.decode(tokens) == actions).all()
    cast = make_tokenizer()
    cast.checkpoint.model.to(torch.bfloat16)
    rounded = make_tokenizer()
    rounded.checkpoint.model.to(torch.bfloat16).float()
    assert cast(chunks) == rounded(chunks)
    assert (cast.decode(tokens) == rounded.decode(tokens)).all()


def test_a_tokenizer_of_a_cast_model_is_saved_and_loaded(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.checkpoint.model.to(torch.bfloat16)
    tokenizer.save_pretrained(tmp_path / "folder")
    tokens = tokenizer(chunks_for(tokenizer))
    again = RFSQTokenizer.from_pretrained(tmp_path / "folder")
    assert again(chunks_for(tokenizer)) == tokens
    assert (again.decode(tokens) == tokenizer.decode(tokens)).all()


# Compiled


@pytest.fixture
def compiled() -> Iterator[Callable[..., Any]]:
    """torch.compile with a backend that needs no C++ compiler, and nothing kept from the tests before."""
    torch._dynamo.reset()
    yield lambda function, **options: torch.compile(function, **{"backend": "aot_eager", **options})
    torch._dynamo.reset()


@all_conditionings
def test_a_compiled_model_gives_the_same(conditioning: Conditioning, compiled: Callable[..., Any]) -> None:
    model = used_model(conditioning)
    codes, stats = model.encode(X, return_stats=True)
    expected = results(model)
    for autocast in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            reconstruction, found = compiled(model)(X)
            encoded, decoded = compiled(model.encode)(X), compiled(model.decode_from_indices)(codes, stats)
        assert torch.equal(found, codes)
        assert torch.equal(encoded, codes)
        torch.testing.assert_close((decoded, reconstruction), (expected[1], expected[2]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("conditioning", ["none", "layernorm", "learned_scale", "scale"])
def test_a_training_step_is_one_graph(conditioning: Conditioning, compiled: Callable[..., Any]) -> None:
    """But for `frozen_layernorm`, whose first batches weigh by their number."""
    model, plain = used_model(conditioning).train(), used_model(conditioning).train()
    reconstruction, codes = compiled(model, fullgraph=True)(X)
    expected, expected_codes = plain(X)
    assert torch.equal(codes, expected_codes)
    torch.testing.assert_close(reconstruction, expected, rtol=0, atol=1e-5)
    mse_loss(reconstruction, X).backward()
    mse_loss(expected, X).backward()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


@all_conditionings
def test_a_compiled_model_refuses_what_is_no_number(conditioning: Conditioning, compiled: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        compiled(used_model(conditioning).encode)(torch.full((2, ACTION_DIM), torch.nan))


def assert_equal_but_at_ties(block: RobustRFSQBlock, z: Tensor, found: Tensor) -> None:
    """The first layer in which a latent has another code met it within rounding of the border between the two.

    z: (N, H), and found: (N, H, K), codes of a `scale` block; both may come from a computation that rounds otherwise.
    """
    _, codes, _, residuals = block.quantize(z)
    same = torch.ones_like(z, dtype=torch.bool)  # in all layers before
    for k, layer in enumerate(block.quantizers):
        differs = same & (codes[..., k] != found[..., k])
        steps = (residuals[k].double() / layer.geometric_scale + 1) * (block.num_levels - 1) / 2 - 0.5
        allowed = 4e-6 * float(block.num_levels - 1) ** (k + 1)
        assert float((steps - steps.round()).abs()[differs].max() if differs.any() else 0) <= allowed
        same &= ~differs


@pytest.mark.slow
def test_code_that_a_compiler_wrote_gives_the_same_but_at_ties(compiled: Callable[..., Any]) -> None:
    model = used_model("scale", hidden_dim=16, num_layers=4, num_levels=7)
    x = uniform(500, ACTION_DIM)
    codes = model.encode(x)
    with torch.no_grad():
        found = compiled(model.encode, backend="inductor")(x)
        decoded = compiled(model.decode_from_indices, backend="inductor")(codes)
        assert_equal_but_at_ties(model.rfsq, model.encoder(x), found)
    assert float((found == codes).float().mean()) > 0.99
    torch.testing.assert_close(decoded, model.decode_from_indices(codes), rtol=0, atol=1e-5)


# Saved and loaded with a policy


@pytest.fixture
def policies() -> Any:
    """Makes a model of transformers that holds a copy of a codec."""
    transformers = pytest.importorskip("transformers", reason="./run_tests.sh installs it")

    class Config(transformers.PretrainedConfig):
        model_type = "policy_with_a_codec"

        def __init__(self, codec: dict[str, Any] | None = None, **rest: Any) -> None:
            self.codec = codec or {}
            super().__init__(**rest)

    class Policy(transformers.PreTrainedModel):
        config_class = Config

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.head = nn.Linear(4, 4)
            self.codec = ActionRFSQAE(**config.codec)
            self.post_init()

    def build(codec: ActionRFSQAE) -> Any:
        policy = Policy(Config(codec.config))
        policy.codec.load_state_dict(codec.state_dict())
        return policy.eval()

    return build


@all_conditionings
def test_a_codec_comes_back_with_its_policy_bit_for_bit(
    conditioning: Conditioning, policies: Any, tmp_path: Path
) -> None:
    codec = used_model(conditioning)
    policy = policies(codec)
    policy.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    loaded = type(policy).from_pretrained(tmp_path).eval()
    assert_equal(results(loaded.codec), results(codec))
    with torch.autocast("cpu", torch.bfloat16):
        assert_equal(results(loaded.codec), results(codec))


@all_conditionings
def test_a_policy_in_bfloat16_has_the_codec_of_the_rounded_weights(
    conditioning: Conditioning, policies: Any, tmp_path: Path
) -> None:
    codec = used_model(conditioning)
    policy = policies(codec)
    policy.save_pretrained(tmp_path)
    loaded = type(policy).from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert loaded.codec.decoder[0].weight.dtype == torch.bfloat16
    assert_equal(results(loaded.codec), results(copy.deepcopy(codec).to(torch.bfloat16).float()))


def test_a_compiled_policy_gives_the_same(policies: Any, tmp_path: Path, compiled: Callable[..., Any]) -> None:
    codec = used_model("scale")
    policy = policies(codec)
    policy.save_pretrained(tmp_path)
    loaded = type(policy).from_pretrained(tmp_path).eval()
    codes = codec.encode(X)
    with torch.autocast("cpu", torch.bfloat16):
        decoded = compiled(lambda given: loaded.codec.decode_from_indices(given))(codes)
    torch.testing.assert_close(decoded, codec.decode_from_indices(codes), rtol=0, atol=1e-5)


# On a GPU


@gpu
@all_conditionings
def test_autocast_on_a_gpu_changes_no_bit(conditioning: Conditioning) -> None:
    model = used_model(conditioning).cuda()
    expected = results(model, X.cuda())
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cuda", dtype):
            assert_equal(results(model, X.cuda()), expected)


@gpu
def test_a_gpu_gives_the_codes_of_the_cpu_but_at_ties() -> None:
    model = used_model("scale", num_layers=4)
    on_gpu = copy.deepcopy(model).cuda()
    codes = model.encode(X)
    assert_equal_but_at_ties(model.rfsq, model.encoder(X).detach(), on_gpu.encode(X.cuda()).cpu())
    decoded = on_gpu.decode_from_indices(codes.cuda()).cpu()
    torch.testing.assert_close(decoded, model.decode_from_indices(codes), rtol=0, atol=1e-5)


@gpu
@all_conditionings
def test_a_model_made_on_the_meta_device_moves_to_a_gpu(conditioning: Conditioning) -> None:
    good = used_model(conditioning)
    model = on_meta(conditioning).to_empty(device="cuda")
    fill(model, torch.nan)
    model.load_state_dict(good.state_dict(), strict=True)
    assert_equal(results(model.eval(), X.cuda()), results(good.cuda(), X.cuda()))


@gpu
def test_a_policy_comes_back_on_a_gpu(policies: Any, tmp_path: Path) -> None:
    codec = used_model("scale")
    policy = policies(codec)
    policy.save_pretrained(tmp_path)
    loaded = type(policy).from_pretrained(tmp_path).eval().cuda()
    assert_equal(results(loaded.codec, X.cuda()), results(codec.cuda(), X.cuda()))


@gpu
def test_a_normaliser_follows_its_actions_to_a_gpu() -> None:
    checkpoint = checkpoint_of()
    raw = checkpoint.denormalise(X)
    assert_equal((checkpoint.denormalise(X.cuda()), checkpoint.normalise(raw.cuda())), (raw, checkpoint.normalise(raw)))
    assert checkpoint.normalise(raw.cuda()).is_cuda


@gpu
def test_a_tokenizer_of_a_model_on_a_gpu_takes_and_gives_arrays() -> None:
    tokenizer, on_gpu = make_tokenizer(), make_tokenizer()
    on_gpu.checkpoint.model.cuda()
    tokens = tokenizer(chunks_for(tokenizer))
    assert [len(ids) for ids in on_gpu(chunks_for(tokenizer))] == [len(ids) for ids in tokens]
    assert abs(on_gpu.decode(tokens) - tokenizer.decode(tokens)).max() < 1e-4
